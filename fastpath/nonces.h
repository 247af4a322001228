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
#include <memory>
#include <optional>
#include <utility>

#include "lib/base/growing_table.h"
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

    /// In chunks of their own: they outlive SAs, and would come to lie in the holes that those
    /// leave on the heap, where the next SAs would not fit again.
    [[nodiscard]] static void* operator new(std::size_t size);
    static void operator delete(void* p) noexcept;

  private:
    friend class nonce_registry;
    friend class nonce_lease;

    const std::uint64_t base_;
    std::atomic<std::uint64_t> used_;
    std::atomic<std::uint32_t> holders_{0};
    std::uint32_t hash_ = 0;
    crypto::fingerprinter::value key_{}; ///< its fingerprint
    nonce_space* older_ = nullptr;
    nonce_space* newer_ = nullptr;
};

/// Keeps a space.  Threads: as a shared_ptr.
class nonce_lease {
  public:
    nonce_lease() = default;
    explicit nonce_lease(nonce_space* of) noexcept
        : of_(of) {
        if (of_ != nullptr) of_->holders_.fetch_add(1, std::memory_order_relaxed);
    }
    nonce_lease(const nonce_lease& other) noexcept
        : nonce_lease(other.of_) {}
    nonce_lease(nonce_lease&& other) noexcept
        : of_(std::exchange(other.of_, nullptr)) {}
    nonce_lease& operator=(nonce_lease other) noexcept {
        std::swap(of_, other.of_);
        return *this;
    }
    ~nonce_lease() {
        if (of_ != nullptr && of_->holders_.fetch_sub(1, std::memory_order_acq_rel) == 1)
            delete of_;
    }

    [[nodiscard]] nonce_space* get() const noexcept { return of_; }
    [[nodiscard]] nonce_space* operator->() const noexcept { return of_; }
    friend bool operator==(const nonce_lease&, const nonce_lease&) = default;

  private:
    nonce_space* of_ = nullptr;
};

/// Every key that was ever used for a counter mode, by its fingerprint: the key itself is not kept.
/// Some 90 bytes each.
class nonce_registry {
  public:
    static constexpr std::size_t default_limit = 1'000'000;

    /// limit   keys that are kept, unless more are in use
    explicit nonce_registry(control::random_source random, std::size_t limit = default_limit);
    ~nonce_registry();
    nonce_registry(const nonce_registry&) = delete;
    nonce_registry& operator=(const nonce_registry&) = delete;

    /// Where the range begins; at random where this is not called before the first key comes.
    void start_at(std::uint64_t base) noexcept { base_ = base; }
    /// The space of a key; a new one starts above every mark that was forgotten.  At the limit the
    /// oldest unused is forgotten, where one of the oldest few is.  Errors: as
    /// crypto::fingerprinter::make().
    [[nodiscard]] result<nonce_lease> space_for(const secret& key);
    [[nodiscard]] std::size_t size() const noexcept { return by_key_.size(); }

  private:
    using fingerprint = crypto::fingerprinter::value;
    struct hash_of {
        [[nodiscard]] std::uint32_t operator()(const nonce_space& s) const noexcept {
            return s.hash_;
        }
    };

    void enlist(nonce_space& s) noexcept;
    void delist(nonce_space& s) noexcept;
    void make_room() noexcept;

    control::random_source random_;
    std::size_t limit_;
    std::optional<std::uint64_t> base_;
    std::uint64_t forgotten_ = 0;                         ///< the highest mark of those that were
    std::unique_ptr<crypto::fingerprinter> fingerprints_; ///< made with the first key
    growing_table<nonce_space, hash_of> by_key_;          ///< each is held by this, too
    nonce_space* oldest_ = nullptr;
    nonce_space* newest_ = nullptr;
};

} // namespace esplane::fastpath
