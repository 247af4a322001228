// SPDX-License-Identifier: Apache-2.0
//
// Logical interfaces: the ports themselves, the VLANs on them, the tunnels by route.
//
// An index stays what it is as long as its link is there; those of ports are the ports' own.
// Threads: immutable once made; workers read it, control makes the next one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "fastpath/adjacency.h"
#include "lib/control/network.h"

namespace esplane::fastpath {

/// Which device is which port.
struct port_binding {
    int ifindex = 0;
    std::uint8_t port = 0;
    bool of_machine = false; ///< the machine itself: nothing leaves by it
};

/// Which device stands for which if_id.
struct tunnel_binding {
    int ifindex = 0;
    std::uint32_t if_id = 0;
};

/// The index of no port.
inline constexpr std::uint8_t no_port = 0xff;

/// Which devices are the path's.
struct device_bindings {
    std::vector<port_binding> ports;
    std::vector<tunnel_binding> tunnels;
    std::uint8_t by_kernel = no_port; ///< the port that stands for all other devices
};

enum class interface_kind : std::uint8_t {
    none, ///< its link is gone
    port,
    vlan,
    tunnel,
    kernel,  ///< no port: what leaves by it, the port takes that the kernel routes for
    machine, ///< the port that is the machine itself
};

/// What the path knows of a device's machine side.
struct interface {
    interface_kind kind = interface_kind::none;
    std::uint8_t port = 0; ///< port, vlan, kernel: where its frames go
    std::uint16_t vrf = 0; ///< index of the VRF it belongs to; 0 = none
    int ifindex = 0;
    std::uint32_t mtu = 0; ///< bytes from the IP header on
    std::uint32_t if_id = 0;
    wire::mac_address mac{};
    bool up = true;
    vlan_tags tags;
    std::vector<control::interface_address> addresses;
};

class interface_table {
  public:
    static constexpr std::uint16_t none = 0xffff;

    interface_table() = default;
    /// before    whose indices go on
    /// vrf_of    index of the VRF with that table
    interface_table(const control::network& n, const device_bindings& bindings,
                    const interface_table& before,
                    const std::function<std::uint16_t(std::uint32_t)>& vrf_of);
    /// One port without a machine side, for captures.
    interface_table(std::uint8_t port, std::uint32_t mtu);

    /// An empty one where there is none of that index.
    [[nodiscard]] const interface& operator[](std::uint16_t index) const noexcept;
    [[nodiscard]] std::size_t size() const noexcept { return all_.size(); }
    /// Whether one belongs to a VRF.
    [[nodiscard]] bool has_vrfs() const noexcept;

    /// The VLAN whose frames carry these tags on a port; none where there is no such, or it is
    /// down.
    [[nodiscard]] std::uint16_t find(std::uint8_t port, const vlan_tags& tags) const noexcept;
    [[nodiscard]] std::uint16_t find(int ifindex) const noexcept;
    /// The tunnel with that if_id; none where there is no such, or it is down.
    [[nodiscard]] std::uint16_t find_tunnel(std::uint32_t if_id) const noexcept;

    /// An address of the machine to speak from towards `peer` on an interface: one whose prefix
    /// covers it, else any of the interface, else any of its VRF.  nullptr where there is none.
    [[nodiscard]] const ipsec::address* source_for(std::uint16_t index,
                                                   const ipsec::address& peer) const noexcept;

  private:
    struct tagged {
        std::uint64_t tags; ///< as in vlan_tags; TPID and VID only
        std::uint16_t index;
        std::uint8_t port;
        std::uint8_t length;
        bool used;
    };
    struct machine_address {
        control::interface_address address;
        std::uint16_t vrf;
    };
    [[nodiscard]] static tagged key_of(std::uint8_t port, const vlan_tags& tags) noexcept;
    [[nodiscard]] std::size_t home_of(const tagged& key) const noexcept;
    [[nodiscard]] std::uint16_t place_for(int ifindex, const interface_table& before,
                                          std::size_t first);
    void add_tunnels(const control::network& n, std::span<const tunnel_binding> tunnels,
                     const interface_table& before, std::size_t first,
                     const std::function<std::uint16_t(std::uint32_t)>& vrf_of);
    void add_others(const control::network& n, std::uint8_t port, const interface_table& before,
                    std::size_t first, const std::function<std::uint16_t(std::uint32_t)>& vrf_of);
    void add_vlans(const control::network& n, const interface_table& before, std::size_t first,
                   const std::function<std::uint16_t(std::uint32_t)>& vrf_of);
    void index_tags();

    std::vector<interface> all_;
    std::vector<std::pair<std::uint32_t, std::uint16_t>> tunnels_; ///< up: if_id, index; ascending
    std::vector<tagged>
        by_tags_; ///< VLANs that are up: a hash table; its size is a power of two, or it is empty
    std::vector<machine_address> addresses_;
};

} // namespace esplane::fastpath
