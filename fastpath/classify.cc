// SPDX-License-Identifier: Apache-2.0
#include "fastpath/classify.h"

#include <algorithm>
#include <nmmintrin.h>
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
std::uint32_t hash_of(const flow_key<Words>& key) noexcept {
    std::uint64_t h = 0;
    for (const std::uint64_t word : key.words)
        h = _mm_crc32_u64(h, word);
    return static_cast<std::uint32_t>(h);
}

template <std::size_t Words>
flow_key<Words> operator&(const flow_key<Words>& a, const flow_key<Words>& b) noexcept {
    flow_key<Words> r;
    for (std::size_t i = 0; i < Words; ++i)
        r.words[i] = a.words[i] & b.words[i];
    return r;
}

/// Ports and protocol as the last word of a key.
std::uint64_t upper_word(wire::be16 source, wire::be16 destination,
                         std::uint8_t protocol) noexcept {
    return source.network() | std::uint64_t{destination.network()} << 16 |
           std::uint64_t{protocol} << 32;
}

template <std::size_t Words>
flow_key<Words> key_of_parts(const std::uint8_t* source, const std::uint8_t* destination,
                             std::uint64_t upper) noexcept {
    flow_key<Words> key;
    if constexpr (Words == v4_words) {
        key.words[0] = wire::load<std::uint32_t>(source) |
                       std::uint64_t{wire::load<std::uint32_t>(destination)} << 32;
    } else {
        key.words[0] = wire::load<std::uint64_t>(source);
        key.words[1] = wire::load<std::uint64_t>(source + 8);
        key.words[2] = wire::load<std::uint64_t>(destination);
        key.words[3] = wire::load<std::uint64_t>(destination + 8);
    }
    key.words[Words - 1] = upper;
    return key;
}

flow_key<v4_words> key_of_v4(const packet& p) noexcept {
    return key_of_parts<v4_words>(reinterpret_cast<const std::uint8_t*>(&p.ipv4().source),
                                  reinterpret_cast<const std::uint8_t*>(&p.ipv4().destination),
                                  upper_word(p.source_port, p.destination_port, p.protocol));
}

flow_key<v6_words> key_of_v6(const packet& p) noexcept {
    return key_of_parts<v6_words>(p.ipv6().source.data(), p.ipv6().destination.data(),
                                  upper_word(p.source_port, p.destination_port, p.protocol));
}

/// xfrm_state_ok: the SA a packet came out of against what the policy asks for.  Whom a packet in
/// transport mode comes from its own header says, which the policy's selector has been held
/// against.
bool satisfies(const sa_in& sa, const ipsec::template_& t) noexcept {
    return t.id.protocol == wire::proto_esp && t.run_mode == sa.run_mode &&
           (t.id.spi == wire::be32() || t.id.spi == sa.spi) &&
           (t.reqid == 0 || t.reqid == sa.reqid) &&
           (t.source == sa.source || t.source.is_any() || sa.run_mode == ipsec::mode::transport);
}

