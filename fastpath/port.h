// SPDX-License-Identifier: Apache-2.0
//
// A port: where frames come from and go to.  One seam for every kind of I/O.
//
// Threads: receive, send, punt and flush belong to the worker; the rest to control.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "fastpath/packet.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

/// What is expected first on a port; any port may carry both.
enum class port_role : std::uint8_t { plain, secure, host };

/// Counted by the worker, read by control.
struct port_counters {
    std::uint64_t rx_packets = 0;
    std::uint64_t rx_bytes = 0; ///< frames
    std::uint64_t tx_packets = 0;
    std::uint64_t tx_bytes = 0;
    std::uint64_t tx_full = 0;      ///< no room on the device: given back to the caller, dropped
    std::uint64_t rx_no_buffer = 0; ///< the device had no buffer to fill
    std::uint64_t punted = 0;
    std::uint64_t punt_full = 0;
    std::uint64_t kernel_denied = 0; ///< the egress program dropped what the kernel sent
};

class port {
  public:
    virtual ~port() = default;

    /// Takes up to `into.size()` frames that have arrived.  Each packet is fully set: data,
    /// length, headroom, tailroom, owner, handle; the rest zero.  Returns how many.
    [[nodiscard]] virtual std::size_t receive(std::span<packet> into) noexcept = 0;

    /// Sends frames.  Returns how many were taken, from the front; their buffers are the port's
    /// now, the others remain the caller's.
    [[nodiscard]] virtual std::size_t send(std::span<packet* const> frames) noexcept = 0;

    /// Hands frames up to the machine's own stack as if they had just arrived on this device.
    /// Returns how many were taken (copied: buffers remain the caller's).
    [[nodiscard]] virtual std::size_t punt(std::span<packet* const> frames) noexcept = 0;

    /// Whether frames begin with an Ethernet header; else with the IP header.
    [[nodiscard]] virtual bool ethernet() const noexcept { return true; }

    /// After each loop: system calls that make sends and fills visible, where needed.
    virtual void flush() noexcept = 0;

    /// A descriptor to sleep on until frames arrive, or -1.  May be called for several queues.
    [[nodiscard]] virtual std::span<const int> descriptors() const noexcept = 0;

    [[nodiscard]] virtual port_counters counters() const noexcept = 0;
    [[nodiscard]] virtual const std::string& name() const noexcept = 0;   ///< "lan"
    [[nodiscard]] virtual const std::string& device() const noexcept = 0; ///< "veth1"
    [[nodiscard]] virtual const char* kind() const noexcept = 0;          ///< "xdp"
    [[nodiscard]] virtual int ifindex() const noexcept = 0; ///< of the kernel twin; 0 = none
    [[nodiscard]] virtual port_role role() const noexcept = 0;
};

} // namespace esplane::fastpath
