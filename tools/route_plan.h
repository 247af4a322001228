// SPDX-License-Identifier: Apache-2.0
//
// Which routes the policies for one TUN device ask for.
//
//   out policy                       route to its destinations
//   protects, or blocks              into the device; with an if_id into that interface
//   passes                           around: as other rules say, where no policy that protects
//                                    would miss packets by it
//   protects its peer's address too  of the peer alone: past the device (allow_peer_ts=no)
//
// A destination that several policies share goes into the device if one of them wants it: what the
// others say of a packet is found out there.  So does what only some ports or protocols are to be
// protected for.
// Threads: one.  Does not: know which routes there are.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "lib/control/network.h"
#include "lib/ipsec/policy.h"
#include "tools/routing_options.h"
#include "xfrm/host_routes.h"

namespace esplane::tools {

struct planned_route {
    enum class way : std::uint8_t { into, past, around, nowhere };
    way what = way::into;
    std::uint32_t if_id = 0; ///< into that interface; 0: into the device
    ipsec::address source;
    std::uint32_t mtu = 0;

    friend bool operator==(const planned_route&, const planned_route&) = default;
};

class route_plan {
  public:
    using prefixes = std::set<xfrm::host_prefix>;
    /// The largest packet that a policy's SAs and their paths take; 0: nobody knows.
    using inner_mtu = std::function<std::uint32_t(const ipsec::policy&)>;

    route_plan(const routing_options& options, inner_mtu mtu)
        : options_(options)
        , mtu_(std::move(mtu)) {}

    /// Each returns the destinations whose route may be another now.
    prefixes learn(const ipsec::policy& p);
    prefixes forget(std::uint32_t index);
    prefixes forget_all(ipsec::policy_type type);

    /// Of the machine: where routes take their source.  device   the TUN device's index
    void set_addresses(const control::network& n, int device);

    [[nodiscard]] std::optional<planned_route> route_to(const xfrm::host_prefix& where) const;
    /// All destinations with a route.
    [[nodiscard]] prefixes destinations() const;
    /// Those whose route goes past the device.
    [[nodiscard]] prefixes peers() const;

  private:
    using known = std::map<std::uint32_t, ipsec::policy>;

    struct ranked_address {
        ipsec::address local;
        bool is_virtual = false; ///< given by a peer, as far as can be told
    };

    [[nodiscard]] bool counts(const ipsec::policy& p) const noexcept;
    [[nodiscard]] prefixes touched_by(const ipsec::policy& p) const;
    [[nodiscard]] bool leaves_out_peer(const ipsec::policy& p) const noexcept;
    [[nodiscard]] bool is_peer_alone(const ipsec::policy& p) const noexcept;
    [[nodiscard]] bool may_go_around(const ipsec::policy& passes) const;
    [[nodiscard]] std::vector<const ipsec::policy*> in_order(const xfrm::host_prefix& where) const;
    [[nodiscard]] planned_route into(const std::vector<const ipsec::policy*>& takers) const;
    [[nodiscard]] const ranked_address* source_for(const ipsec::policy& p) const;

    routing_options options_;
    inner_mtu mtu_;
    known policies_; ///< by index
    std::map<xfrm::host_prefix, std::set<std::uint32_t>> takers_;
    std::map<xfrm::host_prefix, std::set<std::uint32_t>> passers_;
    std::map<xfrm::host_prefix, std::set<std::uint32_t>> peers_; ///< left out, of which policies
    std::vector<ranked_address> addresses_;
};

} // namespace esplane::tools
