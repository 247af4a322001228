// SPDX-License-Identifier: Apache-2.0
//
// Where a packet leaves, and with which Ethernet header.
//
// Immutable: what changes gets a new one, and the old one is retired.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>

#include "lib/ipsec/address.h"
#include "lib/wire/headers.h"

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
    tunnel,     ///< leaves by an interface of an if_id: what SAs of that if_id carry
};

/// Tags between MAC addresses and type of a frame, as on the wire: TPID and TCI, outer ones first.
struct vlan_tags {
    static constexpr unsigned most = 2;
    static constexpr unsigned tag_bytes = 4;

    std::array<std::uint8_t, most * tag_bytes> bytes{};
    std::uint8_t length = 0; ///< bytes of them: 0, 4 or 8

    /// Adds one behind the others; false where there are two.
    bool push(const std::uint8_t* tag) noexcept {
        if (length == bytes.size()) return false;
        std::memcpy(bytes.data() + length, tag, tag_bytes);
        length += tag_bytes;
        return true;
    }

    friend bool operator==(const vlan_tags&, const vlan_tags&) = default;
};

struct alignas(64) adjacency {
    adjacency_kind kind = adjacency_kind::missing;
    std::uint8_t port = 0;
    std::uint16_t interface = 0; ///< fib::interface it leaves by
    std::uint32_t mtu = 0;       ///< bytes from the IP header on
    wire::mac_address destination{};
    wire::mac_address source{};
    vlan_tags tags;
    ipsec::address gateway; ///< any = the packet's own destination
    std::uint16_t vrf = 0;  ///< whose table it was found in
    int ifindex = 0;
    std::uint32_t if_id = 0; ///< tunnel

    friend bool operator==(const adjacency&, const adjacency&) = default;
};
static_assert(sizeof(adjacency) == 64, "one cache line");

/// The ways of one route among which flows are spread, each by its weight, as the kernel does it:
/// a flow takes the first whose bound is not below its hash.
struct hop_group {
    struct member {
        std::uint32_t bound;
        const adjacency* to;
    };
    const member* members; ///< ends with the bound 2^32 - 1

    [[nodiscard]] const adjacency& choose(std::uint32_t flow_hash) const noexcept {
        const member* m = members;
        while (m->bound < flow_hash)
            ++m;
        return *m->to;
    }
    /// The one by a gateway on a link, else the last.
    [[nodiscard]] const adjacency& choose_by(int ifindex,
                                             const ipsec::address& gateway) const noexcept {
        const member* m = members;
        while (m->bound != 0xffffffff && (m->to->ifindex != ifindex || m->to->gateway != gateway))
            ++m;
        return *m->to;
    }
};

/// Spreads what a hash has in some of its bits over all of them (the finalizer of MurmurHash3).
[[nodiscard]] constexpr std::uint32_t spread_hash(std::uint32_t h) noexcept {
    h = (h ^ h >> 16) * 0x85ebca6b;
    h = (h ^ h >> 13) * 0xc2b2ae35;
    return h ^ h >> 16;
}

/// What a lookup found: an adjacency, or several for the flow's hash to choose from.
class route_target {
  public:
    route_target() noexcept {} // arrays of it stay as they are until they are written
    explicit route_target(const adjacency* only) noexcept
        : word_(reinterpret_cast<std::uintptr_t>(only)) {}
    explicit route_target(const hop_group* several) noexcept
        : word_(reinterpret_cast<std::uintptr_t>(several) | 1) {}

    [[nodiscard]] bool is_group() const noexcept { return (word_ & 1) != 0; }
    /// Not of a group.
    [[nodiscard]] const adjacency& only() const noexcept {
        return *reinterpret_cast<const adjacency*>(word_);
    }
    [[nodiscard]] const hop_group& group() const noexcept {
        return *reinterpret_cast<const hop_group*>(word_ & ~std::uintptr_t{1});
    }
    [[nodiscard]] const adjacency& choose(std::uint32_t flow_hash) const noexcept {
        return is_group() ? group().choose(flow_hash) : only();
    }

  private:
    std::uintptr_t word_;
};

} // namespace esplane::fastpath
