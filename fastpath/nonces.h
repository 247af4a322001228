// SPDX-License-Identifier: Apache-2.0
//
// Nonces for counter modes: no two packets under one key share one, whatever becomes of the SAs.
//
// Clients delete an SA and add it again under the same key, with an older sequence number (MOBIKE).
// So the nonce is no sequence number: each key has a space of 64-bit numbers that only grows and
// outlives its SAs.  All spaces lie in one range of 2^44 numbers, which begins where no earlier
// process that this one knows of could reach: a single number that is kept over restarts stands for
// the marks of all keys.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>

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
    static constexpr std::uint64_t range = std::uint64_t{1} << 44;

    /// base   of the range.  used   numbers of it that this space leaves out
    nonce_space(std::uint64_t base, std::uint64_t used) noexcept
        : base_(base)
        , used_(used) {}
    /// The first of `block` numbers that nobody else gets; nullopt where the range is used up.
    [[nodiscard]] std::optional<std::uint64_t> take() noexcept {
        if (used() > range - block) return std::nullopt;
        const std::uint64_t at = used_.fetch_add(block, std::memory_order_relaxed);
        if (at > range - block) return std::nullopt; // others took the last
        return base_ + at;
    }
    [[nodiscard]] std::uint64_t used() const noexcept {
        return used_.load(std::memory_order_relaxed);
    }

  private:
    const std::uint64_t base_;
    std::atomic<std::uint64_t> used_;
};

/// Every key that was ever used for a counter mode, by its fingerprint: the key itself is not kept.
/// Some 160 bytes each.
class nonce_registry {
  public:
    static constexpr std::size_t default_limit = 1'000'000;

    explicit nonce_registry(control::random_source random, std::size_t limit = default_limit);

    /// Where the range begins; at random where this is not called before the first key comes.
    void start_at(std::uint64_t base) noexcept { base_ = base; }
    /// The space of a key; a new one starts above every mark that was forgotten.  The oldest unused
    /// is forgotten at the limit.  Errors: as crypto::fingerprinter::make().
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
    std::optional<std::uint64_t> base_;
    std::uint64_t forgotten_ = 0;                         ///< the highest mark of those that were
    std::unique_ptr<crypto::fingerprinter> fingerprints_; ///< made with the first key
    pooled<node> pool_;                                   ///< of all that outlives an SA
    ages oldest_first_{pool_};
    std::map<fingerprint, entry, std::less<>, pooled<node>> by_key_{pool_};
};

} // namespace esplane::fastpath
