// SPDX-License-Identifier: Apache-2.0
//
// The forwarding table: longest prefix match to an adjacency (where a packet leaves, and with which
// Ethernet header).
//
// Immutable: control builds a new one from control::network when something changed and publishes
// it.  A trie of 256-way nodes: at most 4 steps for IPv4, 16 for IPv6, usually 1 and 8.  Known
// neighbours are host routes in it, so one lookup finds the MAC address too.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "lib/control/network.h"
#include "lib/ipsec/address.h"

namespace esplane::fastpath {

/// What is done with a packet whose destination matched.
enum class adjacency_kind : std::uint8_t {
    missing,    ///< no route
    forward,    ///< MAC addresses are known
    unresolved, ///< they are not yet
    local,      ///< an address of the machine
    denied,     ///< blackhole, unreachable, prohibit, broadcast
    foreign,    ///< leaves by a device that is no port of ours
    bare,       ///< a port without Ethernet: the IP packet itself is the frame
};

struct adjacency {
    adjacency_kind kind = adjacency_kind::missing;
    std::uint8_t port = 0;
    std::uint32_t mtu = 0; ///< bytes from the IP header on
    wire::mac_address destination{};
    wire::mac_address source{};
    int ifindex = 0;
    ipsec::address gateway; ///< any = the packet's own destination
};

/// Which device is which port.
struct port_binding {
    int ifindex = 0;
    std::uint8_t port = 0;
};

/// What the path knows of a port's machine side.
struct port_identity {
    wire::mac_address mac{};
    std::vector<control::interface_address> addresses;
};

class fib {
  public:
    /// From what the kernel says.
    [[nodiscard]] static std::unique_ptr<const fib> build(const control::network& n,
                                                          std::span<const port_binding> ports);
    /// Everything leaves as a bare IP packet by `port`, except to `locals`, which is the machine:
    /// for captures, without a network.
    [[nodiscard]] static std::unique_ptr<const fib>
    everywhere(std::uint8_t port, std::uint32_t mtu, std::span<const ipsec::address> locals);

    [[nodiscard]] const adjacency& lookup_v4(wire::be32 destination) const noexcept {
        std::uint32_t bytes = destination.network();
        std::uint32_t slot = nodes_[0].entry[bytes & 0xff];
        while ((slot & node_bit) != 0) {
            bytes >>= 8;
            slot = nodes_[slot & ~node_bit].entry[bytes & 0xff];
        }
        return adjacencies_[slot];
    }
    /// `destination` is 16 bytes.
    [[nodiscard]] const adjacency& lookup_v6(const std::uint8_t* destination) const noexcept {
        std::uint32_t slot = nodes_[1].entry[*destination];
        while ((slot & node_bit) != 0)
            slot = nodes_[slot & ~node_bit].entry[*++destination];
        return adjacencies_[slot];
    }
    [[nodiscard]] const adjacency& lookup(const ipsec::address& destination) const noexcept;

    /// Different for every table there ever was; never 0.
    [[nodiscard]] std::uint64_t generation() const noexcept { return generation_; }

    /// Of the port with that index; an empty one where nothing is known.
    [[nodiscard]] const port_identity& identity(std::uint16_t port) const noexcept;
    /// An address of the machine to speak from towards `peer` on `port`: one whose prefix covers
    /// it, else any of the port, else any of the machine.  nullptr where there is none.
    [[nodiscard]] const ipsec::address* source_for(std::uint16_t port,
                                                   const ipsec::address& peer) const noexcept;

  private:
    struct node {
        std::array<std::uint32_t, 256> entry{}; ///< child | node_bit, or index of an adjacency
    };
    static constexpr std::uint32_t node_bit = 0x80000000;

    fib();
    std::uint32_t add(const adjacency& a);
    void insert(const ipsec::address& destination, unsigned prefix, std::uint32_t adjacency_index);
    void fill(std::uint32_t& slot, std::uint32_t adjacency_index);
    void insert_routes(const control::network& n, std::span<const port_binding> ports);
    void insert_neighbours(const control::network& n, std::span<const port_binding> ports);

    std::uint64_t generation_;
    std::vector<node> nodes_;            ///< 0: root of IPv4; 1: root of IPv6
    std::vector<adjacency> adjacencies_; ///< 0: missing
    std::vector<port_identity> identities_;
    std::vector<control::interface_address> addresses_;
};

} // namespace esplane::fastpath
