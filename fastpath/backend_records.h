// SPDX-License-Identifier: Apache-2.0
//
// What the user-space backend keeps of an SA, of a policy, and of the SAs that a template takes.
//
// For backend.cc and backend_policies.cc alone.  Threads: control.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/succession.h"

namespace esplane::fastpath {

/// Errors: EPROTONOSUPPORT where a packet that keeps its header would change its family.
[[nodiscard]] result<void> check_transport(const ipsec::sa& s);

struct user_backend::sa_record {
    ipsec::sa described;
    std::uint64_t serial = 0;
    std::size_t at_endpoint = 0; ///< where it is among those of its endpoint
    std::shared_ptr<const crypto::key> key;
    std::shared_ptr<nonce_space> nonces;
    std::unique_ptr<sa_in> in;
    std::unique_ptr<sa_out> out;
    std::uint32_t path_mtu = no_path_limit;

    /// What was taken from a worker, until that one cannot see it any more.
    template <typename Sa>
    struct former {
        std::unique_ptr<Sa> sa;
        sa_counts handed_on; ///< counted by then
    };
    std::vector<former<sa_in>> former_in; ///< oldest first; mostly none
    std::vector<former<sa_out>> former_out;
    std::uint64_t work_known = 0; ///< as loads_of() last told
    sa_counts late;               ///< by those that are gone, unless they had handed it on
    std::shared_ptr<spread_out> spread_out_now; ///< while all workers carry it
    std::shared_ptr<spread_in> spread_in_now;
    std::vector<std::shared_ptr<spread_out>> former_spreads; ///< their shares have counted, too
    std::shared_ptr<const given_state> given; ///< the latest, which a worker may be taking over
    std::uint64_t goal_sent = no_goal;        ///< of a sa_out that is still to be made

    /// As they will be once its worker has taken over what was given.
    template <typename Sa>
    [[nodiscard]] static sa_counts counts_as_given(const Sa& sa) {
        const given_state* const waits = sa.limits.given.load(std::memory_order_acquire);
        sa_counts c = counts_of(sa);
        if (waits == nullptr || !waits->counters) return c;
        c.packets = waits->packets;
        c.bytes = waits->bytes;
        return c;
    }
    [[nodiscard]] sa_counts counts() const {
        sa_counts sum = late;
        if (in) sum += counts_as_given(*in);
        if (out) sum += counts_as_given(*out);
        if (!in && !out) { // no worker has it yet
            sum.packets += described.current.packets;
            sum.bytes += described.current.bytes;
        }
        return sum += counts_of_others();
    }
    /// By what may still count, beside `in` and `out`.
    [[nodiscard]] sa_counts counts_of_others() const {
        sa_counts sum;
        for (const auto& f : former_in)
            (sum += counts_of(*f.sa)) -= f.handed_on;
        for (const auto& f : former_out)
            (sum += counts_of(*f.sa)) -= f.handed_on;
        if (spread_out_now) add_shares(sum, *spread_out_now);
        for (const auto& all : former_spreads)
            add_shares(sum, *all);
        return sum;
    }
    /// `in` and `out` each count on from there, and so do all objects together.
    void count_from(const ipsec::lifetime_current& c) {
        const sa_counts others = counts_of_others();
        const std::uint64_t twice = in && out ? 1 : 0;
        late.packets = 0 - others.packets - twice * c.packets;
        late.bytes = 0 - others.bytes - twice * c.bytes;
    }
    static void add_shares(sa_counts& sum, const spread_out& all) {
        for (const auto& share : all.shares)
            sum += counts_of(*share);
    }
    template <typename Sa>
    void bury_oldest(std::vector<former<Sa>>& formers) {
        (late += counts_of(*formers.front().sa)) -= formers.front().handed_on;
        formers.erase(formers.begin());
    }
    /// From here on its numbers are nobody's who finds them (lasting.h).
    void end_force() {
        const auto end = [](auto& sa) { sa.in_force.store(false, std::memory_order_release); };
        if (in) end(*in);
        if (out) end(*out);
        for (const auto& f : former_in)
            end(*f.sa);
        for (const auto& f : former_out)
            end(*f.sa);
        const auto end_shares = [&](const spread_out& all) {
            for (const auto& share : all.shares)
                end(*share);
        };
        if (spread_out_now) end_shares(*spread_out_now);
        for (const auto& all : former_spreads)
            end_shares(*all);
    }
    /// Those that nobody else keeps any more: their last packet has come through.
    void bury_spreads() {
        std::erase_if(former_spreads, [this](const std::shared_ptr<spread_out>& all) {
            if (all.use_count() != 1) return false;
            add_shares(late, *all);
            return true;
        });
    }

