// SPDX-License-Identifier: Apache-2.0
#include "fastpath/classify.h"

#include <algorithm>
#include <utility>

#include "fastpath/next_hop.h"
#include "fastpath/outbound.h"
#include "fastpath/parse.h"
#include "fastpath/port.h"
#include "fastpath/stage.h"
#include "fastpath/trap.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;
using ipsec::policy_direction;

template <std::size_t Words>
flow_key<Words> key_of(const packet& p) noexcept {
    const std::uint64_t upper = upper_word(p.source_port, p.destination_port, p.protocol);
    if constexpr (Words == v4_words)
        return key_of_parts<v4_words>(reinterpret_cast<const std::uint8_t*>(&p.ipv4().source),
                                      reinterpret_cast<const std::uint8_t*>(&p.ipv4().destination),
                                      upper);
    else
        return key_of_parts<v6_words>(p.ipv6().source.data(), p.ipv6().destination.data(), upper);
}

/// xfrm_state_ok: the SA a packet came out of against what the policy asks for.  Whom a packet in
/// transport mode comes from its own header says, which the policy's selector has been held
/// against.
[[gnu::always_inline]] inline bool satisfies(const sa_in& sa, const sa_requirement& t) noexcept {
    return t.protocol == wire::proto_esp && t.run_mode == sa.run_mode &&
           (t.spi == wire::be32() || t.spi == sa.spi) && (t.reqid == 0 || t.reqid == sa.reqid) &&
           (t.source == sa.source || t.source.is_any() || sa.run_mode == ipsec::mode::transport);
}

template <std::size_t Words>
const policy_table<Words>& table_of(const tables::spd& spd) noexcept {
    if constexpr (Words == v4_words)
        return spd.v4;
    else
        return spd.v6;
}

/// What the SA that it came out of has put on it, else what the machine had when it sent it here.
std::uint32_t mark_of(const stage& s, const packet& p) noexcept {
    if (p.inbound_sa != nullptr) return p.inbound_sa->inner_mark.load(std::memory_order_relaxed);
    return s.ports.empty() ? 0 : s.ports[p.port]->mark().put_on(0);
}

/// The best of the policies for packets with this one's mark, and of `best`.
template <std::size_t Words>
const policy_entry* find_marked(const stage& s, const packet& p, policy_direction d,
                                std::uint32_t if_id, ipsec::policy_type type,
                                const flow_key<Words>& key, const policy_entry* best) noexcept {
    const std::uint32_t mark = mark_of(s, p);
    for (const std::uint32_t mask : s.shared.mark_masks()) {
        const tables::spd* const spd = s.shared.policies(d, {if_id, {mark & mask, mask}, type});
        const policy_entry* const found =
            spd == nullptr ? nullptr : table_of<Words>(*spd).find(key);
        if (found != nullptr && (best == nullptr || precedes(*found, *best))) best = found;
    }
    return best;
}

/// The best of one type, marks and all.
template <std::size_t Words>
const policy_entry* find_typed(const stage& s, const packet& p, policy_direction d,
                               std::uint32_t if_id, ipsec::policy_type type,
                               const flow_key<Words>& key) noexcept {
    const policy_scope scope{if_id, {}, type};
    const tables::spd* const spd =
        scope.all() ? &s.shared.policies(d) : s.shared.policies(d, scope);
    const policy_entry* const found = spd == nullptr ? nullptr : table_of<Words>(*spd).find(key);
    return find_marked(s, p, d, if_id, type, key, found);
}

void note_use(const stage& s, const policy_entry* found) noexcept {
    if (found != nullptr && found->use_time.get() != s.now.realtime_s)
        const_cast<policy_entry*>(found)->use_time.set(s.now.realtime_s);
}

/// With policies that have a mark, and sub-policies: a sub-policy that allows a packet leaves the
/// rest to the main one beside it, if there is one (xfrm_expand_policies, __xfrm_policy_check; for
/// what passes through the kernel takes the main one of `in`).  Where both protect control has
/// refused one of them.
///
/// unmarked   the best of the main policies without a mark
template <std::size_t Words>
[[gnu::noinline]] const policy_entry*
find_among_all(const stage& s, const packet& p, policy_direction d, std::uint32_t if_id,
               const flow_key<Words>& key, const policy_entry* unmarked) noexcept {
    using ipsec::policy_type;
    const policy_entry* const sub =
        s.shared.has_subs() ? find_typed(s, p, d, if_id, policy_type::sub, key) : nullptr;
    if (sub == nullptr) return find_marked(s, p, d, if_id, policy_type::main, key, unmarked);
    if (sub->action == ipsec::policy_action::block) return sub;
    const policy_direction beside =
        d == policy_direction::out ? policy_direction::out : policy_direction::in;
    const policy_entry* const main = find_typed(s, p, beside, if_id, policy_type::main, key);
    if (main == nullptr) return sub;
    note_use(s, sub);
    note_use(s, main);
    return main->action == ipsec::policy_action::block || !sub->protects ? main : sub;
}

