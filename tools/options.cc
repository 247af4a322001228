// SPDX-License-Identifier: Apache-2.0
#include "tools/options.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <sstream>

#include <CLI/CLI.hpp>
#include <net/if.h>
#include <toml++/toml.h>

#include "fastpath/lane.h"
#include "fastpath/mss.h"
#include "fastpath/sa_directory.h"
#include "tools/number.h"
#include "tools/version.h"

namespace esplane::tools {

namespace {

constexpr std::size_t name_limit = 32;
constexpr unsigned cpu_limit = 1024; ///< CPU_SETSIZE
constexpr std::uint32_t highest_rate = 1'000'000'000;

constexpr std::pair<std::string_view, fastpath::punt_class> punt_classes[] = {
    {"ike", fastpath::punt_class::ike},
    {"arp", fastpath::punt_class::arp_nd},
    {"icmp", fastpath::punt_class::icmp},
    {"other", fastpath::punt_class::other},
};

constexpr std::pair<std::string_view, fastpath::port_role> roles[] = {
    {"plain", fastpath::port_role::plain},
    {"secure", fastpath::port_role::secure},
    {"host", fastpath::port_role::host},
};

tl::unexpected<error> bad_port(const std::string& text, const std::string& what) {
    return fail(EINVAL, "--port " + text + ": " + what, "port");
}

bool good_name(const std::string& name) {
    const auto good = [](unsigned char c) {
        return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.';
    };
    return !name.empty() && name.size() <= name_limit &&
           std::all_of(name.begin(), name.end(), good);
}

std::optional<fastpath::port_role> role_named(const std::string& name) {
    for (const auto& [text, role] : roles)
        if (name == text) return role;
    return std::nullopt;
}

/// A kind of port, and the names of the options it takes beside `role`.
struct kind_description {
    std::string_view name;
    std::vector<std::string_view> options;
    bool device_options = false; ///< what is no option of the port is one of its device
    std::size_t device_limit = IF_NAMESIZE - 1;
};
const std::vector<kind_description>& kinds() {
    static const std::vector<kind_description> all{
#ifdef ESPLANE_HAVE_DPDK
        {"dpdk", {}, true, 63},
#endif
        {"packet", {"qdisc"}},
        {"socket", {"mark", "super-packets"}},
        {"tun", {"mtu", "coalesce", "mark"}},
#ifdef ESPLANE_HAVE_XDP
        {"xdp", {"mode", "busy-poll"}},
#endif
    };
    return all;
}

const kind_description* kind_named(std::string_view name) {
    const auto found = std::find_if(kinds().begin(), kinds().end(),
                                    [&](const kind_description& k) { return k.name == name; });
    return found == kinds().end() ? nullptr : &*found;
}

tl::unexpected<error> unknown_option(const port_spec& spec, const std::string& option) {
    std::string there = "role=plain|secure|host";
    for (const std::string_view name : kind_named(spec.kind)->options)
        there += ", " + std::string(name) + "=...";
    return bad_port(spec.text, "unknown option \"" + option + "\": there is " + there);
}

/// One ",key=value" of a port.
result<void> apply_port_option(port_spec& spec, const std::string& option) {
    const kind_description& kind = *kind_named(spec.kind);
    const auto equals = option.find('=');
    const std::string key = option.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
    const auto role = key == "role" ? role_named(value) : std::nullopt;
    if (kind.device_options && !role && !key.empty()) {
        spec.options.emplace_back(key, value);
        return {};
    }
    if (equals == std::string::npos) return unknown_option(spec, option);
    if (key != "role") {
        const auto& known = kind.options;
        if (std::find(known.begin(), known.end(), key) == known.end())
            return unknown_option(spec, option);
        spec.options.emplace_back(key, value);
        return {};
    }
    if (!role)
        return bad_port(spec.text, "no role \"" + value + "\": choose plain, secure or host");
    spec.role = *role;
    return {};
}

result<void> check_kind(const port_spec& spec) {
    if (kind_named(spec.kind) != nullptr) return {};
    return bad_port(spec.text,
                    "no port kind \"" + spec.kind + "\": this build has " + port_kinds());
}

/// Everything the two sources can say; what is absent was not said.
struct stated {
    std::optional<std::string> run_dir;
    std::optional<std::string> xfrm;
    std::optional<std::string> xfrm_unknown;
    std::optional<unsigned> workers;
    std::optional<unsigned> reserve;
    std::optional<std::string> cpus;
    std::optional<std::vector<std::string>> ports;
    std::optional<std::string> eal;
    std::optional<std::string> poll;
    std::optional<std::string> punt_limit;
    std::optional<std::string> mss_clamp;
    std::optional<std::string> gcm_kernel;
    std::optional<std::vector<std::string>> filter;
    std::vector<std::string> routing; ///< "name=value[,...]", later ones count
    std::optional<std::string> state;
    std::optional<std::string> state_key;
};

stated overlay(stated over, const stated& under) {
    if (!over.run_dir) over.run_dir = under.run_dir;
    if (!over.xfrm) over.xfrm = under.xfrm;
    if (!over.xfrm_unknown) over.xfrm_unknown = under.xfrm_unknown;
    if (!over.workers) over.workers = under.workers;
    if (!over.reserve) over.reserve = under.reserve;
    if (!over.cpus) over.cpus = under.cpus;
    if (!over.ports) over.ports = under.ports;
    if (!over.eal) over.eal = under.eal;
    if (!over.poll) over.poll = under.poll;
    if (!over.punt_limit) over.punt_limit = under.punt_limit;
    if (!over.mss_clamp) over.mss_clamp = under.mss_clamp;
    if (!over.gcm_kernel) over.gcm_kernel = under.gcm_kernel;
    if (!over.filter) over.filter = under.filter;
    if (!over.state) over.state = under.state;
    if (!over.state_key) over.state_key = under.state_key;
    over.routing.insert(over.routing.begin(), under.routing.begin(), under.routing.end());
    return over;
}

tl::unexpected<error> bad_file(const std::string& path, const std::string& what) {
    return fail(EINVAL, "--config " + path + ": " + what, "config");
}

template <typename T>
result<void> read_value(const std::string& path, std::string_view key, const toml::node& node,
                        const char* wanted, std::optional<T>& into) {
    const auto value =
        node.value_exact<std::conditional_t<std::is_unsigned_v<T>, std::int64_t, T>>();
    if constexpr (std::is_unsigned_v<T>) {
        if (value && (*value < 0 || *value > std::numeric_limits<int>::max()))
            return bad_file(path, std::string(key) + ": out of range");
    }
    if (!value) return bad_file(path, std::string(key) + ": must be " + wanted);
    into = static_cast<T>(*value);
    return {};
}

/// example   an element, as a user would write it
result<void> read_texts(const std::string& path, const std::string& key, const toml::node& node,
                        const char* example, std::optional<std::vector<std::string>>& into) {
    const std::string wanted =
        key + ": must be an array of texts, as in " + key + " = [\"" + example + "\"]";
    const toml::array* array = node.as_array();
    if (array == nullptr) return bad_file(path, wanted);
    into.emplace();
    for (const toml::node& entry : *array) {
        const auto text = entry.value_exact<std::string>();
        if (!text) return bad_file(path, wanted);
        into->push_back(*text);
    }
    return {};
}

/// [routing]: texts, numbers, and true or false for yes or no.
result<void> read_routing(const std::string& path, const toml::node& node,
                          std::vector<std::string>& into) {
    const toml::table* table = node.as_table();
    if (table == nullptr) return bad_file(path, "routing: must be a table, [routing]");
    for (const auto& [key, value] : *table) {
        const std::string name = std::string(key) + "=";
        if (const auto text = value.value_exact<std::string>())
            into.push_back(name + *text);
        else if (const auto number = value.value_exact<std::int64_t>())
            into.push_back(name + std::to_string(*number));
        else if (const auto flag = value.value_exact<bool>())
            into.push_back(name + (*flag ? "yes" : "no"));
        else
            return bad_file(path, "routing: " + std::string(key) + ": must be a text or a number");
    }
    return {};
}

result<stated> read_file(const std::string& path) {
    toml::table table;
    try {
        table = toml::parse_file(path);
    } catch (const toml::parse_error& e) {
        const auto line = e.source().begin.line;
        const std::string where = line != 0 ? "line " + std::to_string(line) + ": " : "";
        return bad_file(path, where + std::string(e.description()));
    }
    stated s;
    for (const auto& [key, node] : table) {
        result<void> read;
        if (key == "run-dir")
            read = read_value(path, key, node, "a text", s.run_dir);
        else if (key == "xfrm")
            read = read_value(path, key, node, "a text", s.xfrm);
        else if (key == "xfrm-unknown")
            read = read_value(path, key, node, "a text", s.xfrm_unknown);
        else if (key == "workers")
            read = read_value(path, key, node, "a number", s.workers);
        else if (key == "reserve")
            read = read_value(path, key, node, "a number", s.reserve);
        else if (key == "cpus")
            read = read_value(path, key, node, "a text, as in cpus = \"2\"", s.cpus);
        else if (key == "port")
            read = read_texts(path, "port", node, "wan=xdp:eth0,role=secure", s.ports);
        else if (key == "eal")
            read = read_value(path, key, node, "a text, as in eal = \"--in-memory\"", s.eal);
        else if (key == "poll")
            read = read_value(path, key, node, "a text", s.poll);
        else if (key == "punt-limit")
            read = read_value(path, key, node, "a text, as in punt-limit = \"ike=5000\"",
                              s.punt_limit);
        else if (key == "mss-clamp")
            read = read_value(path, key, node, "a text, as in mss-clamp = \"on\"", s.mss_clamp);
        else if (key == "gcm-kernel")
            read = read_value(path, key, node, "a text, as in gcm-kernel = \"off\"", s.gcm_kernel);
        else if (key == "state")
            read = read_value(path, key, node, "a text, as in state = \"off\"", s.state);
        else if (key == "state-key")
            read = read_value(path, key, node, "a text, the name of a file", s.state_key);
        else if (key == "routing")
            read = read_routing(path, node, s.routing);
        else if (key == "filter")
            read = read_texts(path, "filter", node, "deny out proto tcp dport 25", s.filter);
        else
            read = bad_file(
                path,
                "unknown key \"" + std::string(key) +
                    "\": there are run-dir, xfrm, xfrm-unknown, workers, cpus, poll, port, eal, "
                    "punt-limit, mss-clamp, gcm-kernel, filter, reserve, routing, state and "
                    "state-key");
        if (!read) return tl::unexpected(read.error());
    }
    return s;
}

/// Names and devices are each used once.
result<void> check_distinct(const std::vector<port_spec>& ports) {
    std::set<std::string> names, devices;
    for (const port_spec& p : ports) {
        if (!names.insert(p.name).second)
            return bad_port(p.text, "there is a port \"" + p.name + "\" already: name each once");
        if (!devices.insert(p.device).second)
            return bad_port(p.text, "device " + p.device + " is another port's: use each once");
    }
    return {};
}

result<std::vector<port_spec>> parse_ports(const std::vector<std::string>& texts) {
    std::vector<port_spec> ports;
    for (const std::string& text : texts) {
        auto spec = parse_port(text);
        if (!spec) return tl::unexpected(spec.error());
        ports.push_back(std::move(*spec));
    }
    if (ports.empty())
        return fail(EINVAL, "no port: give at least one, as in --port wan=xdp:eth0,role=secure",
                    "port");
    if (auto distinct = check_distinct(ports); !distinct) return tl::unexpected(distinct.error());
    return ports;
}

result<bool> parse_xfrm(const std::string& text) {
    if (text == "serve") return true;
    if (text == "off") return false;
    if (text == "mirror")
        return fail(EINVAL, "--xfrm mirror: not in this version: choose serve or off", "xfrm");
    return fail(EINVAL, "--xfrm " + text + ": choose serve or off", "xfrm");
}

result<bool> parse_xfrm_unknown(const std::string& text) {
    if (text == "strict") return true;
    if (text == "kernel-like") return false;
    return fail(EINVAL, "--xfrm-unknown " + text + ": choose strict or kernel-like",
                "xfrm-unknown");
}

result<std::vector<fastpath::filter_rule>> parse_filter(const std::vector<std::string>& texts) {
    if (texts.size() > fastpath::rule_filter::most_rules)
        return fail(EINVAL,
                    "--filter: " + std::to_string(texts.size()) + " rules: use at most " +
                        std::to_string(fastpath::rule_filter::most_rules),
                    "filter");
    std::vector<fastpath::filter_rule> rules;
    for (const std::string& text : texts) {
        auto rule = fastpath::parse_filter_rule(text);
        if (!rule) return tl::unexpected(rule.error());
        rules.push_back(std::move(*rule));
    }
    return rules;
}

result<bool> parse_poll(const std::string& text) {
    if (text == "always") return true;
    if (text == "adaptive") return false;
    return fail(EINVAL, "--poll " + text + ": choose adaptive or always", "poll");
}

result<bool> parse_gcm_kernel(const std::string& text) {
    if (text == "on") return true;
    if (text == "off") return false;
    return fail(EINVAL, "--gcm-kernel " + text + ": choose on or off", "gcm-kernel");
}

/// What routing leaves out by its mark is ESP, which carries it: with another one, what the port
/// sends would be led back into the machine's.
result<void> mark_sockets(const routing_options& routing, std::vector<port_spec>& ports) {
    if (!routing.unless_marked) return {};
    const bool leads =
        routing.install_routes &&
        std::any_of(ports.begin(), ports.end(), [](const port_spec& p) { return p.kind == "tun"; });
    const std::string exempt = std::to_string(routing.mark.value);
    for (port_spec& p : ports) {
        if (p.kind != "socket") continue;
        const auto given = std::find_if(p.options.rbegin(), p.options.rend(),
                                        [](const auto& option) { return option.first == "mark"; });
        std::uint32_t mark = 0;
        if (given == p.options.rend())
            p.options.emplace_back("mark", exempt);
        else if (leads && read_number(given->second, mark) && !routing.mark.matches(mark))
            return fail(EINVAL,
                        "--port " + p.text + ": routing exempts what has mark " + exempt +
                            ": leave mark= out, or give --routing fwmark=!" + given->second,
                        "port");
    }
    return {};
}

result<daemon_options> interpret(const stated& s) {
    daemon_options o;
    if (s.run_dir) o.run_dir = *s.run_dir;
    if (o.run_dir.empty())
        return fail(EINVAL, "--run-dir: must not be empty: name a directory", "run-dir");
    const auto xfrm = parse_xfrm(s.xfrm.value_or("serve"));
    if (!xfrm) return tl::unexpected(xfrm.error());
    o.serve_xfrm = *xfrm;
    const auto strict = parse_xfrm_unknown(s.xfrm_unknown.value_or("strict"));
    if (!strict) return tl::unexpected(strict.error());
    o.strict_xfrm = *strict;
    const auto state = parse_state(s.state.value_or("auto"));
    if (!state) return tl::unexpected(state.error());
    o.state = *state;
    o.state.key_path = s.state_key.value_or("");
    o.workers = s.workers.value_or(1);
    if (o.workers == 0 || o.workers > fastpath::max_lanes)
        return fail(EINVAL,
                    "--workers " + std::to_string(o.workers) + ": choose 1 to " +
                        std::to_string(fastpath::max_lanes),
                    "workers");
    o.reserve = s.reserve.value_or(0);
    if (o.reserve > fastpath::sa_directory::capacity)
        return fail(EINVAL,
                    "--reserve " + std::to_string(o.reserve) + ": choose up to " +
                        std::to_string(fastpath::sa_directory::capacity),
                    "reserve");
    if (s.cpus) {
        auto cpus = parse_cpus(*s.cpus);
        if (!cpus) return tl::unexpected(cpus.error());
        o.cpus = std::move(*cpus);
        if (o.cpus.size() != o.workers)
            return fail(EINVAL,
                        "--cpus " + *s.cpus + ": name one CPU for each of the " +
                            std::to_string(o.workers) + " workers",
                        "cpus");
    }
    const auto always = parse_poll(s.poll.value_or("adaptive"));
    if (!always) return tl::unexpected(always.error());
    o.always_poll = *always;
    if (s.punt_limit) {
        const auto rates = parse_punt_limit(*s.punt_limit);
        if (!rates) return tl::unexpected(rates.error());
        o.punts = *rates;
    }
    const auto clamp = parse_mss_clamp(s.mss_clamp.value_or("off"));
    if (!clamp) return tl::unexpected(clamp.error());
    o.mss_clamp = *clamp;
    const auto gcm_kernel = parse_gcm_kernel(s.gcm_kernel.value_or("on"));
    if (!gcm_kernel) return tl::unexpected(gcm_kernel.error());
    o.crypto.gcm_kernel = *gcm_kernel;
    if (s.eal && kind_named("dpdk") == nullptr)
        return fail(EINVAL, "--eal: this build has no DPDK ports: build it with -Ddpdk=enabled",
                    "eal");
    o.eal = s.eal.value_or("");
    auto filter = parse_filter(s.filter.value_or(std::vector<std::string>{}));
    if (!filter) return tl::unexpected(filter.error());
    o.filter = std::move(*filter);
    auto ports = parse_ports(s.ports.value_or(std::vector<std::string>{}));
    if (!ports) return tl::unexpected(ports.error());
    o.ports = std::move(*ports);
    for (const std::string& text : s.routing)
        if (auto set = set_routing_options(o.routing, text); !set)
            return tl::unexpected(set.error());
    if (auto marked = mark_sockets(o.routing, o.ports); !marked)
        return tl::unexpected(marked.error());
    return o;
}

} // namespace

std::string_view name_of(fastpath::port_role role) noexcept {
    for (const auto& [text, r] : roles)
        if (r == role) return text;
    return "?";
}

result<port_spec> parse_port(const std::string& text) {
    port_spec spec;
    spec.text = text;
    const auto equals = text.find('=');
    const auto colon = text.find(':', equals == std::string::npos ? 0 : equals);
    if (equals == std::string::npos || colon == std::string::npos)
        return bad_port(text, "not of the form NAME=KIND:DEVICE[,role=plain|secure|host]");
    spec.name = text.substr(0, equals);
    if (!good_name(spec.name))
        return bad_port(text, "bad name \"" + spec.name +
                                  "\": use up to 32 letters, digits, '-', '_' and '.'");
    spec.kind = text.substr(equals + 1, colon - equals - 1);
    if (auto kind = check_kind(spec); !kind) return tl::unexpected(kind.error());
    auto comma = text.find(',', colon);
    spec.device = text.substr(colon + 1, comma - colon - 1);
    const std::size_t longest = kind_named(spec.kind)->device_limit;
    if (spec.device.empty() || spec.device.size() > longest)
        return bad_port(text, "bad device \"" + spec.device + "\": a device has 1 to " +
                                  std::to_string(longest) + " characters (ip link)");
    while (comma != std::string::npos) {
        const auto next = text.find(',', comma + 1);
        if (auto applied = apply_port_option(spec, text.substr(comma + 1, next - comma - 1));
            !applied)
            return tl::unexpected(applied.error());
        comma = next;
    }
    return spec;
}

std::string port_kinds() {
    std::string names;
    for (const kind_description& k : kinds())
        names += (names.empty() ? "" : ", ") + std::string(k.name);
    return names;
}

result<std::vector<unsigned>> parse_cpus(const std::string& text) {
    const auto bad = [&] {
        return fail(EINVAL, "--cpus " + text + ": not a list of CPUs, as in 2 or 2,4-5", "cpus");
    };
    std::vector<unsigned> cpus;
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto number = [&](unsigned& into) {
        const auto [stop, code] = std::from_chars(at, end, into);
        at = stop;
        return code == std::errc() && into < cpu_limit;
    };
    while (true) {
        unsigned first = 0;
        if (!number(first)) return bad();
        unsigned last = first;
        if (at != end && *at == '-' && (++at, !number(last) || last < first)) return bad();
        for (unsigned cpu = first; cpu <= last; ++cpu)
            cpus.push_back(cpu);
        if (at == end) return cpus;
        if (*at++ != ',') return bad();
    }
}

result<std::uint32_t> parse_mss_clamp(const std::string& text) {
    constexpr std::uint32_t least = 576, most = 65535;
    if (text == "off") return 0;
    if (text == "on") return fastpath::mss_by_path;
    std::uint32_t mtu = 0;
    if (read_number(text, mtu) && mtu >= least && mtu <= most) return mtu;
    return fail(EINVAL,
                "--mss-clamp " + text + ": give on, off or the longest packet, " +
                    std::to_string(least) + " to " + std::to_string(most) + " bytes",
                "mss-clamp");
}

result<fastpath::punt_rates> parse_punt_limit(const std::string& text) {
    const auto bad = [&](const std::string& what) {
        return fail(EINVAL, "--punt-limit " + text + ": " + what, "punt-limit");
    };
    fastpath::punt_rates rates = fastpath::default_punt_rates;
    std::istringstream entries(text);
    for (std::string entry; std::getline(entries, entry, ',');) {
        const auto equals = entry.find('=');
        const std::string name = entry.substr(0, equals);
        const auto* const known = std::find_if(std::begin(punt_classes), std::end(punt_classes),
                                               [&](const auto& c) { return c.first == name; });
        if (known == std::end(punt_classes))
            return bad("no class \"" + name + "\": there are ike, arp, icmp and other");
        const std::string rate = equals == std::string::npos ? "" : entry.substr(equals + 1);
        std::uint32_t& into = rates.of(known->second);
        const auto [stop, code] = std::from_chars(rate.data(), rate.data() + rate.size(), into);
        if (code != std::errc() || stop != rate.data() + rate.size() || into > highest_rate)
            return bad("\"" + entry + "\": write " + name + "=N, packets a second; 0 is no limit");
    }
    return rates;
}

result<std::variant<daemon_options, text_answer>> parse_daemon_options(int argc,
                                                                       const char* const* argv) {
    CLI::App app{"esplaned: the user-space IPsec ESP data plane", "esplaned"};
    stated given;
    std::string config;
    bool takeover = false;
    app.set_version_flag("--version", version_line("esplaned"));
    app.add_option("--config", config, "TOML file with the same names; the command line wins")
        ->option_text("FILE");
    app.add_option("--run-dir", given.run_dir, "sockets and state, for the owner alone")
        ->option_text("DIR [" + std::string(default_run_dir) + "]");
    app.add_option("--xfrm", given.xfrm, "answer XFRM netlink clients at DIR/xfrm.sock")
        ->option_text("serve|off [serve]");
    app.add_option("--xfrm-unknown", given.xfrm_unknown,
                   "whether attributes that mean nothing are refused or passed over")
        ->option_text("strict|kernel-like [strict]");
    app.add_option("--workers", given.workers, "packet threads, 1 to 64")->option_text("N [1]");
    app.add_option("--cpus", given.cpus, "the CPU to pin each worker to")->option_text("LIST");
    app.add_option("--reserve", given.reserve,
                   "SAs, each with a policy, that there is memory for from the start")
        ->option_text("N [0]");
    std::vector<std::string> ports;
    CLI::Option* port_option = app.add_option("--port", ports, "a port; give it once for each")
                                   ->option_text("NAME=KIND:DEVICE[,role=plain|secure|host]")
                                   ->expected(1)
                                   ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    app.add_option("--eal", given.eal, "arguments for DPDK's EAL, over esplaned's own")
        ->option_text("\"ARG...\"");
    app.add_option("--poll", given.poll, "whether workers sleep when there is nothing to do")
        ->option_text("adaptive|always [adaptive]");
    app.add_option("--punt-limit", given.punt_limit,
                   "packets a second to the machine's own stack; 0 = no limit")
        ->option_text("ike=N,arp=N,icmp=N,other=N");
    app.add_option("--mss-clamp", given.mss_clamp,
                   "lower the MSS of TCP through tunnels to what the path, or MTU bytes, take")
        ->option_text("on|off|MTU [off]");
    app.add_option("--gcm-kernel", given.gcm_kernel,
                   "AES-GCM by esplane's own kernel, where the CPU can")
        ->option_text("on|off [on]");
    app.add_option("--state", given.state, "where SAs and policies survive the daemon")
        ->option_text("off|auto|memory|FILE [auto]");
    app.add_option("--state-key", given.state_key, "the key that seals the state")
        ->option_text("FILE");
    app.add_flag("--takeover", takeover, "take over from the daemon that runs in --run-dir");
    std::string routing;
    app.add_option("--routing", routing, "how the machine's traffic is led into its tun port")
        ->option_text("NAME=VALUE[,...]");
    std::vector<std::string> filter;
    CLI::Option* filter_option =
        app.add_option("--filter", filter,
                       "a rule for what is in the tunnels; the first match wins")
            ->option_text("\"allow|deny [in|out|both] [proto P] [src CIDR] [dst CIDR] "
                          "[sport PORTS] [dport PORTS]\"")
            ->expected(1)
            ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        return text_answer{app.help()};
    } catch (const CLI::CallForVersion&) {
        return text_answer{version_line("esplaned") + "\n"};
    } catch (const CLI::ParseError& e) {
        return fail(EINVAL, std::string(e.what()) + ": see esplaned --help");
    }
    if (port_option->count() != 0) given.ports = ports;
    if (filter_option->count() != 0) given.filter = filter;
    if (!routing.empty()) given.routing = {routing};
    if (!config.empty()) {
        auto file = read_file(config);
        if (!file) return tl::unexpected(file.error());
        given = overlay(std::move(given), *file);
    }
    auto options = interpret(given);
    if (!options) return tl::unexpected(options.error());
    options->takeover = takeover;
    return std::move(*options);
}

} // namespace esplane::tools
