// SPDX-License-Identifier: Apache-2.0
//
// What the user-space backend keeps of an SA, of a policy, and of the SAs that a template takes.
//
// For backend.cc and backend_policies.cc alone.  Threads: control.
#pragma once

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/succession.h"
#include "lib/base/slab.h"
#include "lib/ipsec/packed_sa.h"

namespace esplane::fastpath {

/// Errors: EPROTONOSUPPORT where a packet that keeps its header would change its family.
[[nodiscard]] result<void> check_transport(const ipsec::sa& s);

/// What few SAs have, or few have for long.
struct user_backend::sa_seldom {
    /// What was taken from a worker, until that one cannot see it any more.
    template <typename Sa>
    struct former {
        std::unique_ptr<Sa> sa;
        sa_counts handed_on; ///< counted by then
    };
    std::vector<former<sa_in>> former_in; ///< oldest first
    std::vector<former<sa_out>> former_out;
    sa_counts late; ///< by those that are gone, unless they had handed it on
    std::shared_ptr<spread_out> spread_out_now; ///< while all workers carry it
    std::shared_ptr<spread_in> spread_in_now;
    std::vector<std::shared_ptr<spread_out>> former_spreads; ///< their shares have counted, too
    std::shared_ptr<const given_state> given; ///< the latest, which a worker may be taking over
    std::uint64_t goal_sent = no_goal;        ///< of a sa_out that is still to be made

    [[nodiscard]] bool is_spread() const noexcept { return spread_out_now || spread_in_now; }
};

struct user_backend::sa_record {
    ipsec::sa_id id;
    std::uint32_t reqid = 0;
    std::uint32_t path_mtu = no_path_limit;
    bool transport = false;
    bool of_cpu = false; ///< for the traffic of one CPU alone
    std::uint64_t serial = 0;
    std::uint64_t work_known = 0; ///< as loads_of() last told
    /// Control's own, until one of the two changes its own: from then on without keys, which the
    /// schedule has.
    ipsec::packed_sa described;
    std::shared_ptr<const crypto::key> key;
    nonce_lease nonces;
    std::unique_ptr<sa_in> in;
    std::unique_ptr<sa_out> out;
    // Those of one endpoint, in a ring.
    sa_record* next_there = nullptr;
    sa_record* previous_there = nullptr;

    /// Without keys.
    [[nodiscard]] ipsec::sa describe() const { return described.unpack_without_keys(id); }
    /// Changes all of its description but the id.
    void keep(const ipsec::sa& s) { share(s, ipsec::packed_sa::without_keys(s)); }
    /// The same; `packed` is somebody else's, too.
    void share(const ipsec::sa& s, const ipsec::packed_sa& packed) {
        described = packed;
        reqid = s.reqid;
        transport = s.run_mode == ipsec::mode::transport;
        of_cpu = s.pcpu && s.dir == ipsec::direction::out;
    }

    [[nodiscard]] const sa_seldom& seldom() const {
        static const sa_seldom none;
        return seldom_ ? *seldom_ : none;
    }
    [[nodiscard]] sa_seldom& own_seldom() {
        if (!seldom_) seldom_ = std::make_unique<sa_seldom>();
        return *seldom_;
    }

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
        sa_counts sum = seldom().late;
        if (in) sum += counts_as_given(*in);
        if (out) sum += counts_as_given(*out);
        if (!in && !out) { // no worker has it yet
            const ipsec::lifetime_current current = describe().current;
            sum.packets += current.packets;
            sum.bytes += current.bytes;
        }
        return sum += counts_of_others();
    }
    /// By what may still count, beside `in` and `out`.
    [[nodiscard]] sa_counts counts_of_others() const {
        sa_counts sum;
        if (!seldom_) return sum;
        for (const auto& f : seldom_->former_in)
            (sum += counts_of(*f.sa)) -= f.handed_on;
        for (const auto& f : seldom_->former_out)
            (sum += counts_of(*f.sa)) -= f.handed_on;
        if (seldom_->spread_out_now) add_shares(sum, *seldom_->spread_out_now);
        for (const auto& all : seldom_->former_spreads)
            add_shares(sum, *all);
        return sum;
    }
    /// `in` and `out` each count on from there, and so do all objects together.
    void count_from(const ipsec::lifetime_current& c) {
        const sa_counts others = counts_of_others();
        const std::uint64_t twice = in && out ? 1 : 0;
        own_seldom().late.packets = 0 - others.packets - twice * c.packets;
        own_seldom().late.bytes = 0 - others.bytes - twice * c.bytes;
    }
    static void add_shares(sa_counts& sum, const spread_out& all) {
        for (const auto& share : all.shares)
            sum += counts_of(*share);
    }
    template <typename Sa>
    void bury_oldest(std::vector<sa_seldom::former<Sa>>& formers) {
        (own_seldom().late += counts_of(*formers.front().sa)) -= formers.front().handed_on;
        formers.erase(formers.begin());
    }
    /// From here on its numbers are nobody's who finds them (lasting.h).
    void end_force() {
        const auto end = [](auto& sa) { sa.in_force.store(false, std::memory_order_release); };
        if (in) end(*in);
        if (out) end(*out);
        if (!seldom_) return;
        for (const auto& f : seldom_->former_in)
            end(*f.sa);
        for (const auto& f : seldom_->former_out)
            end(*f.sa);
        const auto end_shares = [&](const spread_out& all) {
            for (const auto& share : all.shares)
                end(*share);
        };
        if (seldom_->spread_out_now) end_shares(*seldom_->spread_out_now);
        for (const auto& all : seldom_->former_spreads)
            end_shares(*all);
    }
    /// Those that nobody else keeps any more: their last packet has come through.
    void bury_spreads() {
        if (!seldom_) return;
        std::erase_if(seldom_->former_spreads, [this](const std::shared_ptr<spread_out>& all) {
            if (all.use_count() != 1) return false;
            add_shares(seldom_->late, *all);
            return true;
        });
    }

