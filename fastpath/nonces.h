// SPDX-License-Identifier: Apache-2.0
//
// Nonces for counter modes: no two packets under one key share one, whatever becomes of the SAs.
//
// Clients delete an SA and add it again under the same key, with an older sequence number (MOBIKE).
// So the nonce is no sequence number: each key has a space of 64-bit numbers that starts at random
// and only grows, and outlives its SAs.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>

#include "fastpath/pooled.h"
#include "lib/base/secret.h"
#include "lib/control/layer.h"
#include "lib/crypto/fingerprint.h"

namespace esplane::fastpath {

/// Nonces of one key, for all SAs that ever had it.  SAs take them in blocks, so that no two share
/// one, whoever is deleted and added again meanwhile.
class nonce_space {
  public:
    static constexpr std::uint64_t block = 1u << 20;

    explicit nonce_space(std::uint64_t start) noexcept
        : next_(start) {}
    /// The first of `block` numbers that nobody else gets.
    [[nodiscard]] std::uint64_t take() noexcept {
        return next_.fetch_add(block, std::memory_order_relaxed);
    }

  private:
    std::atomic<std::uint64_t> next_;
};

/// Every key that was ever used for a counter mode, by its fingerprint: the key itself is not kept.
/// Some 160 bytes each.
class nonce_registry {
  public:
    static constexpr std::size_t default_limit = 1'000'000;

    explicit nonce_registry(control::random_source random, std::size_t limit = default_limit);

    /// The space of a key; a new one starts at random.  The oldest unused is forgotten at the
    /// limit. Errors: as crypto::fingerprinter::make().
    [[nodiscard]] result<std::shared_ptr<nonce_space>> space_for(const secret& key);
    [[nodiscard]] std::size_t size() const noexcept { return by_key_.size(); }

  private:
    using fingerprint = crypto::fingerprinter::value;
    using ages = std::list<fingerprint, pooled<fingerprint>>;
    struct entry {
        std::shared_ptr<nonce_space> space;
        ages::iterator age;
    };
    using node = std::pair<const fingerprint, entry>;
    control::random_source random_;
    std::size_t limit_;
    std::unique_ptr<crypto::fingerprinter> fingerprints_; ///< made with the first key
    pooled<node> pool_;                                   ///< of all that outlives an SA
    ages oldest_first_{pool_};
    std::map<fingerprint, entry, std::less<>, pooled<node>> by_key_{pool_};
};

} // namespace esplane::fastpath
