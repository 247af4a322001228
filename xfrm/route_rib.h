// SPDX-License-Identifier: Apache-2.0
//
// The routing information base: every route the kernel has, from all its tables, and which one wins
// for each prefix and VRF.
//
// The kernel walks tables in the order of its rules and takes the longest match of the first table
// that has any.  One longest-prefix match over all says the same once each route is left out that a
// table before its own covers; what is left are the winners.  A change is weighed against what it
// can touch alone: its prefix, and below it only where a prefix comes to or goes from a table that
// others follow.
//
//   messages --> routes of (prefix, table), best first --> winner of (prefix, VRF) --> changes
//
// Threads: one.  Does not: "throw" routes, rules with conditions.
#pragma once

#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "xfrm/prefix_tree.h"
#include "xfrm/route_codec.h"
#include "xfrm/route_paths.h"

namespace esplane::xfrm {

/// The tables that one VRF's traffic is looked up in, in order, each once.  0: all other traffic.
struct lookup_order {
    std::uint32_t vrf = 0;
    std::vector<std::uint32_t> tables;

    friend bool operator==(const lookup_order&, const lookup_order&) = default;
};

using route_changes = std::vector<control::network_change::route_change>;

/// The routes of one family.
template <typename Key>
class family_rib {
  public:
    explicit family_rib(route_paths& paths)
        : paths_(paths) {}
    family_rib(const family_rib&) = delete;
    family_rib& operator=(const family_rib&) = delete;

    /// What has changed comes at the end of `out`.
    void set_orders(std::vector<lookup_order> orders, route_changes& out);
    /// What the kernel says has happened.  Said twice it counts once.
    void take_event(const route_message& m, route_changes& out);

    /// Reading the kernel's table: begin, each route in its order, then sweep until it is done.
    /// Those of `ifindex` (0: all) that were not read are gone then.
    void begin_reading(int ifindex) noexcept {
        ++reading_;
        reading_of_ = ifindex;
        swept_ = 0;
    }
    void take_read(const route_message& m, route_changes& out);
    /// At most `most` routes a call; true when all is swept.
    [[nodiscard]] bool sweep(std::size_t most, route_changes& out);

    /// A next hop object that these paths follow is another.
    void paths_changed(const std::vector<route_paths::id>& changed, route_changes& out);
    /// The kernel takes the routes away with the object, in silence.
    void nexthop_gone(std::uint32_t nexthop_id, route_changes& out);

    /// see(const control::route&) for each winner.
    template <typename See>
    void for_each(See see) const {
        for (const winner& w : winners_.items)
            if (w.node != nodes::none) see(route_of(w));
    }
    [[nodiscard]] std::size_t routes() const noexcept { return routes_.used(); }

  private:
    static constexpr std::uint32_t none = ~std::uint32_t{0};

    /// What a prefix has: the first of its routes and of its winners.
    struct heads {
        std::uint32_t route = none;
        std::uint32_t winner = none;
        friend bool operator==(const heads&, const heads&) = default;
    };
    using nodes = prefix_tree<Key, heads>;

    /// Those of one table stand together by metric, those of one metric in the kernel's order.
    struct route {
        std::uint32_t next = none;
        typename nodes::index node = nodes::none;
        route_paths::id path = 0;
        std::uint32_t table = 0;
        std::uint32_t metric = 0;
        std::uint32_t read = 0; ///< in which reading it was seen last
    };
    struct winner {
        std::uint32_t next = none;
        typename nodes::index node = nodes::none;
        route_paths::id path = 0;
        std::uint32_t table = 0;
        std::uint32_t metric = 0;
        std::uint32_t vrf = 0;
    };
    template <typename Item>
    struct pool {
        std::vector<Item> items; ///< free where node is none
        std::vector<std::uint32_t> free;

        std::uint32_t add(const Item& item);
        void remove(std::uint32_t i);
        [[nodiscard]] std::size_t used() const noexcept { return items.size() - free.size(); }
    };

