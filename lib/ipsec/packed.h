// SPDX-License-Identifier: Apache-2.0
//
// A packed description: what differs from an empty one, and nothing else.  A million of them are
// kept so; packing.h writes and reads them.
//
//   [ holders ][ length ][ which fields follow: 64 bits ][ field ][ field ] ...
//
// It never changes once it is written, so those that keep the same description share it.  It may
// have keys among its fields: the last that holds it wipes it.  It never leaves the process, so it
// has no version.  Threads: as a shared_ptr.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "lib/base/secret.h"

namespace esplane::ipsec {

class packed {
  public:
    packed() = default;
    /// Room for fields that take `length` bytes; who makes it writes them before it is shared.
    packed(std::uint64_t fields, std::size_t length)
        : at_(new (::operator new(sizeof(head) + length))
                  head{1, static_cast<std::uint32_t>(length), fields}) {}
    packed(const packed& other) noexcept
        : at_(other.at_) {
        if (at_ != nullptr) at_->holders.fetch_add(1, std::memory_order_relaxed);
    }
    packed(packed&& other) noexcept
        : at_(std::exchange(other.at_, nullptr)) {}
    packed& operator=(packed other) noexcept {
        std::swap(at_, other.at_);
        return *this;
    }
    ~packed() {
        if (at_ == nullptr || at_->holders.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
        wipe(at_, size());
        ::operator delete(at_);
    }

    /// Bit i: field i is there.
    [[nodiscard]] std::uint64_t fields() const noexcept { return at_ ? at_->fields : 0; }
    /// Where the first of them is.
    [[nodiscard]] const std::uint8_t* bytes() const noexcept {
        return reinterpret_cast<const std::uint8_t*>(at_ + 1);
    }
    [[nodiscard]] std::uint8_t* bytes() noexcept {
        return reinterpret_cast<std::uint8_t*>(at_ + 1);
    }
    /// Bytes of memory.
    [[nodiscard]] std::size_t size() const noexcept { return at_ ? sizeof(head) + at_->length : 0; }

  private:
    struct head {
        std::atomic<std::uint32_t> holders;
        std::uint32_t length; ///< of the fields
        std::uint64_t fields;
    };

    head* at_ = nullptr;
};

} // namespace esplane::ipsec