/// The policy for a packet, of those for the traffic of an interface or, 0, of none; noted as used.
///
/// found   what the main policies without a mark say
/// more    tables::has_more_policies()
template <std::size_t Words>
[[gnu::always_inline]] inline const policy_entry*
settle(const stage& s, const packet& p, policy_direction d, std::uint32_t if_id,
       const policy_entry* found, bool more) noexcept {
    if (more) [[unlikely]]
        found = find_among_all(s, p, d, if_id, key_of<Words>(p), found);
    note_use(s, found);
    return found;
}

template <std::size_t Words>
const policy_entry* look_up(const stage& s, const packet& p, policy_direction d,
                            std::uint32_t if_id) noexcept {
    const tables::spd* const spd =
        if_id == 0 ? &s.shared.policies(d) : s.shared.policies(d, {if_id, {}});
    const policy_entry* const found =
        spd == nullptr ? nullptr : table_of<Words>(*spd).find(key_of<Words>(p));
    return settle<Words>(s, p, d, if_id, found, s.shared.has_more_policies());
}

/// What is as good as in clear where no policy asks for more: secpath_has_nontransport.
[[gnu::always_inline]] inline bool came_by_no_tunnel(const packet& p) noexcept {
    return p.inbound_sa == nullptr || p.inbound_sa->run_mode == ipsec::mode::transport;
}

/// `in` and `fwd`: xfrm_policy_check.
[[gnu::always_inline]] inline drop_reason admit_inbound(const stage& s, const packet& p,
                                                        policy_direction d,
                                                        const policy_entry* policy) noexcept {
    if (policy == nullptr) {
        if (!came_by_no_tunnel(p)) return drop_reason::policy_missing;
        return s.shared.blocks_by_default(d) ? drop_reason::policy_default : drop_reason::none;
    }
    if (policy->action == ipsec::policy_action::block) return drop_reason::policy_block;
    if (!policy->protects) // a bypass admits nothing that came out of a tunnel
        return came_by_no_tunnel(p) ? drop_reason::none : drop_reason::policy_template;
    if (p.inbound_sa != nullptr && satisfies(*p.inbound_sa, policy->required))
        return drop_reason::none;
    return policy->optional && came_by_no_tunnel(p) ? drop_reason::none
                                                    : drop_reason::policy_template;
}

[[gnu::always_inline]] inline bool carries(const sa_out& sa, const packet& p) noexcept {
    if (sa.inner_family != family::unspecified && sa.inner_family != p.family) return false;
    return !sa.has_selector || sa.selector.matches(flow_of(p));
}

/// The SAs of a template in transport mode for a packet; nullptr where there are none.
const sa_group* peer_of(const lookup_table<peer_group>& peers, const packet& p) noexcept {
    const ipsec::address to = flow_of(p).destination;
    const peer_group* const found =
        peers.find(hash_of_peer(to.bytes.data(), to.fam),
                   [&](const peer_group& one) { return one.destination == to; });
    return found == nullptr ? nullptr : found->sas;
}

/// Where SAs are for the traffic of one CPU each.
sa_out* choose_for_worker(stage& s, const policy_entry& policy, const sa_choices& choices,
                          const packet& p) noexcept {
    const sa_choices::list& mine = choices.of(s.self);
    const auto found =
        std::ranges::find_if(mine.sas, [&](const sa_out* sa) { return carries(*sa, p); });
    if (found == mine.sas.end()) return nullptr;
    const bool is_own = static_cast<std::size_t>(found - mine.sas.begin()) < mine.own;
    if (policy.cpu_acquire && !is_own && s.seeker != nullptr) s.seeker->ask_for_own(s, p, policy);
    return *found;
}

