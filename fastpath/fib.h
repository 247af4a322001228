// SPDX-License-Identifier: Apache-2.0
//
// The forwarding table: longest prefix match to an adjacency, in each VRF.
//
//   vrf --> lpm_table --> number --> next_hops --> adjacency --> interface_table
//
// Changed in place while workers look things up; a lookup finds the state before a change or after
// it.  Known neighbours on a link are host routes, so one lookup finds the MAC address too.  What a
// lookup returns is valid until the worker is quiescent.
//
// Threads: apply() and usage() by control, the rest by workers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fastpath/adjacency.h"
#include "fastpath/interfaces.h"
#include "fastpath/lpm.h"
#include "fastpath/next_hops.h"
#include "fastpath/retired.h"
#include "lib/control/network.h"
#include "lib/ipsec/address.h"

namespace esplane::fastpath {

/// What a fib holds.
struct fib_usage {
    std::size_t routes_v4 = 0;
    std::size_t routes_v6 = 0;
    std::size_t next_hops = 0;
    std::size_t neighbours = 0;
    std::size_t vrfs = 0;
    std::size_t bytes = 0;     ///< of the nodes that lookups read
    std::uint64_t refused = 0; ///< routes for which there was no room
};

class fib {
  public:
    /// VRFs there may be, without the main one.
    static constexpr std::uint16_t most_vrfs = 4095;

    /// Without routes.
    fib();
    ~fib();
    fib(const fib&) = delete;
    fib& operator=(const fib&) = delete;

    /// From what the kernel says.
    [[nodiscard]] static std::unique_ptr<fib> build(const control::network& n,
                                                    std::span<const port_binding> ports);
    [[nodiscard]] static std::unique_ptr<fib> build(const control::network& n,
                                                    const device_bindings& bindings);
    /// Everything leaves as a bare IP packet by `port`, except to `locals`, which is the machine:
    /// for captures, without a network.
    [[nodiscard]] static std::unique_ptr<fib> everywhere(std::uint8_t port, std::uint32_t mtu,
                                                         std::span<const ipsec::address> locals);

    /// Where packets to `destination` leave.  What VRF `vrf` (0 = main) has no route for goes by
    /// main's, as in the kernel.
    ///
    /// flow_hash   chooses among hops of equal cost: flow_hash_of(), or what stays with an SA
    [[nodiscard]] const adjacency& lookup_v4(std::uint16_t vrf, wire::be32 destination,
                                             std::uint32_t flow_hash) const noexcept {
        return find<4>(vrf, reinterpret_cast<const std::uint8_t*>(&destination)).choose(flow_hash);
    }
    /// `destination` is 16 bytes.
    [[nodiscard]] const adjacency& lookup_v6(std::uint16_t vrf, const std::uint8_t* destination,
                                             std::uint32_t flow_hash) const noexcept {
        return find<16>(vrf, destination).choose(flow_hash);
    }
    [[nodiscard]] const adjacency& lookup(const ipsec::address& destination, std::uint16_t vrf = 0,
                                          std::uint32_t flow_hash = 0) const noexcept;
    /// Of a burst in one VRF, fetched ahead level by level.  Destinations (network order) and
    /// targets: at most lpm_table::max_burst, as many of the one as of the other.
    void find_v4(std::uint16_t vrf, std::span<const std::uint8_t* const> destinations,
                 route_target* targets) const noexcept {
        find_burst<4>(vrf, destinations, targets);
    }
    void find_v6(std::uint16_t vrf, std::span<const std::uint8_t* const> destinations,
                 route_target* targets) const noexcept {
        find_burst<16>(vrf, destinations, targets);
    }
    template <unsigned Bytes>
    [[nodiscard]] route_target find(std::uint16_t vrf,
                                    const std::uint8_t* destination) const noexcept {
        return vrf == 0 ? target(find_in_main<Bytes>(destination))
                        : target(find_in_vrf<Bytes>(vrf, destination));
    }

    /// Whether all tables lie in the near caches, so that looking up a burst together gains
    /// nothing.
    [[nodiscard]] bool is_near() const noexcept { return near_.load(std::memory_order_relaxed); }

    /// Moves with every change after which a lookup may find something else; never 0.  Read before
    /// the lookup whose result is kept with it.
    [[nodiscard]] std::uint64_t generation() const noexcept {
        return generation_.load(std::memory_order_acquire);
    }
    /// The same, and another for each VRF.
    [[nodiscard]] std::uint64_t generation_in(std::uint16_t vrf) const noexcept {
        return generation() * (most_vrfs + 1u) + vrf;
    }

