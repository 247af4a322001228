// SPDX-License-Identifier: Apache-2.0
//
// A port: where frames come from and go to.  One seam for every kind of I/O.
//
// A port has lanes: lane i is worker i's alone, and lanes share nothing that is written per packet.
// A port with fewer lanes than there are workers serves the first ones; the others hand their
// frames over to them.
//
// Threads: receive, send, punt, flush, enter and leave belong to the lane's worker; the rest to
// control, at any time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fastpath/lane.h"
#include "fastpath/packet.h"
#include "lib/base/result.h"
#include "lib/ipsec/mark.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

/// What is expected first on a port; any port may carry both.
enum class port_role : std::uint8_t { plain, secure, host };

struct named_count {
    std::string name;
    std::uint64_t value = 0;
};

/// Counted by the workers, read by control.
struct port_counters {
    std::uint64_t rx_packets = 0;
    std::uint64_t rx_bytes = 0; ///< frames
    std::uint64_t tx_packets = 0;
    std::uint64_t tx_bytes = 0;
    std::uint64_t tx_full = 0;       ///< no room on the device: given back to the caller, dropped
    std::uint64_t tx_copied = 0;     ///< sent from a copy: the buffer was not of the port's kind
    std::uint64_t rx_linearised = 0; ///< came in several buffers, were copied into one
    std::uint64_t rx_no_buffer = 0;  ///< the device had no buffer to fill
    std::uint64_t punted = 0;
    std::uint64_t punt_full = 0;
    std::uint64_t kernel_denied = 0; ///< the egress program dropped what the kernel sent
};

class machine_rules;

class port {
  public:
    virtual ~port() = default;

    /// How many workers it serves, at least 1.  Never changes.
    [[nodiscard]] virtual unsigned lanes() const noexcept { return 1; }

    /// Takes up to `into.size()` frames that have arrived.  Each packet is fully set: data,
    /// length, headroom, tailroom, owner, handle; flags where the device has looked at checksums;
    /// the rest zero.  Returns how many.
    [[nodiscard]] virtual std::size_t receive(unsigned lane, std::span<packet> into) noexcept = 0;

    /// Sends frames, whoever owns their buffers.  Returns how many were taken, from the front;
    /// their buffers are the port's now, the others remain the caller's.
    [[nodiscard]] virtual std::size_t send(unsigned lane,
                                           std::span<packet* const> frames) noexcept = 0;

    /// Hands frames up to the machine's own stack as if they had just arrived on this device.
    /// Returns how many were taken (copied: buffers remain the caller's).
    [[nodiscard]] virtual std::size_t punt(unsigned lane,
                                           std::span<packet* const> frames) noexcept = 0;

    /// Whether the machine's own stack receives what arrives here by itself: punt() is then for
    /// what came out of an SA alone, and gets that without an Ethernet header.
    [[nodiscard]] virtual bool stack_listens() const noexcept { return false; }
    /// Whether punt() has a way up at all.  Never changes.
    [[nodiscard]] virtual bool reaches_stack() const noexcept { return true; }

    /// Whether the kernel twin is a device apart (a TAP), with no program on the port's own: the
    /// pipeline sorts what arrives, and what the machine's stack sends comes by relay().
    [[nodiscard]] virtual bool twin_apart() const noexcept { return false; }
    /// Sends what the machine's own stack has sent into the twin, as far as the rules allow it.
    /// After the bursts of each loop.
    virtual void relay(unsigned, machine_rules&) noexcept {}

    /// Whether what it receives was sent by the machine itself into the interface of an if_id: IP
    /// packets with their way out in `next`.  Such a port takes what is for the machine and came
    /// out of an SA of such an if_id.
    [[nodiscard]] virtual bool of_interfaces() const noexcept { return false; }

    /// Whether it is the machine itself: what came out of an SA for the machine goes up here,
    /// whatever port the ESP came in on.
    [[nodiscard]] virtual bool of_machine() const noexcept { return false; }

    /// Which mark (fwmark) what it receives had when the machine's routing sent it here, as far as
    /// that is known; and, of a port that is the machine, has what goes up here.
    [[nodiscard]] virtual ipsec::mark_mask mark() const noexcept { return {}; }

    /// Whether what it sends the machine's own stack takes further: routes that leave by a device
    /// which is no port lead here.
    [[nodiscard]] virtual bool by_kernel() const noexcept { return false; }

    /// Whether frames begin with an Ethernet header; else with the IP header.
    [[nodiscard]] virtual bool ethernet() const noexcept { return true; }

    /// After each loop: system calls that make sends and fills visible, where needed.
    virtual void flush(unsigned lane) noexcept = 0;

    /// The worker's thread begins, or ends, its work on a lane.
    virtual void enter(unsigned) noexcept {}
    virtual void leave(unsigned) noexcept {}

    /// Descriptors to sleep on until frames arrive; none where polling is the only way.
    [[nodiscard]] virtual std::span<const int> descriptors(unsigned lane) const noexcept = 0;

    /// Whether frames can pass: the device is there, and has a link.  Without a device receive
    /// gives none and send takes none; without a link what is taken may be lost.
    [[nodiscard]] virtual bool up() const noexcept { return true; }
    /// Why it is down, and what to do where somebody has to; "" while it is up.
    [[nodiscard]] virtual std::string why_down() const { return {}; }
    /// About once a second, and when the kernel has told of a change of its devices: a device that
    /// had vanished is taken up again.  True where up() is another than the last call left it.
    /// Errors: why a device that is there again cannot be taken up; it is tried again.
    [[nodiscard]] virtual result<bool> tend() { return false; }

    [[nodiscard]] virtual port_counters counters() const noexcept = 0;
    /// What this kind of port, or its device, counts beside that: names are the kind's own.
    [[nodiscard]] virtual std::vector<named_count> extended_counters() const { return {}; }
    [[nodiscard]] virtual const std::string& name() const noexcept = 0;   ///< "lan"
    [[nodiscard]] virtual const std::string& device() const noexcept = 0; ///< "veth1"
    [[nodiscard]] virtual const char* kind() const noexcept = 0;          ///< "xdp"
    /// Which of the kind's ways frames go, where it has several: "zero-copy".
    [[nodiscard]] virtual std::string mode() const { return {}; }
    [[nodiscard]] virtual int ifindex() const noexcept = 0; ///< of the kernel twin; 0 = none
    [[nodiscard]] virtual port_role role() const noexcept = 0;
};

} // namespace esplane::fastpath
