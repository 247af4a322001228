// SPDX-License-Identifier: Apache-2.0
//
// Buffers for frames that do not fit one of the pool's: what arrives in several is copied into one.
//
// They lie outside the umem; who sends one copies it back.
// Threads: any worker takes and releases.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "fastpath/packet.h"

namespace esplane::fastpath {

class large_buffers final : public buffer_owner {
  public:
    static constexpr std::uint32_t buffer_size = 16384;
    static constexpr std::uint16_t headroom = 256;

    explicit large_buffers(std::uint32_t count);

    void release(std::span<packet* const> packets) noexcept override;
    [[nodiscard]] bool allocate(packet& into, std::uint32_t room) noexcept override;

  private:
    struct alignas(64) buffer {
        std::uint8_t bytes[buffer_size];
    };
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    /// Top of the stack of free buffers; the count tells a top that has gone and come back.
    struct alignas(8) head { // one word for the CPU
        std::uint32_t index;
        std::uint32_t count;
    };

    std::unique_ptr<buffer[]> buffers_;
    std::unique_ptr<std::atomic<std::uint32_t>[]> next_;
    std::atomic<head> free_;
};

} // namespace esplane::fastpath
