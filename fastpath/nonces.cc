// SPDX-License-Identifier: Apache-2.0
#include "fastpath/nonces.h"

#include <algorithm>

#include "lib/wire/endian.h"

namespace esplane::fastpath {

nonce_registry::nonce_registry(control::random_source random, std::size_t limit)
    : random_(std::move(random))
    , limit_(limit) {}

result<std::shared_ptr<nonce_space>> nonce_registry::space_for(const secret& key) {
    if (!fingerprints_) {
        std::array<std::uint8_t, 32> prefix;
        random_(prefix);
        auto made = crypto::fingerprinter::make(prefix);
        wipe(prefix.data(), prefix.size());
        if (!made) return tl::unexpected(made.error());
        fingerprints_ = std::move(*made);
    }
    const fingerprint f = fingerprints_->of(key);
    if (const auto known = by_key_.find(f); known != by_key_.end()) {
        oldest_first_.splice(oldest_first_.end(), oldest_first_, known->second.age);
        return known->second.space;
    }
    for (auto old = oldest_first_.begin();
         by_key_.size() >= limit_ && old != oldest_first_.end();) {
        const auto candidate = by_key_.find(*old);
        if (candidate->second.space.use_count() > 1) { // an SA still runs on it
            ++old;
            continue;
        }
        forgotten_ = std::max(forgotten_, candidate->second.space->used());
        by_key_.erase(candidate);
        old = oldest_first_.erase(old);
    }
    if (!base_) {
        std::array<std::uint8_t, 8> start;
        random_(start);
        base_ = wire::load<std::uint64_t>(start.data());
    }
    auto space = std::allocate_shared<nonce_space>(pooled<nonce_space>(pool_), *base_, forgotten_);
    oldest_first_.push_back(f);
    by_key_.emplace(f, entry{space, std::prev(oldest_first_.end())});
    return space;
}

} // namespace esplane::fastpath
