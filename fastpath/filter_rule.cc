// SPDX-License-Identifier: Apache-2.0
#include "fastpath/filter_rule.h"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <vector>

#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

struct named_protocol {
    std::string_view name;
    std::uint8_t number;
    bool ports;
};
constexpr named_protocol protocols[] = {
    {"icmp", wire::proto_icmp, false}, {"tcp", wire::proto_tcp, true},
    {"udp", wire::proto_udp, true},    {"dccp", wire::proto_dccp, true},
    {"gre", wire::proto_gre, false},   {"esp", wire::proto_esp, false},
    {"ah", wire::proto_ah, false},     {"icmpv6", wire::proto_icmpv6, false},
    {"sctp", wire::proto_sctp, true},  {"udplite", wire::proto_udplite, true},
    {"ipip", wire::proto_ipip, false}, {"ipv6", wire::proto_ipv6, false},
};

/// All of `text` as a decimal number up to `most`.
template <typename T>
bool read_number(std::string_view text, T& into, T most) noexcept {
    const auto [stop, code] = std::from_chars(text.data(), text.data() + text.size(), into);
    return code == std::errc() && stop == text.data() + text.size() && !text.empty() &&
           into <= most;
}

std::vector<std::string> words_of(const std::string& text) {
    std::istringstream stream(text);
    std::vector<std::string> words;
    for (std::string word; stream >> word;)
        words.push_back(std::move(word));
    return words;
}

/// Takes a rule's words in, one by one; what it says about a word names both.
class rule_reader {
  public:
    explicit rule_reader(const std::string& text)
        : words_(words_of(text)) {
        rule_.text = text;
    }

    result<filter_rule> read() {
        if (auto done = read_action(); !done) return tl::unexpected(done.error());
        read_direction();
        while (at_ < words_.size())
            if (auto done = read_field(); !done) return tl::unexpected(done.error());
        if (auto done = check(); !done) return tl::unexpected(done.error());
        return std::move(rule_);
    }

  private:
    [[nodiscard]] tl::unexpected<error> bad(const std::string& what) const {
        return fail(EINVAL, "--filter \"" + rule_.text + "\": " + what, "filter");
    }

    result<void> read_action() {
        const std::string action = at_ < words_.size() ? words_[at_++] : "";
        if (action != "allow" && action != "deny")
            return bad("\"" + action + "\": a rule begins with allow or deny");
        rule_.deny = action == "deny";
        return {};
    }

    void read_direction() {
        if (at_ == words_.size()) return;
        const std::string& word = words_[at_];
        if (word != "in" && word != "out" && word != "both") return;
        rule_.in = word != "out";
        rule_.out = word != "in";
        ++at_;
    }

    /// A name and its value; each may be there once.
    result<void> read_field() {
        using reader = result<void> (rule_reader::*)(const std::string& value);
        static constexpr std::pair<std::string_view, reader> fields[] = {
            {"proto", &rule_reader::read_protocol},
            {"src", &rule_reader::read_source},
            {"dst", &rule_reader::read_destination},
            {"sport", &rule_reader::read_source_ports},
            {"dport", &rule_reader::read_destination_ports},
        };
        const std::string name = words_[at_++];
        const auto* const field = std::find_if(std::begin(fields), std::end(fields),
                                               [&](const auto& one) { return one.first == name; });
        if (field == std::end(fields))
            return bad("unknown word \"" + name + "\": there are proto, src, dst, sport and dport");
        if (std::find(seen_.begin(), seen_.end(), name) != seen_.end())
            return bad("\"" + name + "\" is there twice: say it once");
        seen_.push_back(name);
        if (at_ == words_.size()) return bad("\"" + name + "\" has no value: add one, or any");
        const std::string& value = words_[at_++];
        if (value == "any") return {};
        return (this->*field->second)(value);
    }

    result<void> read_protocol(const std::string& value) {
        const auto* const named =
            std::find_if(std::begin(protocols), std::end(protocols),
                         [&](const named_protocol& p) { return p.name == value; });
        unsigned number = 0;
        if (named != std::end(protocols))
            number = named->number;
        else if (!read_number(value, number, 255u))
            return bad("unknown protocol \"" + value + "\": use a number, 0 to 255, or " + names());
        rule_.any_protocol = false;
        rule_.protocol = static_cast<std::uint8_t>(number);
        return {};
    }

    static std::string names() {
        std::string all;
        for (const named_protocol& p : protocols)
            all += (all.empty() ? "" : ", ") + std::string(p.name);
        return all;
    }

    result<void> read_source(const std::string& value) { return read_prefix(value, rule_.source); }
    result<void> read_destination(const std::string& value) {
        return read_prefix(value, rule_.destination);
    }
    result<void> read_source_ports(const std::string& value) {
        return read_ports(value, rule_.source_ports);
    }
    result<void> read_destination_ports(const std::string& value) {
        return read_ports(value, rule_.destination_ports);
    }

    result<void> read_prefix(const std::string& value, address_prefix& into) {
        const auto slash = value.find('/');
        const auto address = ipsec::address::parse(value.substr(0, slash));
        if (!address)
            return bad("\"" + value + "\" is no address: write 10.0.0.0/8, fd00::/16 or any");
        unsigned length = ipsec::address_bits(address->fam);
        if (slash != std::string::npos && !read_number(value.substr(slash + 1), length, length))
            return bad("\"" + value + "\": the prefix length must be 0 to " +
                       std::to_string(ipsec::address_bits(address->fam)));
        if (ipsec::masked(*address, length) != *address)
            return bad("\"" + value + "\" has bits beyond its prefix: write " +
                       ipsec::masked(*address, length).to_string() + "/" + std::to_string(length));
        into = {*address, static_cast<std::uint8_t>(length)};
        return {};
    }

    result<void> read_ports(const std::string& value, port_range& into) {
        const auto dash = value.find('-');
        const std::string first = value.substr(0, dash);
        const std::string last = dash == std::string::npos ? first : value.substr(dash + 1);
        constexpr std::uint16_t most = 0xffff;
        if (!read_number(first, into.first, most) || !read_number(last, into.last, most))
            return bad("\"" + value + "\" is no port: write 25, 1000-2000 or any");
        if (into.last < into.first)
            return bad("\"" + value + "\": the range ends before it begins");
        return {};
    }

    /// What the words say together.
    [[nodiscard]] result<void> check() const {
        const auto a = rule_.source.address.fam, b = rule_.destination.address.fam;
        if (a != b && a != ipsec::family::unspecified && b != ipsec::family::unspecified)
            return bad("src and dst are of different families: no packet is both");
        const bool ports = !rule_.source_ports.all() || !rule_.destination_ports.all();
        if (ports && !rule_.any_protocol && !has_ports(rule_.protocol))
            return bad("protocol " + std::to_string(rule_.protocol) +
                       " has no ports: leave out sport and dport");
        return {};
    }

    std::vector<std::string> words_;
    std::size_t at_ = 0;
    std::vector<std::string> seen_;
    filter_rule rule_;
};

} // namespace

bool has_ports(std::uint8_t protocol) noexcept {
    return std::any_of(std::begin(protocols), std::end(protocols),
                       [&](const named_protocol& p) { return p.number == protocol && p.ports; });
}

result<filter_rule> parse_filter_rule(const std::string& text) {
    return rule_reader(text).read();
}

} // namespace esplane::fastpath
