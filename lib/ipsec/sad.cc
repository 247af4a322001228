// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/sad.h"

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <type_traits>

namespace esplane::ipsec {

std::size_t sad::id_hash::operator()(const sa_id& id) const noexcept {
    constexpr std::size_t packed = offsetof(sa_id, protocol) + 1;
    static_assert(packed == sizeof(address) + sizeof(wire::be32) + 1, "padding must not be hashed");
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(&id), packed}) ^
           (id.mark.value * 0x9e3779b97f4a7c15u) ^ (id.mark.mask * 0xc2b2ae3d27d4eb4fu);
}

namespace {

constexpr std::uint64_t spi_key(wire::be32 spi, std::uint8_t protocol) noexcept {
    return std::uint64_t{protocol} << 32 | spi.host();
}

sa_id without_mark(sa_id id) noexcept {
    id.mark = {};
    return id;
}

} // namespace

acquire_key acquire_key_of(const sa& s) noexcept {
    return {s.id.destination, s.source, s.id.protocol, s.run_mode,
            s.reqid,          s.if_id,  s.id.mark,     s.pcpu};
}

sad::entry* sad::find_exact(const sa_id& id) {
    const auto at = by_id_.find(id);
    return at == by_id_.end() ? nullptr : at->second;
}

/// __xfrm_state_lookup(): newer ones come first.
sad::entry* sad::find(const sa_id& id) {
    const sa_id plain = without_mark(id);
    entry* best = find_exact(plain);
    if (marked_.empty()) return best;
    const std::uint32_t mark = id.mark.value & id.mark.mask;
    const auto [first, last] = marked_.equal_range(plain);
    for (auto at = first; at != last; ++at)
        if (at->second->what.id.mark.matches(mark) &&
            (best == nullptr || at->second->serial > best->serial))
            best = at->second;
    return best;
}

bool sad::knows_spi(wire::be32 spi, std::uint8_t protocol) const {
    return spis_.contains(spi_key(spi, protocol));
}

sad::entry* sad::find_serial(std::uint64_t serial) {
    const auto at = by_serial_.find(serial);
    return at == by_serial_.end() ? nullptr : &at->second;
}

sad::entry* sad::newest_from(std::uint64_t serial) {
    const auto after = by_serial_.upper_bound(serial);
    return after == by_serial_.begin() ? nullptr : &std::prev(after)->second;
}

sad::entry* sad::find_acquiring(const acquire_key& k) {
    const auto at = acquiring_.find(k);
    return at == acquiring_.end() ? nullptr : at->second;
}

sad::entry* sad::find_acquiring(std::uint32_t seq) {
    const auto at = acquiring_by_seq_.find(seq);
    return at == acquiring_by_seq_.end() ? nullptr : at->second;
}

sad::entry& sad::put(sa s) {
    entry& e = by_serial_.try_emplace(by_serial_.end(), ++last_serial_)->second;
    e.what = std::move(s);
    e.serial = last_serial_;
    return e;
}

sad::entry& sad::insert(sa s) {
    entry& e = put(std::move(s));
    name(e);
    return e;
}

sad::entry& sad::insert_acquiring(sa s) {
    entry& e = put(std::move(s));
    e.acquiring = true;
    acquiring_.emplace(acquire_key_of(e.what), &e);
    acquiring_by_seq_.emplace(e.what.seq, &e);
    if (e.what.id.spi != wire::be32()) name(e);
    return e;
}

void sad::give_spi(entry& e, wire::be32 spi) {
    e.what.id.spi = spi;
    name(e);
}

void sad::name(entry& e) {
    by_id_.emplace(e.what.id, &e);
    ++spis_[spi_key(e.what.id.spi, e.what.id.protocol)];
    if (e.what.id.mark.given()) marked_.emplace(without_mark(e.what.id), &e);
}

void sad::forget_name(const entry& e, const sa_id& id) {
    if (const auto named = by_id_.find(id); named != by_id_.end() && named->second == &e) {
        by_id_.erase(named);
        const auto spi = spis_.find(spi_key(id.spi, id.protocol));
        if (--spi->second == 0) spis_.erase(spi);
    }
    const auto [first, last] = marked_.equal_range(without_mark(id));
    const auto at = std::find_if(first, last, [&](const auto& one) { return one.second == &e; });
    if (at != last) marked_.erase(at);
}

sa sad::take(entry& e) {
    sa what = std::move(e.what);
    if (e.acquiring) {
        acquiring_.erase(acquire_key_of(what));
        acquiring_by_seq_.erase(what.seq);
    }
    forget_name(e, what.id);
    by_serial_.erase(e.serial);
    return what;
}

} // namespace esplane::ipsec