    [[nodiscard]] const interface_table& interfaces() const noexcept {
        return *interfaces_.load(std::memory_order_acquire);
    }
    /// An empty one where there is none of that index.
    [[nodiscard]] const fastpath::interface& interface(std::uint16_t index) const noexcept {
        return interfaces()[index];
    }
    /// The VRF that packets are looked up in which come in by an interface.
    [[nodiscard]] std::uint16_t vrf_at(std::uint16_t interface) const noexcept {
        if (!has_vrfs_.load(std::memory_order_relaxed)) [[likely]]
            return 0;
        return interfaces()[interface].vrf;
    }
    [[nodiscard]] const ipsec::address* source_for(std::uint16_t interface,
                                                   const ipsec::address& peer) const noexcept {
        return interfaces().source_for(interface, peer);
    }

    /// Takes in a change.  What it puts out of use goes to `graveyard`.
    ///
    /// now   after the change; of it links and addresses are read, where they changed
    void apply(const control::network_change& change, const control::network& now,
               const device_bindings& bindings, retired& graveyard);

    /// Looks up IPv4 destinations of one burst, one by one: what all of them need is read once.
    class reader_v4 {
      public:
        explicit reader_v4(const fib& of) noexcept
            : all_(of)
            , main_(of.main_.load(std::memory_order_acquire)->v4) {}
        /// Of what came in by `interface`.
        [[nodiscard]] route_target find(std::uint16_t interface,
                                        const std::uint8_t* destination) const noexcept {
            if (const std::uint16_t vrf = all_.vrf_at(interface); vrf != 0) [[unlikely]]
                return all_.find<4>(vrf, destination);
            return all_.target(main_.find(destination));
        }

      private:
        const fib& all_;
        lpm_table<4>::reader main_;
    };

    [[nodiscard]] fib_usage usage() const;
    /// Index of the VRF with that table; 0 where there is none.
    [[nodiscard]] std::uint16_t vrf_of(std::uint32_t table) const;

  private:
    struct vrf_tables {
        /// wide   as most packets are looked up in it
        vrf_tables(lpm_memory& memory, std::vector<lpm_memory::block>& retired, bool wide)
            : v4(memory, retired, next_hops::missing, wide)
            , v6(memory, retired, next_hops::missing, wide) {}
        template <unsigned Bytes>
        [[nodiscard]] auto& of() noexcept {
            if constexpr (Bytes == 4)
                return v4;
            else
                return v6;
        }
        template <unsigned Bytes>
        [[nodiscard]] const auto& of() const noexcept {
            return const_cast<vrf_tables*>(this)->of<Bytes>();
        }
        lpm_table<4> v4;
        lpm_table<16> v6;
    };
    class ledger;

    void load(const control::network& n, const device_bindings& bindings);
    void hand_over(retired& graveyard);

    template <unsigned Bytes>
    void find_burst(std::uint16_t vrf, std::span<const std::uint8_t* const> destinations,
                    route_target* targets) const noexcept;
    [[nodiscard]] route_target target(std::uint32_t number) const noexcept {
        return std::atomic_ref<route_target>(targets_[number]).load(std::memory_order_acquire);
    }
    template <unsigned Bytes>
    [[nodiscard]] std::uint32_t find_in_main(const std::uint8_t* destination) const noexcept {
        return main_.load(std::memory_order_acquire)->of<Bytes>().find(destination);
    }
    template <unsigned Bytes>
    [[nodiscard]] std::uint32_t find_in_vrf(std::uint16_t vrf,
                                            const std::uint8_t* destination) const noexcept;
    [[nodiscard]] const vrf_tables* tables_of(std::uint16_t vrf) const noexcept {
        return vrfs_[vrf].load(std::memory_order_acquire);
    }

    std::atomic<std::uint64_t> generation_;
    std::atomic<const interface_table*> interfaces_;
    std::atomic<bool> has_vrfs_{false}; ///< an interface belongs to one
    std::atomic<const vrf_tables*> main_{nullptr};
    std::atomic<bool> near_{true};
    route_target* targets_;                                  ///< of the next hops
    std::unique_ptr<std::atomic<const vrf_tables*>[]> vrfs_; ///< the first is main_
    std::shared_ptr<ledger> ledger_; ///< what control knows; outlives what is retired
};

template <unsigned Bytes>
[[gnu::noinline]] std::uint32_t fib::find_in_vrf(std::uint16_t vrf,
                                                 const std::uint8_t* destination) const noexcept {
    const vrf_tables* own = tables_of(vrf);
    const std::uint32_t number =
        own != nullptr ? own->of<Bytes>().find(destination) : next_hops::missing;
    return number != next_hops::missing ? number : find_in_main<Bytes>(destination);
}

} // namespace esplane::fastpath
