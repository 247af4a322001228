// SPDX-License-Identifier: Apache-2.0
//
// What routes lead to.  Many routes share one path; a path has an adjacency for each of its hops.
// A neighbour that changes touches the paths by it, never the routes.
//
//   route --> number --> route_target --> adjacency
//                              '--> hop_group --> adjacency, adjacency, ...
//
// Threads: control; what it publishes is read by workers.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "fastpath/adjacency.h"
#include "fastpath/interfaces.h"
#include "lib/control/network.h"

namespace esplane::fastpath {

/// What is done by the routes of a path.
enum class path_kind : std::uint8_t { missing, local, denied, unicast, bare };

/// What a route says of where it leads.
struct path {
    path_kind kind = path_kind::missing;
    std::uint16_t vrf = 0;
    std::uint32_t mtu = 0; ///< 0 = the interface's
    std::vector<control::hop> hops;

    friend bool operator==(const path&, const path&) = default;
};

class next_hops {
  public:
    /// Paths there may be.
    static constexpr std::uint32_t most = 1u << 20;
    /// Number of the path of no route at all.
    static constexpr std::uint32_t missing = 0;

    next_hops();

    /// By number; workers read them.  Stays where it is.
    [[nodiscard]] route_target* targets() const noexcept { return targets_.get(); }

    /// What paths are made of and workers may still read.
    struct garbage {
        struct run {
            std::vector<adjacency> adjacencies;
            std::vector<hop_group::member> members;
            hop_group group{};
        };
        std::vector<std::unique_ptr<run>> runs;
        std::vector<std::uint32_t> numbers;
    };
    /// All since the last call.
    [[nodiscard]] garbage take_garbage();
    /// Numbers may be used again.
    void recycle(const garbage& g);

    /// The number of a path, one more route by it; nothing where there are too many.
    [[nodiscard]] std::optional<std::uint32_t> take(const path& p);
    /// One route less.
    void release(std::uint32_t number);
    [[nodiscard]] const path& at(std::uint32_t number) const { return records_[number].what; }
    [[nodiscard]] std::size_t size() const noexcept { return numbers_.size(); }

    /// Interfaces by which adjacencies are made from now on.  Makes all that are others then.
    void use(const interface_table& interfaces);
    /// A MAC address; nothing: it is not known any more.
    void set_neighbour(int ifindex, const ipsec::address& ip,
                       const std::optional<wire::mac_address>& mac);
    /// VRFs with a path onto the link of an interface.
    [[nodiscard]] std::vector<std::uint16_t> vrfs_on_link(int ifindex) const;

  private:
    using hop_key = std::pair<int, ipsec::address>;
    struct record {
        path what;
        std::uint32_t routes = 0;
        std::unique_ptr<garbage::run> run;
    };
    struct hash {
        std::size_t operator()(const path& p) const noexcept;
    };
    [[nodiscard]] adjacency make(const path& p, const control::hop& h) const;
    [[nodiscard]] std::unique_ptr<garbage::run> make(const path& p) const;
    void make_group(garbage::run& r, const path& p) const;
    [[nodiscard]] bool is_usable(const adjacency& a) const;
    void rebuild(std::uint32_t number);
    void forget(std::uint32_t number);

    struct unmap {
        void operator()(route_target* p) const noexcept;
    };
    std::unique_ptr<route_target[], unmap> targets_; ///< untouched where not in use
    std::vector<record> records_;
    std::unordered_map<path, std::uint32_t, hash> numbers_;
    std::multimap<hop_key, std::uint32_t> by_hop_; ///< gateway unspecified: onto the link
    std::map<hop_key, wire::mac_address> neighbours_;
    std::vector<std::uint32_t> free_;
    garbage garbage_;
    const interface_table* interfaces_ = nullptr;
};

} // namespace esplane::fastpath
