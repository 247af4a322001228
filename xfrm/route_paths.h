// SPDX-License-Identifier: Apache-2.0
//
// The paths of routes, each kept once however many routes have it: a BGP table of a million routes
// has a few hundred.  And the next hop objects (`ip nexthop`) that some of them name.
//
// A path with a next hop object is as good as that object is at the moment: set_nexthop() says
// which paths became others with it.
// Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "xfrm/route_codec.h"

namespace esplane::xfrm {

class route_paths {
  public:
    using id = std::uint32_t;

    route_paths()
        : known_(0, hash_of{this}, same_as{this}) {}
    route_paths(const route_paths&) = delete;
    route_paths& operator=(const route_paths&) = delete;

    /// The path's id, which counts one user more.
    id hold(const route_path& path);
    void hold(id path) noexcept { ++paths_[path].users; }
    /// One user less; ids that nobody uses are given out again.
    void release(id path);

    /// As the kernel told it.
    [[nodiscard]] const route_path& told(id path) const noexcept { return paths_[path].told; }
    /// As forwarding sees it: hops that are alive, next hop objects followed.  Prefix, table,
    /// metric and VRF are for the caller to fill in.
    [[nodiscard]] const control::route& seen(id path) const noexcept { return paths_[path].seen; }
    /// False where no hop is alive: the kernel's lookup goes on as if the route were not there.
    [[nodiscard]] bool usable(id path) const noexcept { return paths_[path].usable; }
    /// Leaves by that link, dead or alive.
    [[nodiscard]] bool leaves_by(id path, int ifindex) const noexcept;

    /// Takes in a next hop object, or that it is gone.  Returns the paths that are others now.
    std::vector<id> set_nexthop(const nexthop_message& n);
    /// Hops by these links count as dead from now on.  Returns the paths that are others now.
    std::vector<id> pass_over(std::vector<int> links);
    [[nodiscard]] const std::unordered_map<std::uint32_t, nexthop_message>&
    nexthops() const noexcept {
        return nexthops_;
    }

    /// Links by which some path leaves.
    [[nodiscard]] bool uses(int ifindex) const;
    /// Links by which paths leave whose preferred source is `source`.
    [[nodiscard]] std::vector<int> links_speaking_as(const ipsec::address& source) const;
    [[nodiscard]] std::size_t size() const noexcept { return known_.size(); }

  private:
    struct stored {
        route_path told;
        control::route seen;
        std::size_t hash = 0;
        std::uint32_t users = 0;
        bool usable = false;
    };
    /// The set holds ids and is searched by what they stand for.
    struct hash_of {
        using is_transparent = void;
        const route_paths* paths;
        std::size_t operator()(id path) const noexcept { return paths->paths_[path].hash; }
        std::size_t operator()(const route_path& path) const noexcept;
    };
    struct same_as {
        using is_transparent = void;
        const route_paths* paths;
        bool operator()(id a, id b) const noexcept { return a == b; }
        bool operator()(const route_path& a, id b) const noexcept {
            return a == paths->paths_[b].told;
        }
        bool operator()(id a, const route_path& b) const noexcept { return (*this)(b, a); }
    };

    void resolve(stored& path) const;
    template <typename Concerns>
    [[nodiscard]] std::vector<id> resolve_again(Concerns concerns);
    [[nodiscard]] bool is_alive(const next_hop& h) const;
    [[nodiscard]] std::vector<next_hop> hops_of(const route_path& path) const;
    [[nodiscard]] bool is_blackhole(const route_path& path) const;
    [[nodiscard]] bool names(std::uint32_t nexthop_id, std::uint32_t member) const;

    std::deque<stored> paths_; ///< users == 0: free
    std::vector<id> free_;
    std::unordered_set<id, hash_of, same_as> known_;
    std::unordered_map<std::uint32_t, nexthop_message> nexthops_;
    std::vector<int> passed_over_; ///< links
};

} // namespace esplane::xfrm