template <std::size_t Words>
const policy_entry* find_in(const tables::spd& spd, const flow_key<Words>& key) noexcept {
    if constexpr (Words == v4_words)
        return spd.v4.find(key);
    else
        return spd.v6.find(key);
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
        const policy_entry* const found = spd == nullptr ? nullptr : find_in(*spd, key);
        if (found != nullptr && (best == nullptr || found->rank < best->rank)) best = found;
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
    const policy_entry* const found = spd == nullptr ? nullptr : find_in(*spd, key);
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

/// The policy for a packet among those for the traffic of an interface or, 0, of none; noted as
/// used.
template <std::size_t Words>
const policy_entry* look_up(const stage& s, const packet& p, policy_direction d,
                            std::uint32_t if_id, const flow_key<Words>& key) noexcept {
    const tables::spd* const spd =
        if_id == 0 ? &s.shared.policies(d) : s.shared.policies(d, {if_id, {}});
    const policy_entry* found = spd == nullptr ? nullptr : find_in(*spd, key);
    if (s.shared.has_more_policies()) [[unlikely]]
        found = find_among_all(s, p, d, if_id, key, found);
    note_use(s, found);
    return found;
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
                                                     policy_direction d,
                                                     const flow_key<Words>& key) noexcept {
    if (s.every_interface)
        return look_up(s, p, d, p.inbound_sa->if_id.load(std::memory_order_relaxed), key);
    const interface& in = s.routes.interface(p.interface);
    return look_up(s, p, d, in.kind == interface_kind::tunnel && in.up ? in.if_id : 0, key);
}

bool is_clear(const policy_entry* out) noexcept {
    return out == nullptr || (out->action == ipsec::policy_action::allow && !out->protects);
}

/// `out` for a packet whose route leads into an interface.  What is not protected there does not
/// leave at all (xfrmi_xmit2); nullptr: it is dropped.
template <std::size_t Words>
[[gnu::noinline]] const policy_entry* enter_interface(stage& s, packet& p,
                                                      const flow_key<Words>& key) noexcept {
    const policy_entry* out = look_up(s, p, policy_direction::out, p.next->if_id, key);
    if (is_clear(out)) {
        s.drop(p, drop_reason::interface_unprotected);
        return nullptr;
    }
    return check_size(s, p) ? out : nullptr;
}

/// `in` or `fwd`.  False: no policy admits the packet; it is dropped.
template <std::size_t Words>
inline bool admit_key(stage& s, packet& p, const flow_key<Words>& key) noexcept {
    const bool ours = (p.flags & packet_flag::for_machine) != 0;
    const auto way_in = ours ? policy_direction::in : policy_direction::fwd;
    const policy_entry* const policy = names_interface(p.inbound_sa)
                                           ? look_up_inside(s, p, way_in, key)
                                           : look_up(s, p, way_in, 0, key);
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
template <std::size_t Words>
[[gnu::always_inline]] inline void direct_key(stage& s, packet& p, const flow_key<Words>& key,
                                              verdicts& to) noexcept {
    const policy_entry* out = look_up(s, p, policy_direction::out, 0, key);
    if (out == nullptr && s.shared.blocks_by_default(policy_direction::out)) [[unlikely]] {
        s.drop(p, drop_reason::policy_default_out);
        return;
    }
    if (is_clear(out)) {
        if (p.next->kind != adjacency_kind::tunnel) [[likely]] {
            let_out<Words>(s, p, to);
            return;
        }
        out = enter_interface(s, p, key);
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

template <std::size_t Words>
void classify_one(stage& s, packet& p, const flow_key<Words>& key, verdicts& to) noexcept {
    if ((p.flags & packet_flag::own) == 0 && !admit_key(s, p, key)) return;
    if ((p.flags & packet_flag::for_machine) != 0)
        to.local.push(p);
    else
        direct_key(s, p, key, to);
}

} // namespace

std::uint32_t hash_of_peer(const std::uint8_t* address, family f) noexcept {
    return hash_of_spi(wire::be32(), address, f);
}

template <std::size_t Words>
std::pair<flow_key<Words>, flow_key<Words>> key_of(const ipsec::selector& s) noexcept {
    const auto ones = [] {
        ipsec::address a;
        a.bytes.fill(0xff);
        return a;
    }();
    const auto mask = key_of_parts<Words>(
        masked(ones, s.source_prefix).bytes.data(), masked(ones, s.destination_prefix).bytes.data(),
        upper_word(s.source_port_mask, s.destination_port_mask, s.protocol != 0 ? 0xff : 0));
    const auto key = key_of_parts<Words>(s.source.bytes.data(), s.destination.bytes.data(),
                                         upper_word(s.source_port, s.destination_port, s.protocol));
    return {key & mask, mask};
}

template <std::size_t Words>
policy_table<Words>::~policy_table() {
    delete ordered_.load(std::memory_order_relaxed);
}

template <std::size_t Words>
const policy_entry* policy_table<Words>::find(const flow_key<Words>& flow) const noexcept {
    const policy_entry* best = nullptr;
    for (const searched& one : *ordered_.load(std::memory_order_acquire)) {
        if (best != nullptr && best->rank <= one.best) break;
        const flow_key<Words> key = flow & one.mask;
        const entry* found =
            one.table->find(hash_of(key), [&](const entry& e) { return e.key == key; });
        if (found != nullptr && (best == nullptr || found->run.rank < best->rank))
            best = &found->run;
    }
    return best;
}

template <std::size_t Words>
bool policy_table<Words>::reads_ports() const noexcept {
    constexpr std::uint64_t ports = 0xffffffff; // upper_word()
    const auto& all = *ordered_.load(std::memory_order_acquire);
    return std::any_of(all.begin(), all.end(), [](const searched& one) {
        return (one.mask.words[Words - 1] & ports) != 0;
    });
}

/// Entries of one key are a chain, best first, whose head is in the table.
template <std::size_t Words>
void policy_table<Words>::insert(entry* e, const ipsec::selector& s) {
    const auto [key, mask] = key_of<Words>(s);
    shape& home = shape_of(mask);
    e->key = key;
    e->hash = hash_of(key);
    ++home.count;
    if (e->run.rank < home.best) {
        home.best = e->run.rank;
        publish();
    }
    entry* head = home.table.find(e->hash, [&](const entry& one) { return one.key == e->key; });
    if (head == nullptr) {
        home.table.insert(e);
        return;
    }
    if (e->run.rank < head->run.rank) {
        e->next = head;
        home.table.replace(head, e);
        return;
    }
    while (head->next != nullptr && head->next->run.rank <= e->run.rank)
        head = head->next;
    e->next = std::exchange(head->next, e);
}

template <std::size_t Words>
void policy_table<Words>::erase(entry* e, const ipsec::selector& s) {
    shape& home = shape_of(key_of<Words>(s).second);
    entry* head = home.table.find(e->hash, [&](const entry& one) { return one.key == e->key; });
    entry* after = e->next;
    if (head != e) {
        while (head->next != e)
            head = head->next;
        head->next = after;
    } else if (after != nullptr)
        home.table.replace(e, after);
    else
        home.table.erase(e);
    if (--home.count != 0) return; // a best that is gone only has a search go on for longer
    home.best = ~std::uint64_t{0};
    publish();
}

template <std::size_t Words>
auto policy_table<Words>::shape_of(const flow_key<Words>& mask) -> shape& {
    for (const auto& one : shapes_)
        if (one->mask == mask) return *one;
    return *shapes_.emplace_back(std::make_unique<shape>(mask, graveyard_));
}

/// The shapes that hold something, best first.  insert() publishes the new order before the policy
/// can be found: a reader that still has the list from before takes its packets as if the change
/// came a moment later.
template <std::size_t Words>
void policy_table<Words>::publish() {
    auto list = std::make_unique<std::vector<searched>>();
    for (const auto& one : shapes_)
        if (one->count != 0) list->push_back({one->mask, one->best, &one->table});
    std::sort(list->begin(), list->end(),
              [](const searched& a, const searched& b) { return a.best < b.best; });
    const auto* before = ordered_.exchange(list.release(), std::memory_order_acq_rel);
    if (before != nullptr) graveyard_.add([before] { delete before; });
}

template class policy_table<v4_words>;
template class policy_table<v6_words>;
template std::pair<flow_key<v4_words>, flow_key<v4_words>>
key_of<v4_words>(const ipsec::selector&) noexcept;
template std::pair<flow_key<v6_words>, flow_key<v6_words>>
key_of<v6_words>(const ipsec::selector&) noexcept;

const policy_entry* find_policy(const stage& s, const packet& p, policy_direction d) noexcept {
    return p.family == family::ipv4 ? look_up(s, p, d, 0, key_of_v4(p))
                                    : look_up(s, p, d, 0, key_of_v6(p));
}

bool may_leave_in_clear(const stage& s, const packet& p) noexcept {
    const policy_entry* const out = find_policy(s, p, policy_direction::out);
    return out == nullptr ? !s.shared.blocks_by_default(policy_direction::out) : is_clear(out);
}

bool admit(stage& s, packet& p) noexcept {
    return p.family == family::ipv4 ? admit_key(s, p, key_of_v4(p)) : admit_key(s, p, key_of_v6(p));
}

void direct(stage& s, packet& p, verdicts& to) noexcept {
    if (p.family == family::ipv4)
        direct_key(s, p, key_of_v4(p), to);
    else
        direct_key(s, p, key_of_v6(p), to);
}

void classify(stage& s, const packet_list& packets, verdicts& to) noexcept {
    for (packet* p : packets)
        if (p->family == family::ipv4)
            classify_one(s, *p, key_of_v4(*p), to);
        else
            classify_one(s, *p, key_of_v6(*p), to);
}

} // namespace esplane::fastpath