    [[nodiscard]] endpoint where() const { return {described.id.destination, described.reqid}; }
};

struct user_backend::group_record {
    sa_group run;
    ipsec::template_ wanted;
    policy_scope scope;                              ///< the policy's
    std::optional<ipsec::security_context> security; ///< the policy's
    std::vector<sa_out*> all;                        ///< what run.all points to; ends with nullptr
    unsigned users = 0;
    bool cpu_acquire = false;                  ///< the policy's
    std::shared_ptr<const sa_choices> choices; ///< what run.choices points to
    group_record* next = nullptr;              ///< of the same endpoint

    /// Of a template in transport mode: its SAs to each destination, a group of their own.
    struct peer_set {
        explicit peer_set(retired& graveyard)
            : run(graveyard) {}
        lookup_table<peer_group> run;
        std::map<ipsec::address, std::shared_ptr<peer_record>> by_destination;
    };
    std::unique_ptr<peer_set> peers; ///< what run.peers points to

    [[nodiscard]] bool is_for_the_same(const group_record& other) const {
        return wanted == other.wanted && scope == other.scope && security == other.security &&
               cpu_acquire == other.cpu_acquire;
    }
    [[nodiscard]] bool is_transport() const { return wanted.run_mode == ipsec::mode::transport; }
    /// Where it is in user_backend::groups_.  Packets in transport mode bring their destination.
    [[nodiscard]] endpoint where() const {
        return {is_transport() ? ipsec::address() : wanted.id.destination, wanted.reqid};
    }
    /// xfrm_state_find: which SAs a template takes.
    [[nodiscard]] bool takes(const ipsec::sa& s) const {
        return s.dir != ipsec::direction::in && s.run_mode == wanted.run_mode &&
               s.id.protocol == wanted.id.protocol && s.reqid == wanted.reqid &&
               s.if_id == scope.if_id && s.security == security &&
               s.id.mark.matches(scope.mark.value & scope.mark.mask) &&
               s.id.destination == wanted.id.destination &&
               (wanted.source.is_any() || s.source == wanted.source) &&
               (wanted.id.spi == wire::be32() || s.id.spi == wanted.id.spi) &&
               (s.flags & ipsec::sa_flag::wildcard_receive) == 0 &&
               (!is_transport() || may_carry(s));
    }
    /// Whether the selector of an SA in transport mode covers its own two ends.
    [[nodiscard]] static bool may_carry(const ipsec::sa& s) {
        return ipsec::prefix_equal(s.sel.destination.bytes.data(), s.id.destination.bytes.data(),
                                   s.sel.destination_prefix) &&
               (s.source.is_any() ||
                ipsec::prefix_equal(s.sel.source.bytes.data(), s.source.bytes.data(),
                                    s.sel.source_prefix));
    }
};

struct user_backend::peer_record {
    peer_group entry;
    group_record group; ///< its template names the destination, and no source
};

struct user_backend::policy_record {
    explicit policy_record(const ipsec::policy& p)
        : scope{p.if_id, p.mark, p.type}
        , dir(p.dir) {}
    virtual ~policy_record() = default;
    policy_record(const policy_record&) = delete;
    policy_record& operator=(const policy_record&) = delete;

    [[nodiscard]] virtual policy_entry& run() noexcept = 0;
    virtual void enter(tables& into, const ipsec::selector& s) = 0;
    virtual void leave(tables& from) = 0;

    policy_scope scope;
    ipsec::policy_direction dir;
    std::uint32_t index = 0;
    group_record* group = nullptr;
};

template <std::size_t Words>
struct user_backend::keyed_record final : policy_record {
    using policy_record::policy_record;

    [[nodiscard]] policy_entry& run() noexcept override { return entry.run; }
    void enter(tables& into, const ipsec::selector& s) override {
        into.insert(&entry, dir, scope, s);
    }
    void leave(tables& from) override { from.erase(&entry, dir, scope); }

    keyed_policy<Words> entry;
};

} // namespace esplane::fastpath
