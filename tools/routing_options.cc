// SPDX-License-Identifier: Apache-2.0
#include "tools/routing_options.h"

#include <algorithm>
#include <array>

#include "tools/number.h"

namespace esplane::tools {

namespace {

constexpr std::uint32_t smallest_mtu = 576;
constexpr std::uint32_t largest_mtu = 65535;
constexpr std::uint32_t smallest_mss = 88; ///< what Linux sends at least
/// default, main, local: the kernel's own.
constexpr std::uint32_t first_kernel_table = 253;
constexpr std::uint32_t last_kernel_table = 255;
/// Two rules' priorities before it, one behind, none of them the kernel's own.
constexpr std::uint32_t first_priority = 3;
constexpr std::uint32_t last_priority = 32763;

/// Sets the option from its value; false where the value is none for it.
using setter = bool (*)(routing_options& o, std::string_view value);

struct option_description {
    std::string_view name;
    std::string_view takes; ///< for people
    setter set;
};

bool read_yes(std::string_view value, bool& into) {
    if (value != "yes" && value != "no") return false;
    into = value == "yes";
    return true;
}

bool read_between(std::string_view value, std::uint32_t least, std::uint32_t most,
                  std::uint32_t& into) {
    return read_number(value, into) && into >= least && into <= most;
}

/// 0: as if it had not been given.
bool read_or_none(std::string_view value, std::uint32_t least, std::uint32_t& into) {
    return value == "0" ? (into = 0, true) : read_between(value, least, largest_mtu, into);
}

bool read_table(std::string_view value, std::uint32_t& into) {
    return read_number(value, into) && into != 0 &&
           (into < first_kernel_table || into > last_kernel_table);
}

bool read_fwmark(std::string_view value, routing_options& o) {
    o.unless_marked = value.starts_with('!');
    if (o.unless_marked) value.remove_prefix(1);
    const auto slash = value.find('/');
    o.mark.mask = 0xffffffff;
    const std::string_view mask = slash == std::string_view::npos ? "" : value.substr(slash + 1);
    if (slash != std::string_view::npos && !read_number(mask, o.mark.mask)) return false;
    return read_number(value.substr(0, slash), o.mark.value) && o.mark.mask != 0 &&
           (o.mark.value & ~o.mark.mask) == 0;
}

constexpr std::array options{
    option_description{"install_routes", "yes or no",
                       [](auto& o, auto v) { return read_yes(v, o.install_routes); }},
    option_description{"routing_table", "a table of its own: a number but 0 and 253 to 255",
                       [](auto& o, auto v) { return read_table(v, o.table); }},
    option_description{
        "routing_table_prio", "a number from 3 to 32763",
        [](auto& o, auto v) { return read_between(v, first_priority, last_priority, o.priority); }},
    option_description{"fwmark", "[!]MARK[/MASK], as in !0xe5",
                       [](auto& o, auto v) { return read_fwmark(v, o); }},
    option_description{"mtu", "bytes from 576 to 65535, or 0",
                       [](auto& o, auto v) { return read_or_none(v, smallest_mtu, o.mtu); }},
    option_description{"mss", "bytes from 88 to 65535, or 0",
                       [](auto& o, auto v) { return read_or_none(v, smallest_mss, o.mss); }},
    option_description{"allow_peer_ts", "yes or no",
                       [](auto& o, auto v) { return read_yes(v, o.allow_peer_ts); }},
    option_description{"install_routes_xfrmi", "yes or no",
                       [](auto& o, auto v) { return read_yes(v, o.install_routes_xfrmi); }},
    option_description{"roam_events", "yes or no",
                       [](auto& o, auto v) { return read_yes(v, o.roam_events); }},
};

tl::unexpected<error> bad(const std::string& what) {
    return fail(EINVAL, "--routing " + what, "routing");
}

} // namespace

result<void> set_routing_option(routing_options& o, std::string_view name, std::string_view value) {
    const auto found = std::find_if(options.begin(), options.end(),
                                    [&](const auto& option) { return option.name == name; });
    if (found == options.end()) {
        std::string there;
        for (const auto& option : options)
            there += (there.empty() ? "" : ", ") + std::string(option.name);
        return bad(std::string(name) + ": unknown: there are " + there);
    }
    routing_options fresh = o;
    if (found->set(fresh, value)) {
        o = fresh;
        return {};
    }
    return bad(std::string(name) + "=" + std::string(value) + ": give " +
               std::string(found->takes));
}

result<void> set_routing_options(routing_options& o, std::string_view text) {
    while (!text.empty()) {
        const auto comma = text.find(',');
        const std::string_view one = text.substr(0, comma);
        const auto equals = one.find('=');
        const std::string_view value =
            equals == std::string_view::npos ? "" : one.substr(equals + 1);
        if (auto set = set_routing_option(o, one.substr(0, equals), value); !set) return set;
        text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
    }
    return {};
}

} // namespace esplane::tools