/// The first that carries a packet which the best one does not; nullptr where none does.
[[gnu::noinline]] sa_out* choose_other(stage& s, const policy_entry& policy,
                                       const packet& p) noexcept {
    const sa_group& group = *policy.group;
    const sa_group* const of = group.peers == nullptr ? &group : peer_of(*group.peers, p);
    if (of == nullptr) return nullptr;
    if (const sa_choices* choices = of->choices.load(std::memory_order_acquire))
        return choose_for_worker(s, policy, *choices, p);
    sa_out* const* one = of->all.load(std::memory_order_acquire);
    while (*one != nullptr && !carries(**one, p))
        ++one;
    return *one;
}

/// The SA for an outbound packet; nullptr where none carries it.
[[gnu::always_inline]] inline sa_out* choose(stage& s, const policy_entry& policy,
                                             const packet& p) noexcept {
    sa_out* best = policy.group->best.load(std::memory_order_acquire);
    if (best != nullptr && carries(*best, p)) [[likely]]
        return best;
    return choose_other(s, policy, p);
}

bool names_interface(const sa_in* sa) noexcept {
    return sa != nullptr && sa->if_id.load(std::memory_order_relaxed) != 0;
}

/// `in` or `fwd` for what came out of an SA with an if_id: of its interface where that is there and
/// up (xfrmi_decode_session), else of none.  Apart, for the sake of all other traffic.
template <std::size_t Words>
[[gnu::noinline]] const policy_entry* look_up_inside(const stage& s, const packet& p,
                                                     policy_direction d) noexcept {
    if (s.every_interface)
        return look_up<Words>(s, p, d, p.inbound_sa->if_id.load(std::memory_order_relaxed));
    const interface& in = s.routes.interface(p.interface);
    return look_up<Words>(s, p, d, in.kind == interface_kind::tunnel && in.up ? in.if_id : 0);
}

bool is_clear(const policy_entry* out) noexcept {
    return out == nullptr || (out->action == ipsec::policy_action::allow && !out->protects);
}

/// `out` for a packet whose route leads into an interface.  What is not protected there does not
/// leave at all (xfrmi_xmit2); nullptr: it is dropped.
template <std::size_t Words>
[[gnu::noinline]] const policy_entry* enter_interface(stage& s, packet& p) noexcept {
    const policy_entry* out = look_up<Words>(s, p, policy_direction::out, p.next->if_id);
    if (is_clear(out)) {
        s.drop(p, drop_reason::interface_unprotected);
        return nullptr;
    }
    return check_size(s, p) ? out : nullptr;
}

policy_direction way_in_of(const packet& p) noexcept {
    return (p.flags & packet_flag::for_machine) != 0 ? policy_direction::in : policy_direction::fwd;
}

/// `in` or `fwd`.  False: no policy admits the packet; it is dropped.
///
/// found   what the main policies for all traffic say
/// more    tables::has_more_policies()
template <std::size_t Words>
[[gnu::always_inline]] inline bool admit_found(stage& s, packet& p, const policy_entry* found,
                                               bool more) noexcept {
    const policy_direction way_in = way_in_of(p);
    const policy_entry* const policy = names_interface(p.inbound_sa)
                                           ? look_up_inside<Words>(s, p, way_in)
                                           : settle<Words>(s, p, way_in, 0, found, more);
    const drop_reason why = admit_inbound(s, p, way_in, policy);
    if (why == drop_reason::none) return true;
    s.drop(p, why);
    return false;
}

[[gnu::cold, gnu::noinline]] void await_sa(stage& s, packet& p, const policy_entry& out) noexcept {
    if (s.seeker != nullptr)
        s.seeker->take(s, p, out);
    else
        s.drop(p, drop_reason::sa_missing);
}

/// xfrm_tmpl_resolve_one(): an optional template's SA is asked for, too, and nothing waits for it.
[[gnu::cold, gnu::noinline]] void ask_meanwhile(stage& s, const packet& p,
                                                const policy_entry& out) noexcept {
    constexpr std::uint64_t between_ns = 100'000'000;
    const std::uint64_t asked_ns = out.asked_ns.get();
    const bool just_asked = asked_ns != 0 && s.now.monotonic_ns - asked_ns < between_ns;
    if (s.shared.await_ns() == 0 || just_asked) return;
    if (ask_for_sa(s, p, cause_of(p, out)))
        const_cast<policy_entry&>(out).asked_ns.set(s.now.monotonic_ns);
}

template <std::size_t Words>
bool reads_ports(const tables::spd* spd) noexcept {
    if constexpr (Words == v4_words)
        return spd != nullptr && spd->v4.reads_ports();
    else
        return spd != nullptr && spd->v6.reads_ports();
}

