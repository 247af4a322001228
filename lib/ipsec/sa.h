// SPDX-License-Identifier: Apache-2.0
//
// A security association as control describes it: everything a client gave or may ask back.
//
// As run it is a fastpath::sa_in or sa_out; this struct is never touched by a worker.
// ESP, in tunnel or transport mode.  What the struct has no field for, fronts refuse by name.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <vector>

#include "lib/ipsec/address.h"
#include "lib/ipsec/algorithm.h"
#include "lib/ipsec/lifetime.h"
#include "lib/ipsec/mark.h"
#include "lib/ipsec/selector.h"

namespace esplane::ipsec {

enum class mode : std::uint8_t { transport = 0, tunnel = 1 };
enum class direction : std::uint8_t { unknown, in, out };

/// What names an SA: RFC 4301 section 4.1, XFRM's (daddr, spi, proto, mark).  The family is
/// daddr's.
struct sa_id {
    address destination;
    wire::be32 spi;
    std::uint8_t protocol = 50;
    mark_mask mark = {}; ///< of the packets that are looked up in it

    friend bool operator==(const sa_id&, const sa_id&) = default;
    friend auto operator<=>(const sa_id&, const sa_id&) = default;
};

/// XFRM_STATE_* flags as bits of their kernel values.
namespace sa_flag {
inline constexpr std::uint8_t no_ecn = 1;
inline constexpr std::uint8_t decap_dscp = 2;
inline constexpr std::uint8_t no_pmtu_discovery = 4;
inline constexpr std::uint8_t wildcard_receive = 8;
inline constexpr std::uint8_t icmp = 16;
inline constexpr std::uint8_t any_inner_family = 32; ///< AF_UNSPEC
inline constexpr std::uint8_t align4 = 64;
inline constexpr std::uint8_t esn = 128;
} // namespace sa_flag
namespace sa_extra_flag {
inline constexpr std::uint32_t dont_encap_dscp = 1;
inline constexpr std::uint32_t oseq_may_wrap = 2;
} // namespace sa_extra_flag

/// UDP encapsulation: RFC 3948, the only type so far.
struct udp_encapsulation {
    wire::be16 source_port;
    wire::be16 destination_port;
    address original; ///< XFRMA_ENCAP's encap_oa: carried only

    friend bool operator==(const udp_encapsulation&, const udp_encapsulation&) = default;
};

/// A security label (XFRMA_SEC_CTX): carried and compared as it is, never understood.
struct security_context {
    std::uint8_t domain = 0;    ///< XFRM_SC_DOI_*
    std::uint8_t algorithm = 0; ///< XFRM_SC_ALG_*
    std::vector<std::uint8_t> label;

    friend bool operator==(const security_context&, const security_context&) = default;
};

/// Sequence numbers and window, in full 64 bits whether or not ESN is on.
struct replay_state {
    std::uint64_t sent = 0;     ///< last sequence number sent (oseq)
    std::uint64_t received = 0; ///< highest authenticated number received
    /// Bit i says that (received - i) was seen.  Little-endian words; window / 32 of them are
    /// significant, as in XFRMA_REPLAY_ESN_VAL.
    std::vector<std::uint32_t> bitmap;

    friend bool operator==(const replay_state&, const replay_state&) = default;
};

/// xfrm_stats: what the SA counted that is not traffic.
struct sa_statistics {
    std::uint32_t replay_window = 0; ///< too old
    std::uint32_t replay = 0;        ///< seen before
    std::uint32_t integrity_failed = 0;
};

enum class sa_state : std::uint8_t { larval, valid, expired };

struct sa {
    sa_id id;
    address source;
    selector sel;
    mode run_mode = mode::tunnel;
    std::uint32_t reqid = 0;
    std::uint32_t if_id = 0; ///< of the interface whose traffic it carries; 0 = of none
    std::uint32_t seq = 0;   ///< of the ACQUIRE it answers
    mark_mask output_mark;   ///< put on what leaves it: XFRMA_SET_MARK
    std::uint8_t flags = 0;
    std::uint32_t extra_flags = 0;
    direction dir = direction::unknown;
    sa_state state = sa_state::valid;
    bool dying = false; ///< a soft limit has passed

    algorithms algs;
    std::optional<udp_encapsulation> encap;
    /// Seconds between two reports of one new mapping of the peer's (XFRMA_MTIMER_THRESH); 0: 1.
    std::uint32_t mapping_threshold = 0;
    /// Seconds without a packet after which the peer's NAT is sent one; 0: never.
    std::uint32_t nat_keepalive = 0;
    std::optional<address> care_of; ///< XFRMA_SRCADDR/COADDR as given; carried only
    std::optional<security_context> security;
    /// The CPU whose traffic it carries (RFC 9611), from 0; nullopt: that of all.
    std::optional<std::uint32_t> pcpu;
    std::uint32_t tfc_pad = 0; ///< bytes a packet is padded to (RFC 4303 section 2.7); carried only

    std::uint32_t replay_window = 0; ///< packets; 0 = no anti-replay
    bool replay_esn_form = false;    ///< client used XFRMA_REPLAY_ESN_VAL: dumps show that form
    replay_state replay;
    /// Sequence numbers after which listeners hear of the replay state (XFRMA_REPLAY_THRESH); 0:
    /// they do not.
    std::uint32_t replay_threshold = 0;
    /// Tenths of a second after which they hear of one that has moved (XFRMA_ETIMER_THRESH); 0:
    /// they do not.
    std::uint32_t replay_timer = 0;

    lifetime_limits limits;
    lifetime_current current;
    std::uint64_t last_used = 0; ///< CLOCK_REALTIME seconds; 0 = never
    sa_statistics statistics;

    [[nodiscard]] bool esn() const noexcept { return (flags & sa_flag::esn) != 0; }
    [[nodiscard]] sa clone() const;
};

/// The largest anti-replay window, in packets.
inline constexpr std::uint32_t max_replay_window = 4096;

} // namespace esplane::ipsec
