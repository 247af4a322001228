// SPDX-License-Identifier: Apache-2.0
//
// Follows the kernel's links, addresses, routes and neighbours, as changes of control::network.
//
// Everything is read once and then followed message by message: a table of BGP size is not read
// again because one route or neighbour changed.  What the kernel does not announce is read again as
// far as it can reach:
//
//   a link goes up or down, changes its master, is gone  }  routes that leave by it, and next hop
//   the last IPv4 address of a link is gone              }    objects
//   the source that routes prefer is gone                   routes of the links they leave by
//   a gap (ENOBUFS)                                         everything; only differences are told
//
// While routes are being read, in pieces, what happens to them meanwhile waits and is taken in
// afterwards: it may be older or newer than what was read, and its last word is the newest.
//
// Routes are those that forwarding uses: of the tables that plain rules of `ip rule` reach, in the
// order of the rules; for the traffic of a VRF up to the VRF's own table, where the l3mdev rule
// stands (see control::route::vrf for what comes behind).
//
// Threads: control.  Network namespace: the one of the thread that calls open().
// Does not: follow rules with conditions (counted), "throw" routes.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/control/network.h"
#include "xfrm/route_codec.h"
#include "xfrm/route_rib.h"
#include "xfrm/route_socket.h"

namespace esplane::xfrm {

class route_monitor {
  public:
    /// Subscribes and reads all but the routes.
    ///
    /// event_bytes   what the kernel may queue while nobody polls; some 50,000 messages by default
    [[nodiscard]] static result<std::unique_ptr<route_monitor>> open(int event_bytes = 64 << 20);
    ~route_monitor();
    route_monitor(const route_monitor&) = delete;
    route_monitor& operator=(const route_monitor&) = delete;

    /// Readable when poll() has something to do.
    [[nodiscard]] int descriptor() const noexcept { return events_.descriptor(); }

    /// Takes in what has happened, without waiting for more, and says what is different for it; the
    /// first time that is everything.  At most some 10,000 routes a call: see unfinished().
    ///
    /// On an error what could be read is kept and told by the next call that succeeds, which tries
    /// again.
    [[nodiscard]] result<control::network_change> poll();
    /// poll() has more to say at once, whatever descriptor() shows.
    [[nodiscard]] bool unfinished() const noexcept;

    /// From now on, until the next call, routes by these links are as good as not there: what
    /// stands behind them counts.  poll() tells what is different for it.
    void pass_over(std::vector<int> links) { rib_.pass_over(std::move(links), pending_.routes); }

    /// Links and addresses; routes and neighbours are told by poll() alone.
    [[nodiscard]] const control::network& current() const noexcept { return network_; }
    /// All that has been told so far, as one; for tests and for those who look at it seldom.
    [[nodiscard]] control::network snapshot() const;

    /// Rules with conditions, whose routes are left out.
    [[nodiscard]] std::size_t skipped_rules() const noexcept;
    /// Routes read from the kernel, told or not; since open().
    [[nodiscard]] std::uint64_t routes_read() const noexcept { return routes_read_; }

    /// Asks the kernel to resolve a neighbour (NTF_USE); poll() will tell.
    [[nodiscard]] result<void> resolve(int ifindex, const ipsec::address& neighbour);
    /// The same by a socket of its own: for who follows no routes.
    [[nodiscard]] static result<void> resolve_once(int ifindex, const ipsec::address& neighbour);

  private:
    using neighbour_map = std::map<std::pair<int, ipsec::address>, control::neighbour>;

    /// What has to be read again.
    struct stale_parts {
        bool links = true;
        bool addresses = true;
        bool nexthops = true;
        bool rules = true;
        bool neighbours = true;
        bool routes = true;
        [[nodiscard]] bool any() const noexcept {
            return links || addresses || nexthops || rules || neighbours || routes;
        }
    };
    /// Routes of one family being read; of one link or (0) all.
    struct reading {
        ipsec::family family;
        int ifindex = 0;
        int attempts = 0;
        bool interrupted = false; ///< something changed under it
        bool ended = false;       ///< all is read, the rest is gone
    };

    route_monitor(route_socket events, route_socket queries, route_socket routes);

    void take_events();
    void sort_event(const nlmsghdr& message);
    void take_event(const nlmsghdr& message);
    void start_over();
    void take_link(const link_message& said);
    void take_neighbour(const control::neighbour& n, bool gone);
    void suspect_routes_after_lost_addresses();
    void forget_neighbours(int ifindex);

    [[nodiscard]] result<void> advance();
    [[nodiscard]] result<void> refresh();
    [[nodiscard]] result<void> refresh_links();
    [[nodiscard]] result<void> refresh_addresses();
    [[nodiscard]] result<void> refresh_nexthops();
    [[nodiscard]] result<void> refresh_rules();
    [[nodiscard]] result<void> refresh_neighbours();
    [[nodiscard]] result<void> refresh_routes();
    void publish_links();
    void set_orders();
    template <typename T, typename Header>
    [[nodiscard]] result<std::vector<T>> dump(int type, const Header& header,
                                              std::optional<T> (*parse)(const nlmsghdr&));

    [[nodiscard]] result<void> plan_readings();
    [[nodiscard]] result<void> read_routes();
    [[nodiscard]] result<void> ask_for_routes();
    [[nodiscard]] result<bool> read_piece(const nlmsghdr& message);
    void end_dump();
    void sweep();
    void replay();

    route_socket events_;  ///< multicast
    route_socket queries_; ///< what is answered at once
    route_socket routes_;  ///< dumps of routes, in pieces
    rib rib_;
    std::map<int, link_message> links_;
    neighbour_map neighbours_;
    std::vector<routing_rule> rules_v4_;
    std::vector<routing_rule> rules_v6_;
    control::network network_;        ///< links and addresses
    control::network_change pending_; ///< since poll() last said so
    route_message scratch_;           ///< its memory is used again

    stale_parts stale_;
    std::set<int> suspects_; ///< links whose routes may have gone in silence
    std::vector<control::interface_address> lost_addresses_;
    std::deque<reading> readings_; ///< the first is under way if `asked_`
    bool asked_ = false;
    std::vector<std::byte> waiting_; ///< messages that came meanwhile
    bool more_events_ = false;
    bool failed_ = false; ///< the last poll()
    bool loading_ = true; ///< the first reading of all routes has not ended yet
    std::uint64_t routes_read_ = 0;
};

} // namespace esplane::xfrm