/// A fragment shows no ports: where they decide, it may be of what is to be protected.  (The kernel
/// holds the machine's own packets against policies before it cuts them.)
template <std::size_t Words>
[[gnu::cold, gnu::noinline]] void let_out_fragment(stage& s, packet& p, verdicts& to) noexcept {
    bool hides = reads_ports<Words>(&s.shared.policies(policy_direction::out));
    for (const auto type : {ipsec::policy_type::main, ipsec::policy_type::sub}) {
        hides |= reads_ports<Words>(s.shared.policies(policy_direction::out, {0, {}, type}));
        for (const std::uint32_t mask : s.shared.mark_masks())
            hides |= reads_ports<Words>(
                s.shared.policies(policy_direction::out, {0, {mark_of(s, p) & mask, mask}, type}));
    }
    if (hides)
        s.drop(p, drop_reason::fragment);
    else
        to.bypass.push(p);
}

/// To leave in clear.  What came out of an SA in fragments goes on as the kernel forwards it.
template <std::size_t Words>
[[gnu::always_inline]] inline void let_out(stage& s, packet& p, verdicts& to) noexcept {
    constexpr unsigned cut_by_stack = packet_flag::fragment | packet_flag::from_stack;
    if ((p.flags & cut_by_stack) == cut_by_stack) [[unlikely]]
        let_out_fragment<Words>(s, p, to);
    else
        to.bypass.push(p);
}

/// `out`.
///
/// found   what the main policies for all traffic say
/// more    tables::has_more_policies()
template <std::size_t Words>
[[gnu::always_inline]] inline void direct_found(stage& s, packet& p, const policy_entry* found,
                                                bool more, verdicts& to) noexcept {
    const policy_entry* out = settle<Words>(s, p, policy_direction::out, 0, found, more);
    if (out == nullptr && s.shared.blocks_by_default(policy_direction::out)) [[unlikely]] {
        s.drop(p, drop_reason::policy_default_out);
        return;
    }
    if (is_clear(out)) {
        if (p.next->kind != adjacency_kind::tunnel) [[likely]] {
            let_out<Words>(s, p, to);
            return;
        }
        out = enter_interface<Words>(s, p);
        if (out == nullptr) return;
    }
    if (out->action == ipsec::policy_action::block) {
        s.counters.blocked_out.add(1);
        s.drop(p, drop_reason::policy_block);
        return;
    }
    sa_out* sa = choose(s, *out, p);
    if (sa == nullptr && out->optional && p.next->kind != adjacency_kind::tunnel) {
        ask_meanwhile(s, p, *out);
        let_out<Words>(s, p, to);
        return;
    }
    if (sa == nullptr) {
        await_sa(s, p, *out);
        return;
    }
    to.protect[to.protect_count++] = {&p, sa};
}

/// What the policies for all traffic say of a part of a burst, by the packets' places in it.
struct findings {
    std::array<const policy_entry*, max_burst> in; ///< `in` or `fwd`
    std::array<const policy_entry*, max_burst> out;
    bool more; ///< tables::has_more_policies()
};

/// The packets of one family that go one way, to be looked up together.
template <std::size_t Words>
class company {
  public:
    void add(const packet& p, unsigned place) noexcept {
        keys_[count_] = key_of<Words>(p);
        places_[count_++] = static_cast<std::uint8_t>(place);
    }
    void find(const tables::spd& spd,
              std::array<const policy_entry*, max_burst>& into) const noexcept {
        if (count_ == 0) return;
        const std::span keys = std::span(keys_).first(count_);
        if (places_[count_ - 1] == count_ - 1) [[likely]] { // from the first place on, all in order
            table_of<Words>(spd).find(keys, into.data());
            return;
        }
        std::array<const policy_entry*, max_burst> found;
        table_of<Words>(spd).find(keys, found.data());
        for (unsigned i = 0; i < count_; ++i)
            into[places_[i]] = found[i];
    }

  private:
    static_assert(max_burst <= policy_table<Words>::most_flows);
    unsigned count_ = 0;
    std::array<flow_key<Words>, max_burst> keys_;
    std::array<std::uint8_t, max_burst> places_;
};

template <std::size_t Words>
void find_both_ways(const stage& s, const company<Words>& ours, const company<Words>& through,
                    findings& f) noexcept {
    ours.find(s.shared.policies(policy_direction::in), f.in);
    through.find(s.shared.policies(policy_direction::fwd), f.in);
    through.find(s.shared.policies(policy_direction::out), f.out);
}

