// SPDX-License-Identifier: Apache-2.0
//
// Between a port and the machine's own stack, where no program on a device stands there: what
// arrives and is the stack's whatever the policies say, and what the stack may send.
//
// Both are the rules of fastpath/xdp/ingress.bpf.c and egress.bpf.c, over the path's own tables:
//
//   arrives   for another station ──────────────────────────► drop
//             not IP; multicast, broadcast; ND ─────────────► up
//             for the machine: IKE; a later fragment of UDP ► up, of ESP in UDP to the path
//             a fragment, while no `in` policy is there ────► up
//             everything else ──────────────────────────────► the path
//
//   leaves    more than two VLAN tags ──────────────────────► no
//             not IP ───────────────────────────────────────► yes
//             from an address that is not the machine's ────► no: the kernel forwards it
//             IKE, ESP, ND, multicast listener reports ─────► yes
//             nothing is programmed yet (tables.closed) ────► no
//             an `out` policy protects or blocks it ────────► no
//             headers that cannot be read, with `out` policies ► no
//             a later fragment ─────────────────────────────► as the first of its packet
//
// Threads: the worker's.
#pragma once

#include <array>
#include <cstdint>

#include "fastpath/stage.h"

namespace esplane::fastpath {

enum class arrival : std::uint8_t {
    path,  ///< for parse() and what follows
    stack, ///< goes up as it is
    other, ///< for another station
};

/// Whose an Ethernet frame is that came in on a port whose twin is a device apart.  Of one that is
/// the stack's, family, protocol and ports are set where it is IP.
[[nodiscard]] arrival sort_arrival(const stage& s, packet& frame) noexcept;

/// What the first fragments of packets of the machine's were judged.
class fragment_memory {
  public:
    struct key {
        ipsec::address source, destination;
        std::uint32_t id = 0;
        friend bool operator==(const key&, const key&) = default;
    };
    void remember(const key& k, bool allowed) noexcept;
    /// False where nothing is known.
    [[nodiscard]] bool allowed(const key& k) const noexcept;

  private:
    struct entry {
        key packet;
        bool allowed = false;
    };
    std::array<entry, 32> entries_{};
    std::size_t next_ = 0;
};

/// Judges what the machine's own stack sends by a port.
class machine_rules {
  public:
    machine_rules(const stage& s, fragment_memory& fragments) noexcept
        : stage_(s)
        , fragments_(fragments) {}

    /// Whether an Ethernet frame may leave.
    [[nodiscard]] bool may_leave(const packet& frame) noexcept;

  private:
    const stage& stage_;
    fragment_memory& fragments_;
};

} // namespace esplane::fastpath
