// SPDX-License-Identifier: Apache-2.0
#include "fastpath/nonces.h"

#include <algorithm>
#include <memory_resource>

#include "lib/wire/endian.h"

namespace esplane::fastpath {

namespace {

std::pmr::memory_resource& chunks_of_spaces() {
    static auto& pool = *new std::pmr::synchronized_pool_resource; // spaces may outlive all else
    return pool;
}

} // namespace

void* nonce_space::operator new(std::size_t size) {
    return chunks_of_spaces().allocate(size, alignof(nonce_space));
}

void nonce_space::operator delete(void* p) noexcept {
    chunks_of_spaces().deallocate(p, sizeof(nonce_space), alignof(nonce_space));
}

nonce_registry::nonce_registry(control::random_source random, std::size_t limit)
    : random_(std::move(random))
    , limit_(limit) {}

nonce_registry::~nonce_registry() {
    while (oldest_ != nullptr)
        delist(*oldest_);
}

result<nonce_lease> nonce_registry::space_for(const secret& key) {
    if (!fingerprints_) {
        std::array<std::uint8_t, 32> prefix;
        random_(prefix);
        auto made = crypto::fingerprinter::make(prefix);
        wipe(prefix.data(), prefix.size());
        if (!made) return tl::unexpected(made.error());
        fingerprints_ = std::move(*made);
    }
    const fingerprint f = fingerprints_->of(key);
    const auto hash = wire::load<std::uint32_t>(f.data()); // of a hash, so it is one
    if (nonce_space* known =
            by_key_.find(hash, [&](const nonce_space& s) { return s.key_ == f; })) {
        const nonce_lease lease(known);
        delist(*known);
        enlist(*known);
        return lease;
    }
    make_room();
    if (!base_) {
        std::array<std::uint8_t, 8> start;
        random_(start);
        base_ = wire::load<std::uint64_t>(start.data());
    }
    const nonce_lease lease(new nonce_space(*base_, forgotten_));
    lease->key_ = f;
    lease->hash_ = hash;
    by_key_.insert(lease.get());
    enlist(*lease.get());
    return lease;
}

/// Looks at a few, so that keys in use, which may all be the oldest, cost no request its time.
void nonce_registry::make_room() noexcept {
    constexpr int few = 8;
    for (int i = 0; i < few && by_key_.size() >= limit_ && oldest_ != nullptr; ++i) {
        nonce_space& s = *oldest_;
        const nonce_lease meanwhile(&s);
        delist(s);
        if (s.holders_.load(std::memory_order_acquire) > 1) { // an SA still runs on it
            enlist(s);
            continue;
        }
        forgotten_ = std::max(forgotten_, s.used());
        by_key_.erase(&s);
    }
}

/// As the newest, and held.
void nonce_registry::enlist(nonce_space& s) noexcept {
    (void)s.holders_.fetch_add(1, std::memory_order_relaxed);
    s.newer_ = nullptr;
    s.older_ = newest_;
    (newest_ != nullptr ? newest_->newer_ : oldest_) = &s;
    newest_ = &s;
}

/// The opposite.
void nonce_registry::delist(nonce_space& s) noexcept {
    (s.older_ != nullptr ? s.older_->newer_ : oldest_) = s.newer_;
    (s.newer_ != nullptr ? s.newer_->older_ : newest_) = s.older_;
    if (s.holders_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete &s;
}

} // namespace esplane::fastpath
