// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/sad.h"

#include <algorithm>

namespace esplane::ipsec {

namespace {

/// A number whose bits all hang on all bits of `n`: the finalizer of MurmurHash3.
constexpr std::uint64_t mixed(std::uint64_t n) noexcept {
    n = (n ^ n >> 33) * 0xff51afd7ed558ccdu;
    n = (n ^ n >> 33) * 0xc4ceb9fe1a85ec53u;
    return n ^ n >> 33;
}

constexpr std::uint32_t hash_of_spi(wire::be32 spi, std::uint8_t protocol) noexcept {
    return static_cast<std::uint32_t>(mixed(std::uint64_t{protocol} << 32 | spi.network()));
}

sa_id without_mark(sa_id id) noexcept {
    id.mark = {};
    return id;
}

} // namespace

std::uint32_t sad::id_hash::operator()(const sa_id& id) const noexcept {
    const std::uint8_t* const destination = id.destination.bytes.data();
    std::uint64_t h = std::uint64_t{id.spi.network()} << 16 | std::uint64_t{id.protocol} << 8 |
                      static_cast<std::uint8_t>(id.destination.fam);
    h = mixed(h ^ wire::load<std::uint64_t>(destination));
    h = mixed(h ^ wire::load<std::uint64_t>(destination + 8));
    if (id.mark.given()) h = mixed(h ^ (std::uint64_t{id.mark.value} << 32 | id.mark.mask));
    return static_cast<std::uint32_t>(h);
}

std::uint32_t sad::spi_hash::operator()(const entry& e) const noexcept {
    return hash_of_spi(e.id.spi, e.id.protocol);
}

acquire_key acquire_key_of(const sa& s) noexcept {
    return {s.id.destination, s.source, s.id.protocol, s.run_mode,
            s.reqid,          s.if_id,  s.id.mark,     s.pcpu};
}

sad::entry* sad::find_exact(const sa_id& id) {
    return by_id_.find(id_hash{}(id), [&](const entry& e) { return e.id == id; });
}

/// __xfrm_state_lookup(): newer ones come first.
sad::entry* sad::find(const sa_id& id) {
    const sa_id plain = without_mark(id);
    entry* best = find_exact(plain);
    if (marked_.empty()) return best;
    const std::uint32_t mark = id.mark.value & id.mark.mask;
    const auto [first, last] = marked_.equal_range(plain);
    for (auto at = first; at != last; ++at)
        if (at->second->id.mark.matches(mark) &&
            (best == nullptr || at->second->serial > best->serial))
            best = at->second;
    return best;
}

bool sad::knows_spi(wire::be32 spi, std::uint8_t protocol) const {
    return of_spi(spi, protocol) != nullptr;
}

sad::entry* sad::of_spi(wire::be32 spi, std::uint8_t protocol) const {
    return by_spi_.find(hash_of_spi(spi, protocol), [&](const entry& e) {
        return e.id.spi == spi && e.id.protocol == protocol;
    });
}

sad::entry* sad::find_acquiring(const acquire_key& k) {
    const auto at = acquiring_.find(k);
    return at == acquiring_.end() ? nullptr : at->second;
}

sad::entry* sad::find_acquiring(std::uint32_t seq) {
    const auto at = acquiring_by_seq_.find(seq);
    return at == acquiring_by_seq_.end() ? nullptr : at->second;
}

sad::entry& sad::put(const sa& s, packed_sa packed) {
    entry& e = arrivals_.put(std::make_unique<entry>());
    e.id = s.id;
    e.keep(s, std::move(packed));
    return e;
}

sad::entry& sad::insert(const sa& s, packed_sa packed) {
    entry& e = put(s, std::move(packed));
    name(e);
    return e;
}

sad::entry& sad::insert_acquiring(const sa& s) {
    entry& e = put(s, packed_sa(s));
    e.acquiring = true;
    acquiring_.emplace(acquire_key_of(s), &e);
    acquiring_by_seq_.emplace(s.seq, &e);
    if (e.id.spi != wire::be32()) name(e);
    return e;
}

void sad::give_spi(entry& e, wire::be32 spi) {
    e.id.spi = spi;
    name(e);
}

void sad::name(entry& e) {
    by_id_.insert(&e);
    join_spi(e);
    if (e.id.mark.given()) marked_.emplace(without_mark(e.id), &e);
}

void sad::forget_name(entry& e) {
    if (e.next_of_spi_ == nullptr) return; // it has no SPI
    by_id_.erase(&e);
    leave_spi(e);
    if (!e.id.mark.given()) return;
    const auto [first, last] = marked_.equal_range(without_mark(e.id));
    marked_.erase(std::find_if(first, last, [&](const auto& one) { return one.second == &e; }));
}

void sad::join_spi(entry& e) {
    entry* const other = of_spi(e.id.spi, e.id.protocol);
    if (other == nullptr) {
        e.next_of_spi_ = e.previous_of_spi_ = &e;
        by_spi_.insert(&e);
        return;
    }
    e.next_of_spi_ = other->next_of_spi_;
    e.previous_of_spi_ = other;
    other->next_of_spi_->previous_of_spi_ = &e;
    other->next_of_spi_ = &e;
}

void sad::leave_spi(entry& e) {
    entry* const next = e.next_of_spi_;
    next->previous_of_spi_ = e.previous_of_spi_;
    e.previous_of_spi_->next_of_spi_ = next;
    if (of_spi(e.id.spi, e.id.protocol) != &e) return;
    if (next == &e)
        by_spi_.erase(&e);
    else
        by_spi_.replace(&e, next);
}

void sad::erase(entry& e) {
    if (e.acquiring) {
        const sa what = e.describe();
        acquiring_.erase(acquire_key_of(what));
        acquiring_by_seq_.erase(what.seq);
    }
    forget_name(e);
    arrivals_.take(e.serial);
}

} // namespace esplane::ipsec