    [[nodiscard]] endpoint where() const { return {id.destination, reqid}; }

  private:
    std::unique_ptr<sa_seldom> seldom_;
};

inline std::uint32_t user_backend::by_id::operator()(const sa_record& r) const noexcept {
    return (*this)(r.id);
}
inline std::uint32_t user_backend::by_endpoint::operator()(const sa_record& r) const noexcept {
    return endpoint_hash{}(r.where());
}

/// An SA that a template takes; less is better.
struct user_backend::candidate {
    bool dying;
    std::uint64_t add_time;
    std::uint64_t serial;
    sa_record* sa;
    std::optional<std::uint32_t> cpu;

    friend bool operator<(const candidate& a, const candidate& b) noexcept {
        return std::tuple(a.dying, b.add_time, b.serial) <
               std::tuple(b.dying, a.add_time, a.serial);
    }
};

/// SAs, best first, as workers read them: an array that ends with nullptr.
///
///   few    [ SA ][ null ]                        while there were never two at a time
///   many   [ room ][ room ][ SA ][ SA ][ null ]
///                          ^ first               ^ end
class sa_ranking {
  public:
    using array = std::unique_ptr<sa_out*[]>;

    [[nodiscard]] sa_out* const* begin() const noexcept { return slots() + first_; }
    [[nodiscard]] std::span<sa_out* const> all() const noexcept { return {begin(), end_ - first_}; }
    /// Returns what was outgrown, which workers may still read; nullptr where nothing was.
    [[nodiscard]] array put_first(sa_out* sa) {
        array outgrown;
        if (first_ == 0) outgrown = replace(all(), end_ + 1);
        slots()[--first_] = sa;
        return outgrown;
    }
    void take_first() noexcept { ++first_; }
    /// Others in the place of all.  Returns as put_first().
    [[nodiscard]] array assign(std::span<sa_out* const> sas) {
        const bool untouched = !many_ && few_.front() == nullptr;
        if (untouched && sas.size() <= 1) return sas.empty() ? nullptr : put_first(sas.front());
        return replace(sas, 0);
    }

  private:
    [[nodiscard]] sa_out* const* slots() const noexcept {
        return many_ ? many_.get() : few_.data();
    }
    [[nodiscard]] sa_out** slots() noexcept { return many_ ? many_.get() : few_.data(); }
    /// room   for more in front
    array replace(std::span<sa_out* const> sas, std::size_t room) {
        auto wider = std::make_unique<sa_out*[]>(room + sas.size() + 1);
        std::ranges::copy(sas, wider.get() + room);
        first_ = static_cast<std::uint32_t>(room);
        end_ = static_cast<std::uint32_t>(room + sas.size());
        return std::exchange(many_, std::move(wider));
    }

    std::array<sa_out*, 2> few_{};
    array many_;
    std::uint32_t first_ = 1;
    std::uint32_t end_ = 1;
};

/// Of a template, what says which SAs it takes.
struct wanted_sa {
    ipsec::address destination;
    ipsec::address source; ///< any = not looked at
    wire::be32 spi;        ///< 0 = any
    std::uint8_t protocol = 0;
    ipsec::mode run_mode = ipsec::mode::tunnel;
    std::uint32_t reqid = 0;

