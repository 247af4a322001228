// SPDX-License-Identifier: Apache-2.0
#include "fastpath/filter.h"

#include <array>

#include "fastpath/lane.h"
#include "fastpath/stage.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

static_assert(max_burst <= 64, "one bit a packet");

/// Both addresses of a packet or a rule as words that can be masked; IPv4 uses the first of each.
struct address_words {
    std::array<std::uint64_t, 2> source{};
    std::array<std::uint64_t, 2> destination{};
};

std::array<std::uint64_t, 2> words_of_v6(const std::uint8_t* bytes) noexcept {
    return {wire::load<std::uint64_t>(bytes), wire::load<std::uint64_t>(bytes + 8)};
}

std::array<std::uint64_t, 2> words_of(const ipsec::address& a) noexcept {
    return words_of_v6(a.bytes.data()); // bytes that an IPv4 address does not use are 0
}

std::array<std::uint64_t, 2> mask_of(const address_prefix& p) noexcept {
    ipsec::address ones;
    ones.fam = p.address.fam;
    ones.bytes.fill(0xff);
    return words_of(ipsec::masked(ones, p.length));
}

address_words words_of(const packet& p) noexcept {
    if (p.family == family::ipv4)
        return {{p.ipv4().source.network(), 0}, {p.ipv4().destination.network(), 0}};
    return {words_of_v6(p.ipv6().source.data()), words_of_v6(p.ipv6().destination.data())};
}

bool equal_under(const std::array<std::uint64_t, 2>& a, const std::array<std::uint64_t, 2>& b,
                 const std::array<std::uint64_t, 2>& mask) noexcept {
    return (((a[0] ^ b[0]) & mask[0]) | ((a[1] ^ b[1]) & mask[1])) == 0;
}

} // namespace

/// A rule in the form that a packet is held against.
struct rule_filter::matcher {
    explicit matcher(const filter_rule& r)
        : deny(r.deny)
        , directions{r.in, r.out}
        , fam(r.source.address.fam != family::unspecified ? r.source.address.fam
                                                          : r.destination.address.fam)
        , any_protocol(r.any_protocol)
        , protocol(r.protocol)
        , any_ports(r.source_ports.all() && r.destination_ports.all())
        , source_ports(r.source_ports)
        , destination_ports(r.destination_ports)
        , value{words_of(r.source.address), words_of(r.destination.address)}
        , mask{mask_of(r.source), mask_of(r.destination)} {}

    [[nodiscard]] bool matches(filter_direction d, const packet& p,
                               const address_words& addresses) const noexcept {
        return directions[static_cast<std::size_t>(d)] &&
               (fam == family::unspecified || fam == p.family) &&
               (any_protocol || protocol == p.protocol) &&
               equal_under(addresses.source, value.source, mask.source) &&
               equal_under(addresses.destination, value.destination, mask.destination) &&
               (any_ports || ports_match(p));
    }

    bool deny;

  private:
    /// A fragment shows none: it may be of what is denied, and none says that it is not.
    [[nodiscard]] bool ports_match(const packet& p) const noexcept {
        if ((p.flags & packet_flag::fragment) != 0) return deny && has_ports(p.protocol);
        return has_ports(p.protocol) && source_ports.contains(p.source_port.host()) &&
               destination_ports.contains(p.destination_port.host());
    }

    bool directions[2]; ///< by filter_direction
    family fam;
    bool any_protocol;
    std::uint8_t protocol;
    bool any_ports;
    port_range source_ports;
    port_range destination_ports;
    address_words value;
    address_words mask;
};

/// Written by one worker: on lines of its own.
struct rule_filter::lane_counters {
    struct alignas(64) rule {
        counter packets;
        counter bytes;
    };
    explicit lane_counters(std::size_t rules)
        : of(std::make_unique<rule[]>(rules)) {}
    std::unique_ptr<rule[]> of;
};

rule_filter::rule_filter(std::vector<filter_rule> rules, unsigned lanes)
    : rules_(std::move(rules)) {
    for (const filter_rule& r : rules_)
        matchers_.emplace_back(r);
    for (unsigned i = 0; i < lanes; ++i)
        lanes_.emplace_back(rules_.size());
}

rule_filter::~rule_filter() = default;

std::uint64_t rule_filter::deny(filter_direction d, unsigned lane,
                                std::span<packet* const> packets) noexcept {
    std::uint64_t denied = 0;
    for (std::size_t i = 0; i < packets.size(); ++i) {
        const packet& p = *packets[i];
        const address_words addresses = words_of(p);
        std::size_t rule = 0;
        while (rule < matchers_.size() && !matchers_[rule].matches(d, p, addresses))
            ++rule;
        if (rule == matchers_.size()) continue;
        lanes_[lane].of[rule].packets.add(1);
        lanes_[lane].of[rule].bytes.add(p.length);
        denied |= std::uint64_t{matchers_[rule].deny} << i;
    }
    return denied;
}

std::vector<rule_filter::hits> rule_filter::count() const {
    std::vector<hits> total(rules_.size());
    for (const lane_counters& lane : lanes_)
        for (std::size_t i = 0; i < total.size(); ++i) {
            total[i].packets += lane.of[i].packets.get();
            total[i].bytes += lane.of[i].bytes.get();
        }
    return total;
}

void filter_decrypted(stage& s, packet_list& packets, unsigned first) noexcept {
    packet_filter* const filter = s.shared.filter();
    if (filter == nullptr || first == packets.size()) return;
    const std::uint64_t denied =
        filter->deny(filter_direction::in, this_lane(), packets.span().subspan(first));
    if (denied == 0) return;
    unsigned i = 0;
    packets.keep_if(first, [&](packet& p) {
        const bool keep = ((denied >> i++) & 1) == 0;
        if (!keep) s.drop(p, drop_reason::filter_denied);
        return keep;
    });
}

std::size_t filter_protected(stage& s, std::span<protect_item> items) noexcept {
    packet_filter* const filter = s.shared.filter();
    if (filter == nullptr || items.empty()) return items.size();
    std::array<packet*, max_burst> packets;
    for (std::size_t i = 0; i < items.size(); ++i)
        packets[i] = items[i].p;
    const std::uint64_t denied =
        filter->deny(filter_direction::out, this_lane(), {packets.data(), items.size()});
    if (denied == 0) return items.size();
    std::size_t kept = 0;
    for (std::size_t i = 0; i < items.size(); ++i) {
        if (((denied >> i) & 1) != 0)
            s.drop(*items[i].p, drop_reason::filter_denied);
        else
            items[kept++] = items[i];
    }
    return kept;
}

} // namespace esplane::fastpath
