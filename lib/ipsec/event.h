// SPDX-License-Identifier: Apache-2.0
//
// What happened to SAs and policies: control tells fronts, fronts tell their listeners.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "lib/ipsec/policy.h"
#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

/// Who asked: XFRM events carry the port id and sequence number of the request; 0 and 0 where
/// nobody did (a timer, the data path).
struct originator {
    std::uint32_t port_id = 0;
    std::uint32_t sequence = 0;
};

/// References in events are valid during the call that delivers them.
struct sa_added {
    const sa& what;
    originator by;
};
struct sa_updated {
    const sa& what;
    originator by;
};
struct sa_deleted {
    const sa& what;
    originator by;
};
struct sa_flushed {
    std::uint8_t protocol; ///< 0 or 255: all
    originator by;
};
struct sa_expired {
    const sa& what;
    bool hard;
    originator by;
};
/// XFRM_MSG_ACQUIRE: a packet falls under a policy whose template no SA satisfies.
struct acquire {
    const sa& larval;   ///< for this flow; its `seq` is to come back with the SA
    const policy& what; ///< that protects it
    const template_& wanted;
};
/// XFRM_MSG_MAPPING: an authentic packet came from elsewhere than the SA says.  Nothing has
/// changed.
struct sa_mapping {
    const sa& what;
    address source; ///< as of that packet
    wire::be16 port;
};
/// XFRM_MSG_NEWAE: the replay state of an SA has moved, or was given.
struct sa_moved {
    const sa& what; ///< with counters as of now
    enum class cause : std::uint8_t { asked, threshold, timer, given } why;
    originator by;
};
/// One SA's move in XFRM_MSG_MIGRATE (struct xfrm_user_migrate).
struct sa_move {
    address old_source, old_destination;
    address new_source, new_destination;
    std::uint8_t protocol = 50;
    mode run_mode = mode::tunnel;
    std::uint32_t reqid = 0;
};

/// What XFRM_MSG_MIGRATE asks for.
struct migration {
    policy_key selected;
    std::vector<sa_move> moves; ///< 1 to 6
    std::optional<udp_encapsulation> encap;
    /// The key manager's own addresses (XFRMA_KMADDRESS): carried to listeners alone.
    struct manager {
        address local, remote;
        std::uint32_t reserved = 0;
    };
    std::optional<manager> km;
};

/// An SA that goes by another name, or between other addresses, from now on.
struct relocated_sa {
    sa_id before;
    const sa& now;
};
/// XFRM_MSG_MIGRATE: what a policy protects goes between other addresses from now on.
struct policies_migrated {
    const migration& what;
    originator by;
    const policy* selected = nullptr; ///< as it is now
    std::span<const relocated_sa> sas = {};
};
/// XFRM_MSG_REPORT: a packet that a client should know of.
struct packet_reported {
    std::uint8_t protocol;
    const selector& sel;
    std::optional<address> care_of;
};
struct policy_added {
    const policy& what;
    originator by;
};
struct policy_updated {
    const policy& what;
    originator by;
};
struct policy_deleted {
    const policy& what;
    bool by_index;
    originator by;
};
struct policy_flushed {
    policy_type type;
    originator by;
};
struct policy_expired {
    const policy& what;
    bool hard;
    originator by;
};

/// XFRM_MSG_SETDEFAULT: as they are now.
struct defaults_changed {
    const default_actions& what;
};

using event =
    std::variant<sa_added, sa_updated, sa_deleted, sa_flushed, sa_expired, acquire, sa_mapping,
                 sa_moved, policies_migrated, packet_reported, policy_added, policy_updated,
                 policy_deleted, policy_flushed, policy_expired, defaults_changed>;

/// Receives events on the control thread.
class listener {
  public:
    virtual ~listener() = default;
    virtual void on_event(const event& e) = 0;
};

} // namespace esplane::ipsec
