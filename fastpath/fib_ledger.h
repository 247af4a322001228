// SPDX-License-Identifier: Apache-2.0
//
// Control's side of a fib: routes by prefix, neighbours, VRFs, and what is put out of use.
//
// For fib.cc alone.  Threads: control.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "fastpath/fib.h"
#include "fastpath/prefix_map.h"

namespace esplane::fastpath {

class fib::ledger {
  public:
    /// What workers may still read.
    struct garbage {
        std::vector<lpm_memory::block> blocks;
        next_hops::garbage paths;
        std::vector<std::unique_ptr<vrf_tables>> tables;
        std::vector<std::unique_ptr<const interface_table>> interfaces;
    };

    explicit ledger(fib& owner)
        : owner_(owner) {
        use(std::make_unique<interface_table>());
        (void)take_vrf(0);
    }

    void change_interfaces(const control::network& now, const device_bindings& bindings);
    void use(std::unique_ptr<const interface_table> fresh);
    void change_neighbour(const control::network_change::neighbour_change& c);
    void begin_afresh();
    void end_afresh();
    /// Between the two: lookups find what was there before.
    [[nodiscard]] bool is_loading() const { return loading_; }
    void change_route(const control::network_change::route_change& c);
    void set_route(std::uint16_t index, const ipsec::address& to, unsigned length,
                   std::optional<std::uint32_t> number);
    [[nodiscard]] bool is_near() const;
    [[nodiscard]] std::size_t retired_blocks() const { return retired.size(); }
    [[nodiscard]] garbage take_garbage();
    void recycle(garbage& g);
    [[nodiscard]] fib_usage usage() const;
    [[nodiscard]] std::uint16_t index_of(std::uint32_t table) const;

    // In this order: tables give their memory back.
    lpm_memory memory;
    std::vector<lpm_memory::block> retired;
    next_hops paths;

  private:
    struct vrf {
        vrf(lpm_memory& nodes, std::vector<lpm_memory::block>& old, bool wide)
            : tables(std::make_unique<vrf_tables>(nodes, old, wide)) {}
        template <unsigned Bytes>
        [[nodiscard]] auto& routes() {
            if constexpr (Bytes == 4)
                return v4;
            else
                return v6;
        }
        std::unique_ptr<vrf_tables> tables;
        prefix_map<4> v4; ///< to numbers of paths
        prefix_map<16> v6;
    };
    using vrf_set = std::vector<std::unique_ptr<vrf>>; ///< by index; may have holes

    /// One whose MAC address is known.
    struct neighbour {
        /// Where it is a host route: VRF and number of the path.
        std::vector<std::pair<std::uint16_t, std::uint32_t>> installed;
    };
    using neighbour_key = std::tuple<ipsec::family, ipsec::address, int>; ///< the last: ifindex

    [[nodiscard]] std::optional<std::uint16_t> take_index(std::uint32_t table);
    [[nodiscard]] vrf* find_vrf(std::uint16_t index);
    [[nodiscard]] vrf* take_vrf(std::uint16_t index);
    void publish(std::uint16_t index);
    void drop(std::unique_ptr<vrf> v);
    void drop_idle_vrfs(const control::network& now);

    template <unsigned Bytes>
    void set_route(std::uint16_t index, const ipsec::address& to, unsigned length,
                   std::optional<std::uint32_t> number);
    void refuse(std::uint32_t number);

    template <unsigned Bytes>
    [[nodiscard]] std::optional<path> path_to(std::uint16_t index, const neighbour_key& key);
    void reconsider(std::uint16_t index, const ipsec::address& prefix, unsigned length);
    void reconsider_all();
    void uninstall(std::uint16_t index, const neighbour_key& key, neighbour& n);
    template <unsigned Bytes>
    void uncover(std::uint16_t index, const ipsec::address& host);
    void install(std::uint16_t index, const neighbour_key& key, neighbour& n, const path& p);

    fib& owner_; ///< not after it is gone: recycle() alone comes so late
    std::unique_ptr<const interface_table> interfaces_;
    vrf_set current_;
    vrf_set loaded_; ///< what will take its place
    bool loading_ = false;
    std::map<std::uint32_t, std::uint16_t> index_by_table_; ///< of VRFs
    std::uint16_t last_index_ = 0;
    std::map<neighbour_key, neighbour> neighbours_;
    std::vector<std::unique_ptr<vrf_tables>> old_tables_;
    std::vector<std::unique_ptr<const interface_table>> old_interfaces_;
    std::uint64_t refused_ = 0;
};

} // namespace esplane::fastpath