    // Routes of one prefix.
    void add(typename nodes::index node, std::uint32_t before, const route_message& m);
    void remove(typename nodes::index node, std::uint32_t i);
    void set_path(std::uint32_t i, const route_path& path);
    [[nodiscard]] std::uint32_t best(typename nodes::index node, std::uint32_t table) const;
    template <typename Is>
    [[nodiscard]] std::uint32_t first_where(typename nodes::index node, Is is) const;
    [[nodiscard]] std::uint32_t find_same(typename nodes::index node, const route_message& m) const;
    [[nodiscard]] std::uint32_t find_replaced(typename nodes::index node,
                                              const route_message& m) const;
    [[nodiscard]] std::uint32_t place_for(typename nodes::index node, const route_message& m) const;
    void put(typename nodes::index node, const route_message& m);
    void put_read(typename nodes::index node, const route_message& m);
    void take_out(typename nodes::index node, const route_message& m);

    // Winners.
    template <typename Alter>
    void alter(typename nodes::index node, std::uint32_t table, Alter alter, route_changes& out);
    void weigh_table(typename nodes::index node, std::uint32_t table, bool came_or_went,
                     route_changes& out);
    void weigh(typename nodes::index node, const lookup_order& order, route_changes& out);
    [[nodiscard]] std::uint32_t choose(typename nodes::index node, const lookup_order& order) const;
    [[nodiscard]] bool covered(typename nodes::index node, std::uint32_t table) const;
    [[nodiscard]] bool followed(const lookup_order& order, std::uint32_t table) const;
    void crown(typename nodes::index node, const lookup_order& order, const route& r,
               std::uint32_t current, route_changes& out);
    void dethrone(typename nodes::index node, std::uint32_t w, route_changes& out);
    void weigh_all(const lookup_order& order, route_changes& out);
    [[nodiscard]] control::route route_of(const winner& w) const;
    [[nodiscard]] control::network_change::route_change loss_of(const winner& w) const;

    route_paths& paths_;
    nodes tree_;
    pool<route> routes_;
    pool<winner> winners_;
    std::unordered_map<std::uint32_t, std::size_t> table_sizes_;
    std::vector<lookup_order> orders_;
    std::unordered_map<std::uint32_t, std::vector<std::size_t>> orders_of_; ///< by table
    std::uint32_t reading_ = 0;
    int reading_of_ = 0;
    std::uint32_t swept_ = 0; ///< how far in routes_
};

/// Both families and the next hops they share.
class rib {
  public:
    rib()
        : v4_(paths_)
        , v6_(paths_) {}

    void set_orders(ipsec::family family, std::vector<lookup_order> orders, route_changes& out);
    void take_event(const route_message& m, route_changes& out);
    void take_nexthop(const nexthop_message& m, route_changes& out);
    /// The objects there are; all others are gone.
    void set_nexthops(const std::vector<nexthop_message>& all, route_changes& out);

    /// See route_monitor::pass_over().
    void pass_over(std::vector<int> links, route_changes& out);

    void begin_reading(ipsec::family family, int ifindex) noexcept;
    void take_read(const route_message& m, route_changes& out);
    [[nodiscard]] bool sweep(ipsec::family family, std::size_t most, route_changes& out);

    [[nodiscard]] const route_paths& paths() const noexcept { return paths_; }
    template <typename See>
    void for_each(See see) const {
        v4_.for_each(see);
        v6_.for_each(see);
    }
    /// Routes of all tables.
    [[nodiscard]] std::size_t routes() const noexcept { return v4_.routes() + v6_.routes(); }

  private:
    void paths_changed(const std::vector<route_paths::id>& changed, route_changes& out);

    route_paths paths_;
    family_rib<key_v4> v4_;
    family_rib<key_v6> v6_;
};

} // namespace esplane::xfrm
