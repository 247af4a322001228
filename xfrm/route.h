// SPDX-License-Identifier: Apache-2.0
//
// Follows the kernel's links, addresses, routes and neighbours, for control::network.
//
// Multicast says that something has changed; what has is then read in a dump, because some changes
// are never announced (IPv4 routes that go with their link, routes that are replaced).  Neighbours
// change all the time and are followed one by one.  After a gap (ENOBUFS) everything is read again.
//
// Routes are those that forwarding uses: of the tables that plain rules of `ip rule` reach, in the
// order of the rules.  A route that a table before it covers can never be used and is left out, so
// that one longest-prefix match over the result says what the kernel's walk over tables says.
//
// Threads: control.  Network namespace: the one of the thread that calls open().
// Does not: follow rules with conditions (counted), multipath beyond the first hop, VRFs.
#pragma once

#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/control/network.h"
#include "xfrm/route_codec.h"

struct nl_sock;
struct nl_msg;

namespace esplane::xfrm {

class route_monitor {
  public:
    /// Subscribes and reads everything once.
    [[nodiscard]] static result<std::unique_ptr<route_monitor>> open();
    ~route_monitor();
    route_monitor(const route_monitor&) = delete;
    route_monitor& operator=(const route_monitor&) = delete;

    /// Readable when poll() has something to do.
    [[nodiscard]] int descriptor() const noexcept;

    /// Takes in what has happened, without waiting for more.  True if current() is different now.
    ///
    /// On an error current() holds what could be read; the next call tries again, and its answer
    /// covers both.
    [[nodiscard]] result<bool> poll();

    [[nodiscard]] const control::network& current() const noexcept { return network_; }

    /// Rules with conditions, whose routes are not in current().
    [[nodiscard]] std::size_t skipped_rules() const noexcept { return skipped_rules_; }

    /// Asks the kernel to resolve a neighbour (NTF_USE); poll() will tell.
    [[nodiscard]] result<void> resolve(int ifindex, const ipsec::address& neighbour);

  private:
    struct close_socket {
        void operator()(nl_sock* s) const noexcept;
    };
    using socket_ptr = std::unique_ptr<nl_sock, close_socket>;
    using neighbour_map = std::map<std::pair<int, ipsec::address>, control::neighbour>;

    /// What has to be read again.
    struct stale_parts {
        bool links = true;
        bool addresses = true;
        bool routes = true;
        bool neighbours = true;
    };

    route_monitor() = default;
    [[nodiscard]] result<void> connect();
    [[nodiscard]] result<void> follow();
    void take_event(const nlmsghdr& message);
    static int on_event(nl_msg* message, void* self);
    void take_neighbour(const control::neighbour& n, bool gone);
    [[nodiscard]] result<void> reload();
    [[nodiscard]] result<void> reload_links();
    [[nodiscard]] result<void> reload_addresses();
    [[nodiscard]] result<void> reload_routes();
    [[nodiscard]] result<void> reload_neighbours();
    void copy_neighbours();
    template <typename T>
    [[nodiscard]] result<std::vector<T>> dump(int type, int family,
                                              std::optional<T> (*parse)(const nlmsghdr&));

    socket_ptr events_;  ///< multicast; never blocks
    socket_ptr queries_; ///< dumps and requests
    stale_parts stale_;
    bool changed_ = false;            ///< since poll() last said so
    bool neighbours_changed_ = false; ///< by an event
    neighbour_map neighbours_;
    std::size_t skipped_rules_ = 0;
    control::network network_;
};

} // namespace esplane::xfrm
