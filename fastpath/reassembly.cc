// SPDX-License-Identifier: Apache-2.0
#include "fastpath/reassembly.h"

#include <algorithm>

#include "fastpath/fragment.h"
#include "fastpath/parse.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint32_t unit = 8; ///< of a fragment offset
constexpr std::uint8_t ecn_mask = 3;
constexpr std::uint64_t sweep_ns = 100'000'000;

std::uint64_t stir(std::uint64_t h, std::uint64_t word) noexcept {
    h = (h ^ word) * 0x9e3779b97f4a7c15;
    return h ^ h >> 29;
}

void write_whole_v4(packet& p, bool congested) noexcept {
    wire::ipv4_header& ip = p.ipv4();
    if (congested && (ip.tos & ecn_mask) != 0) ip.tos |= ecn_mask;
    ip.total_length.set(static_cast<std::uint16_t>(p.length));
    ip.fragment = {};
    ip.checksum = {};
    ip.checksum =
        wire::checksum_finish(wire::checksum_add(0, p.data, (ip.version_ihl & 0x0fu) * 4u));
}

/// `protocol` takes the place of the fragment header in the chain.
void write_whole_v6(packet& p, std::uint8_t protocol, bool congested) noexcept {
    wire::ipv6_header& ip = p.ipv6();
    const std::uint32_t word = ip.version_class_flow.host();
    if (congested && (word >> 20 & ecn_mask) != 0)
        ip.version_class_flow.set(word | std::uint32_t{ecn_mask} << 20);
    ip.payload_length.set(static_cast<std::uint16_t>(p.length - sizeof ip));
    std::uint8_t* next = &ip.next_header;
    for (std::uint32_t at = sizeof ip; *next != wire::proto_fragment;
         at += (p.data[at + 1] + 1u) * unit)
        next = p.data + at;
    *next = protocol;
}

} // namespace

/// parse() has checked that all headers are there.
auto reassembly::read(const packet& p) noexcept -> piece {
    piece c;
    const ipsec::flow ends = flow_of(p);
    c.of = {ends.source, ends.destination, 0};
    c.header = p.l4_offset;
    c.payload = p.data + p.l4_offset;
    c.length = p.length - p.l4_offset;
    if (p.family == family::ipv4) {
        const std::uint16_t field = p.ipv4().fragment.host();
        c.of.id = p.ipv4().id.host() | std::uint32_t{p.protocol} << 16;
        c.offset = (field & wire::ipv4_offset_mask) * unit;
        c.last = (field & wire::ipv4_mf) == 0;
    } else {
        c.header -= static_cast<std::uint32_t>(sizeof(ipv6_fragment_header));
        const auto f = wire::load<ipv6_fragment_header>(p.data + c.header);
        c.of.id = f.id.host();
        c.offset = f.offset.host() & ~(unit - 1);
        c.last = (f.offset.host() & 1) == 0;
    }
    return c;
}

auto reassembly::set_of(const ipsec::address& source) noexcept -> std::span<entry> {
    std::uint64_t h = stir(seed_[0], wire::load<std::uint64_t>(source.bytes.data()));
    h = stir(h ^ seed_[1], wire::load<std::uint64_t>(source.bytes.data() + 8));
    return std::span(entries_).subspan((h >> 32) % sets * ways, ways);
}

void reassembly::drop_all(stage& s, entry& e, drop_reason why) noexcept {
    s.counters.held.subtract(e.count);
    s.counters.dropped[static_cast<std::size_t>(why)].add(e.count);
    e.count = 0;
    if (e.buffer.owner == nullptr) return;
    packet* const one[] = {&e.buffer};
    e.buffer.owner->release(one);
    e.buffer.owner = nullptr;
}

/// It stays, without a buffer, so that the rest is known for what it is.
void reassembly::spoil(stage& s, entry& e, drop_reason why) noexcept {
    drop_all(s, e, why);
    e.spoiled = true;
}

/// The entry for a packet's fragments, new where there is none; nullptr: no buffer is left.
auto reassembly::find(stage& s, const key& k) noexcept -> entry* {
    const std::span<entry> set = set_of(k.source);
    entry* place = nullptr;
    for (entry& e : set) {
        if (e.used && e.of == k && s.now.monotonic_ns - e.since_ns < patience_ns) return &e;
        const std::uint64_t age = e.used ? e.since_ns : 0;
        if (place == nullptr || age < (place->used ? place->since_ns : 0)) place = &e;
    }
    if (place->used) {
        const bool expired = s.now.monotonic_ns - place->since_ns >= patience_ns;
        drop_all(s, *place, expired ? drop_reason::fragment_timeout : drop_reason::fragment_full);
        --used_;
    }
    *place = entry{};
    if (!s.buffers.allocate(place->buffer, largest_header + largest_payload)) return nullptr;
    place->used = true;
    place->of = k;
    place->since_ns = s.now.monotonic_ns;
    ++used_;
    return place;
}

