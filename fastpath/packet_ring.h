// SPDX-License-Identifier: Apache-2.0
//
// What arrives on a device, in a ring of AF_PACKET (TPACKET_V2) that this process maps.
//
// Version 2 and not 3: a block of version 3 is handed over when it is full or a timer of whole
// jiffies has run out, so that at low rates every packet waits for milliseconds.  A slot takes
// 64 KiB, because virtual devices hand over TCP in pieces of that size.
//
// IP that is addressed to the device's own MAC address gets in, and nothing else.
// Threads: waiting(), front() and release() by the lane's worker; the rest by control, while that
// is elsewhere.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

/// A frame in the ring, whole, with the tag that the kernel took off put back.
struct ring_frame {
    std::span<std::uint8_t> bytes;
    std::uint32_t segment_size = 0; ///< of payload, where it is a super-packet; else 0
    bool truncated = false;         ///< longer than a slot: `bytes` is what fitted
};

class packet_ring {
  public:
    static constexpr std::uint32_t slot_size = 65536;
    static constexpr std::uint32_t slots = 256;

    /// Opens it, deaf.  Errors: EPERM without CAP_NET_RAW; ENOMEM; ENODEV.
    [[nodiscard]] static result<packet_ring> open(int ifindex);
    ~packet_ring();
    packet_ring(packet_ring&& other) noexcept;
    packet_ring& operator=(packet_ring&&) = delete;

    /// Shares what arrives with others by the flows' hash.
    /// group   what the first of them got; nothing makes a new one.  Returns its number.
    [[nodiscard]] result<std::uint16_t> join(std::optional<std::uint16_t> group);
    /// Begins to listen.
    [[nodiscard]] result<void> listen();
    /// Takes the place of this one: same descriptor, same memory, as if opened anew.
    [[nodiscard]] result<void> replace_by(packet_ring fresh);

    [[nodiscard]] bool waiting() const noexcept;
    /// The oldest frame, once; one is waiting().  It stays where it is until release().
    [[nodiscard]] ring_frame front() noexcept;
    void release() noexcept;

    [[nodiscard]] int descriptor() const noexcept { return fd_.get(); }
    /// Frames lost for want of a slot since the last call.
    [[nodiscard]] std::uint64_t take_losses() const noexcept;
    /// What the kernel wants to say, "the device is down", is heard: poll() sleeps again.
    void clear_error() const noexcept;

  private:
    packet_ring(unique_fd fd, std::uint8_t* memory)
        : fd_(std::move(fd))
        , memory_(memory) {}
    [[nodiscard]] std::uint8_t* slot() const noexcept { return memory_ + at_ * slot_size; }

    unique_fd fd_;
    std::uint8_t* memory_;
    std::size_t at_ = 0; ///< slot of the oldest frame
};

} // namespace esplane::fastpath