void find_for(const stage& s, std::span<packet* const> packets, findings& f) noexcept {
    company<v4_words> ours_v4, through_v4;
    company<v6_words> ours_v6, through_v6;
    for (unsigned i = 0; i < packets.size(); ++i) {
        const packet& p = *packets[i];
        const bool ours = (p.flags & packet_flag::for_machine) != 0;
        if (p.family == family::ipv4)
            (ours ? ours_v4 : through_v4).add(p, i);
        else
            (ours ? ours_v6 : through_v6).add(p, i);
    }
    find_both_ways(s, ours_v4, through_v4, f);
    find_both_ways(s, ours_v6, through_v6, f);
}

/// Fetches the SAs that packets passing through will probably take: what a policy leads to is two
/// lines away from it, and with many policies each of them is in no cache.
void fetch_sas(std::span<packet* const> packets, const findings& f) noexcept {
    std::array<const sa_group*, max_burst> groups;
    const sa_group* last = nullptr;
    unsigned count = 0;
    for (unsigned i = 0; i < packets.size(); ++i) {
        if ((packets[i]->flags & packet_flag::for_machine) != 0 || f.out[i] == nullptr) continue;
        const sa_group* const group = f.out[i]->group;
        if (group == nullptr || group == last) continue;
        __builtin_prefetch(group);
        groups[count++] = last = group;
    }
    for (unsigned i = 0; i < count; ++i)
        __builtin_prefetch(groups[i]->best.load(std::memory_order_acquire));
}

template <std::size_t Words>
void classify_one(stage& s, packet& p, const findings& f, unsigned place, verdicts& to) noexcept {
    if ((p.flags & packet_flag::own) == 0 && !admit_found<Words>(s, p, f.in[place], f.more)) return;
    if ((p.flags & packet_flag::for_machine) != 0)
        to.local.push(p);
    else
        direct_found<Words>(s, p, f.out[place], f.more, to);
}

/// At most max_burst packets.
void classify_together(stage& s, std::span<packet* const> packets, verdicts& to) noexcept {
    findings f;
    f.more = s.shared.has_more_policies();
    find_for(s, packets, f);
    fetch_sas(packets, f);
    for (unsigned i = 0; i < packets.size(); ++i)
        if (packets[i]->family == family::ipv4)
            classify_one<v4_words>(s, *packets[i], f, i, to);
        else
            classify_one<v6_words>(s, *packets[i], f, i, to);
}

template <std::size_t Words>
bool admit_alone(stage& s, packet& p) noexcept {
    const tables::spd& spd = s.shared.policies(way_in_of(p));
    return admit_found<Words>(s, p, table_of<Words>(spd).find(key_of<Words>(p)),
                              s.shared.has_more_policies());
}

template <std::size_t Words>
void direct_alone(stage& s, packet& p, verdicts& to) noexcept {
    const tables::spd& spd = s.shared.policies(policy_direction::out);
    direct_found<Words>(s, p, table_of<Words>(spd).find(key_of<Words>(p)),
                        s.shared.has_more_policies(), to);
}

} // namespace

std::uint32_t hash_of_peer(const std::uint8_t* address, family f) noexcept {
    return hash_of_spi(wire::be32(), address, f);
}

const policy_entry* find_policy(const stage& s, const packet& p, policy_direction d) noexcept {
    return p.family == family::ipv4 ? look_up<v4_words>(s, p, d, 0) : look_up<v6_words>(s, p, d, 0);
}

bool may_leave_in_clear(const stage& s, const packet& p) noexcept {
    const policy_entry* const out = find_policy(s, p, policy_direction::out);
    return out == nullptr ? !s.shared.blocks_by_default(policy_direction::out) : is_clear(out);
}

bool admit(stage& s, packet& p) noexcept {
    return p.family == family::ipv4 ? admit_alone<v4_words>(s, p) : admit_alone<v6_words>(s, p);
}

void direct(stage& s, packet& p, verdicts& to) noexcept {
    p.family == family::ipv4 ? direct_alone<v4_words>(s, p, to) : direct_alone<v6_words>(s, p, to);
}

void classify(stage& s, const packet_list& packets, verdicts& to) noexcept {
    for (std::span<packet* const> rest = packets.span(); !rest.empty();) {
        const auto together = rest.first(std::min<std::size_t>(rest.size(), max_burst));
        classify_together(s, together, to);
        rest = rest.subspan(together.size());
    }
}

} // namespace esplane::fastpath