    [[nodiscard]] static wanted_sa of(const ipsec::template_& t) {
        return {t.id.destination, t.source, t.id.spi, t.id.protocol, t.run_mode, t.reqid};
    }
    friend bool operator==(const wanted_sa&, const wanted_sa&) = default;
};

struct user_backend::group_record {
    /// Of a template in transport mode: its SAs to each destination, a group of their own.
    struct peer_set {
        explicit peer_set(retired& graveyard)
            : run(graveyard) {}
        lookup_table<peer_group> run;
        std::map<ipsec::address, std::shared_ptr<peer_record>> by_destination;
    };
    /// What few have.
    struct seldom {
        std::optional<ipsec::security_context> security; ///< the policy's
        std::shared_ptr<const sa_choices> choices;       ///< what run.choices points to
        std::unique_ptr<peer_set> peers;                 ///< what run.peers points to
    };

    sa_group run;
    wanted_sa wanted;
    std::uint32_t users : 31 = 0;      ///< policies with such a template
    std::uint32_t cpu_acquire : 1 = 0; ///< the policy's
    policy_scope scope;                ///< the policy's
    sa_ranking sas;                    ///< what run.all points into
    std::uint64_t newest_add_time = 0; ///< none of those that are not dying is newer
    group_record* next = nullptr;      ///< of the same endpoint

    [[nodiscard]] bool is_published() const noexcept {
        return run.all.load(std::memory_order_relaxed) != nullptr;
    }
    [[nodiscard]] bool has(const sa_out* sa) const {
        return std::ranges::find(sas.all(), sa) != sas.all().end();
    }
    [[nodiscard]] const std::optional<ipsec::security_context>& security() const {
        static const std::optional<ipsec::security_context> none;
        return seldom_ ? seldom_->security : none;
    }
    void set_security(const std::optional<ipsec::security_context>& s) {
        if (s) own_seldom().security = s;
    }
    [[nodiscard]] const sa_choices* choices() const noexcept {
        return seldom_ ? seldom_->choices.get() : nullptr;
    }
    /// Returns what was there.
    std::shared_ptr<const sa_choices> set_choices(std::shared_ptr<const sa_choices> c) {
        if (!c && !seldom_) return nullptr;
        return std::exchange(own_seldom().choices, std::move(c));
    }
    /// Of one in transport mode that is no peer's.
    [[nodiscard]] peer_set& peers() const { return *seldom_->peers; }
    void set_peers(std::unique_ptr<peer_set> p) {
        run.peers = &p->run;
        own_seldom().peers = std::move(p);
    }
    [[nodiscard]] bool is_for_the_same(const group_record& other) const {
        return wanted == other.wanted && scope == other.scope && security() == other.security() &&
               cpu_acquire == other.cpu_acquire;
    }
    [[nodiscard]] bool is_transport() const { return wanted.run_mode == ipsec::mode::transport; }
    /// Where it is in user_backend::groups_.  Packets in transport mode bring their destination.
    [[nodiscard]] endpoint where() const {
        return {is_transport() ? ipsec::address() : wanted.destination, wanted.reqid};
    }
    /// xfrm_state_find: which SAs a template takes.
    [[nodiscard]] bool takes(const ipsec::sa& s) const {
        return s.dir != ipsec::direction::in && s.run_mode == wanted.run_mode &&
               s.id.protocol == wanted.protocol && s.reqid == wanted.reqid &&
               s.if_id == scope.if_id && s.security == security() &&
               s.id.mark.matches(scope.mark.value & scope.mark.mask) &&
               s.id.destination == wanted.destination &&
               (wanted.source.is_any() || s.source == wanted.source) &&
               (wanted.spi == wire::be32() || s.id.spi == wanted.spi) &&
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

  private:
    [[nodiscard]] seldom& own_seldom() {
        if (!seldom_) seldom_ = std::make_unique<seldom>();
        return *seldom_;
    }
    std::unique_ptr<seldom> seldom_;
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
    bool is_in = false; ///< workers find it
    std::uint32_t index = 0;
    group_record* group = nullptr;
    /// What it took the place of, and outranks: they may be in still, see user_backend::succeed().
    std::vector<std::weak_ptr<policy_record>> former;
};

template <std::size_t Words>
struct user_backend::keyed_record final : policy_record, on_slab<keyed_record<Words>> {
    using policy_record::policy_record;

    [[nodiscard]] policy_entry& run() noexcept override { return entry.run; }
    void enter(tables& into, const ipsec::selector& s) override {
        into.insert(&entry, dir, scope, s);
    }
    void leave(tables& from) override { from.erase(&entry, dir, scope); }

    keyed_policy<Words> entry;
};

} // namespace esplane::fastpath