/// Whether a piece goes with those that are there.
drop_reason reassembly::check(const entry& e, const piece& c) noexcept {
    if (c.end() > largest_payload || (c.offset == 0 && c.header > largest_header) ||
        e.known == most_pieces)
        return drop_reason::fragment_too_long;
    if (c.length == 0 || (!c.last && c.length % unit != 0)) return drop_reason::fragment_overlap;
    const bool beyond = e.total != 0 && (c.end() > e.total || (c.last && c.end() != e.total));
    const auto known = std::span(e.ranges).first(e.known);
    const auto collides = [&](const range& r) {
        return (c.offset < r.to && r.from < c.end()) || (c.last && r.to > c.end());
    };
    return beyond || std::ranges::any_of(known, collides) ? drop_reason::fragment_overlap
                                                          : drop_reason::none;
}

void reassembly::add(stage& s, entry& e, const packet& p, const piece& c) noexcept {
    std::uint8_t* const base = e.buffer.data + largest_header;
    std::memcpy(base + c.offset, c.payload, c.length);
    if (c.offset == 0) {
        std::memcpy(base - c.header, p.data, c.header);
        e.header = c.header;
    }
    if (c.last) e.total = c.end();
    e.ranges[e.known++] = {c.offset, c.end()};
    e.got += c.length;
    e.congested |= (p.tos & ecn_mask) == ecn_mask;
    ++e.count;
    s.counters.held.add(1);
}

/// The buffer as a packet that came where its last fragment did; nullptr: no descriptor is left.
packet* reassembly::finish(stage& s, entry& e, const packet& last) noexcept {
    if (s.pieces == s.scratch.pieces.size()) return nullptr;
    packet& whole = s.scratch.pieces[s.pieces++] = e.buffer;
    whole.extend(static_cast<int>(largest_header + e.total));
    whole.pull(static_cast<int>(largest_header - e.header));
    whole.port = last.port;
    whole.interface = last.interface;
    if (last.family == family::ipv4)
        write_whole_v4(whole, e.congested);
    else
        write_whole_v6(whole, last.protocol, e.congested);
    s.counters.held.subtract(e.count);
    s.counters.absorbed.add(e.count - 1);
    s.counters.reassembled.add(1);
    return &whole;
}

packet* reassembly::take(stage& s, packet& p) noexcept {
    const piece c = read(p);
    entry* const e = find(s, c.of);
    if (e == nullptr) {
        s.drop(p, drop_reason::fragment_full);
        return nullptr;
    }
    const auto is_copy = [&](const range& r) { return r.from == c.offset && r.to == c.end(); };
    const bool copy = std::ranges::any_of(std::span(e->ranges).first(e->known), is_copy);
    if (e->spoiled || copy) {
        s.drop(p, drop_reason::fragment_overlap);
        return nullptr;
    }
    if (const drop_reason why = check(*e, c); why != drop_reason::none) {
        s.drop(p, why);
        spoil(s, *e, why);
        return nullptr;
    }
    add(s, *e, p, c);
    const bool complete = e->total == e->got && e->total != 0;
    packet* const whole = complete ? finish(s, *e, p) : nullptr;
    if (complete && whole == nullptr) drop_all(s, *e, drop_reason::fragment_full);
    if (complete) {
        e->used = false;
        --used_;
    }
    packet* const one[] = {&p};
    p.owner->release(one);
    return whole;
}

void reassembly::tend(stage& s) noexcept {
    if (used_ == 0 || s.now.monotonic_ns - swept_ns_ < sweep_ns) return;
    swept_ns_ = s.now.monotonic_ns;
    for (entry& e : entries_) {
        if (!e.used || s.now.monotonic_ns - e.since_ns < patience_ns) continue;
        drop_all(s, e, drop_reason::fragment_timeout);
        e.used = false;
        --used_;
    }
}

void reassembly::announce(const ipsec::address& source, const ipsec::address& destination,
                          std::uint32_t id) noexcept {
    announced_[next_announced_] = {source, destination, id};
    next_announced_ = (next_announced_ + 1) % announced_.size();
}

bool reassembly::expects(const ipsec::address& source, const ipsec::address& destination,
                         std::uint32_t id) const noexcept {
    return std::ranges::find(announced_, key{source, destination, id}) != announced_.end();
}

} // namespace esplane::fastpath
