// SPDX-License-Identifier: Apache-2.0
//
// How long packets to peers may be, and what follows from it: RFC 4301 section 8.2.
//
//   router ── ICMP too big, quotes our ESP ──► worker ──► heard() ──┐
//   kernel ── what its sockets have learnt ─────────────► learnt() ─┼─► limit of the peer, 600 s
//   route to the peer, its device ──────────────────────────────────┘        │
//                 ┌──────────────────────────────────────────────────────────┤
//                 ▼                            ▼                              ▼
//   SAs: ICMP to who sends more     MTU of routes (mtu_for)     MTU of the machine's port
//
// A limit belongs to a peer's address, so that the SA that follows a rekey starts with it.  ICMP is
// not authenticated: it is believed where it names an SA that is there, by SPI and both addresses,
// and never below what every link takes, so that a forger costs a little throughput for a while.
//
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>

#include "lib/ipsec/event.h"
#include "lib/ipsec/overhead.h"

namespace esplane::tools {

struct path_surroundings {
    /// What the route to a peer takes, bytes from the IP header on; 0: there is none.
    std::function<std::uint32_t(const ipsec::address& peer)> route_mtu;
    /// Tells the data path what ESP of an SA may be as long as; nullopt: as the route says.
    std::function<void(const ipsec::sa_id&, std::optional<std::uint32_t> mtu)> limit_sa;
};

class path_limits final : public ipsec::listener {
  public:
    static constexpr std::uint64_t age_ns = 600'000'000'000; ///< as the kernel's mtu_expires
    static constexpr std::uint32_t least_v4 = 576;
    static constexpr std::uint32_t least_v6 = 1280;
    static constexpr std::size_t most = 65536; ///< peers with limits

    explicit path_limits(path_surroundings around)
        : around_(std::move(around)) {}

    void on_event(const ipsec::event& e) override;

    /// A router's word about ESP that `source` has sent under an SA.
    void heard(const ipsec::sa_id& id, const ipsec::address& source, std::uint32_t mtu,
               std::uint64_t now_ns);
    /// What the kernel knows of the way to a peer.
    void learnt(const ipsec::address& peer, std::uint32_t mtu, std::uint64_t now_ns);
    /// Links or routes are others.
    void network_changed() noexcept { changed_ = true; }

    /// Forgets what is too old.  Returns whether the MTU of an `out` policy is another than at the
    /// last call, or one that had an MTU is gone.
    [[nodiscard]] bool tend(std::uint64_t now_ns);

    /// The largest packet that goes through the SAs which a policy's template takes; 0: there are
    /// none, or it has no template.
    [[nodiscard]] std::uint32_t mtu_for(const ipsec::policy& p) const;
    /// The largest packet that goes through the SA of any `out` policy of no interface.
    [[nodiscard]] std::optional<std::uint32_t> smallest_mtu() const;

  private:
    /// What a template and its SAs have in common.
    struct endpoint {
        ipsec::address peer;
        std::uint32_t reqid = 0;
        friend auto operator<=>(const endpoint&, const endpoint&) = default;
    };
    /// What an `out` policy needs.
    struct need {
        endpoint of;
        bool by_interface = false; ///< not by the machine's port
        friend auto operator<=>(const need&, const need&) = default;
    };
    struct user {
        unsigned policies = 0;
        std::optional<std::uint32_t> mtu; ///< as last told
    };
    struct known_sa {
        ipsec::address source;
        std::uint32_t reqid = 0;
        ipsec::overhead costs;
    };
    struct limit {
        std::uint32_t mtu = 0;
        std::uint64_t until_ns = 0;
    };

    struct known_policy {
        need needs;
        ipsec::policy_type type = ipsec::policy_type::main;
    };

    [[nodiscard]] static std::optional<endpoint> endpoint_of(const ipsec::policy& p);
    void take(const ipsec::sa& s);
    void take(const ipsec::policy& p);
    void forget(const ipsec::sa_id& id);
    void forget_policy(std::uint32_t index);
    void forget_policies(ipsec::policy_type type);
    void set(const ipsec::address& peer, std::uint32_t mtu, std::uint64_t now_ns);
    void tell_sas(const ipsec::address& peer) const;
    [[nodiscard]] std::optional<std::uint32_t> limit_of(const ipsec::address& peer) const;
    [[nodiscard]] std::uint32_t path_to(const ipsec::address& peer) const;
    [[nodiscard]] std::optional<std::uint32_t> smallest_mtu(const endpoint& e) const;

    path_surroundings around_;
    std::map<ipsec::sa_id, known_sa> sas_;                          ///< by peer first
    std::map<endpoint, std::map<ipsec::overhead, unsigned>> costs_; ///< of SAs, and how many
    std::map<std::uint32_t, known_policy> policies_;                ///< `out`, by index
    std::map<need, user> needs_;
    std::map<ipsec::address, limit> limits_;
    bool changed_ = false;
    bool lost_need_ = false; ///< a policy went: the smallest MTU of those left may be another
};

} // namespace esplane::tools
