// SPDX-License-Identifier: Apache-2.0
#include "fastpath/embed/worker.h"

#include "fastpath/account.h"
#include "fastpath/classify.h"
#include "fastpath/inbound.h"
#include "fastpath/outbound.h"
#include "fastpath/parse.h"
#include "lib/wire/headers.h"

namespace esplane::embed {

namespace {

using fastpath::drop_reason;
using fastpath::packet;
using fastpath::packet_list;
using fastpath::stage;
namespace packet_flag = fastpath::packet_flag;

constexpr std::uint32_t longest_packet = 65535;

/// Nobody creates a packet here: who embeds is told and answers in his own buffers.
class no_buffers final : public fastpath::buffer_owner {
  public:
    void release(std::span<packet* const>) noexcept override {}
    [[nodiscard]] bool allocate(packet&, std::uint32_t) noexcept override { return false; }
};
no_buffers nothing;

bool is_ike(const packet& p) noexcept {
    const std::uint16_t port = p.destination_port.host();
    return p.protocol == wire::proto_udp && (port == 500 || port == 4500);
}

/// RFC 4861 section 6.1, 7.1: the hop limit says that it comes from the link.
bool is_neighbour_discovery(const packet& p) noexcept {
    const std::uint16_t type = p.source_port.host();
    return p.family == ipsec::family::ipv6 && p.protocol == wire::proto_icmpv6 && type >= 133 &&
           type <= 137 && p.ipv6().hop_limit == 255;
}

/// What reaches the machine whatever policies say, or no SA could ever be made.
bool is_exempt(const packet& p) noexcept {
    return p.inbound_sa == nullptr && (is_ike(p) || is_neighbour_discovery(p));
}

/// What cannot be a packet has no length, and parse says so.
void describe(packet& p, const esplane_packet& from) noexcept {
    const bool usable = from.data != nullptr && from.length <= longest_packet;
    p = packet{};
    p.data = from.data;
    p.length = usable ? from.length : 0;
    p.headroom = from.headroom;
    p.tailroom = from.tailroom;
    p.handle = reinterpret_cast<std::uint64_t>(from.user);
}

std::uint8_t verdict_of(drop_reason why) noexcept {
    switch (why) {
    case drop_reason::too_big:
    case drop_reason::too_big_fragment:
        return ESPLANE_TOO_BIG;
    case drop_reason::no_room:
        return ESPLANE_NO_ROOM;
    default:
        return ESPLANE_DISCARD;
    }
}

/// The SPI that every packet of the SA carries.
std::uint32_t spi_of(const fastpath::sa_out& sa) noexcept {
    return wire::load<wire::esp_header>(sa.header.data() + fastpath::sa_out::template_size -
                                        sizeof(wire::esp_header))
        .spi.host();
}

} // namespace

result<std::unique_ptr<worker>> worker::make(fastpath::tables& shared, unsigned index,
                                             crypto::engine_options options) {
    auto crypto = crypto::engine::make(options);
    if (!crypto) return tl::unexpected(crypto.error());
    return std::unique_ptr<worker>(new worker(shared, index, std::move(*crypto)));
}

worker::worker(fastpath::tables& shared, unsigned index, std::unique_ptr<crypto::engine> crypto)
    : shared_(shared)
    , index_(index)
    , crypto_(std::move(crypto)) {}

void worker::inbound(packet_array packets, moment now) noexcept {
    while (packets.size() != 0)
        inbound_burst(packets.split(fastpath::max_burst), now);
}

void worker::outbound(packet_array packets, moment now, bool from_outside) noexcept {
    while (packets.size() != 0)
        outbound_burst(packets.split(fastpath::max_burst), now, from_outside);
}

stage worker::begin(const packet_array& packets, moment now) noexcept {
    for (std::size_t i = 0; i < packets.size(); ++i) {
        describe(packets_[i], packets[i]);
        outcomes_[i] = {};
        outcomes_[i].if_id = packets[i].if_id;
    }
    counters_.received.add(packets.size());
    budget_.refill(now.monotonic_ns);
    stage s{shared_, shared_.routes(), *crypto_, counters_, events_, nothing,
            budget_, scratch_,         now,      index_,    this};
    s.every_interface = true;
    s.seeker = this;
    return s;
}

/// The embedder brings it to the other worker.
bool worker::push(unsigned to, packet& p) noexcept {
    outcome_of(p).verdict = ESPLANE_OTHER_WORKER;
    outcome_of(p).other = static_cast<std::uint8_t>(to);
    return true;
}

/// The embedder keeps it, if he will; an SA is asked for once a second.
void worker::take(stage& s, packet& p, const fastpath::policy_entry& policy) noexcept {
    const bool answered = shared_.await_ns() != 0;
    outcome_of(p).awaits_sa = answered;
    if (answered) requests_.ask(s, p, fastpath::cause_of(p, policy));
    s.drop(p, drop_reason::sa_missing);
}

/// Workers are the embedder's, and stand for no CPU.
void worker::ask_for_own(stage& /*s*/, const packet& /*p*/,
                         const fastpath::policy_entry& /*policy*/) noexcept {}

void worker::inbound_burst(packet_array packets, moment now) noexcept {
    stage s = begin(packets, now);
    packet_list esp, clear;
    fastpath::parse(s, {packets_.data(), packets.size()}, false, esp, clear);
    if (!esp.empty()) {
        const unsigned decrypted = clear.size();
        fastpath::inbound(s, esp, clear);
        fastpath::filter_decrypted(s, clear, decrypted);
    }
    admit_all(s, clear);
    finish(s, packets);
}

/// `in` and `fwd`.
void worker::admit_all(stage& s, const packet_list& packets) noexcept {
    for (packet* p : packets) {
        const bool ours = (p->flags & packet_flag::for_machine) != 0;
        if (!(ours && is_exempt(*p)) && !fastpath::admit(s, *p)) continue;
        outcome& o = outcome_of(*p);
        if (p->inbound_sa != nullptr) {
            o.verdict = ESPLANE_DECRYPTED;
            o.spi = p->inbound_sa->spi.host();
            o.if_id = p->inbound_sa->if_id.load(std::memory_order_relaxed);
        } else
            o.verdict = ours ? ESPLANE_FOR_MACHINE : ESPLANE_BYPASS;
    }
}

void worker::outbound_burst(packet_array packets, moment now, bool from_outside) noexcept {
    stage s = begin(packets, now);
    packet_list bypass, local;
    fastpath::verdicts to{bypass, local, scratch_.protect};
    direct_all(s, packets.size(), from_outside, to);
    for (packet* p : bypass)
        outcome_of(*p).verdict = ESPLANE_BYPASS;
    for (packet* p : local)
        outcome_of(*p).verdict = ESPLANE_FOR_MACHINE;
    protect(s, to.protect.first(to.protect_count));
    finish(s, packets);
}

/// Parses; then `in` and `fwd` where they are asked for, and `out`.
void worker::direct_all(stage& s, std::size_t count, bool from_outside,
                        fastpath::verdicts& to) noexcept {
    for (std::size_t i = 0; i < count; ++i)
        __builtin_prefetch(packets_[i].data);
    for (std::size_t i = 0; i < count; ++i) {
        packet& p = packets_[i];
        const drop_reason why = fastpath::parse_ip(p, s.routes, true);
        if (why != drop_reason::none) {
            s.drop(p, why);
            continue;
        }
        const bool ours = (p.flags & packet_flag::for_machine) != 0;
        if (!ours) route(p);
        if (from_outside && !(ours && is_exempt(p)) && !fastpath::admit(s, p)) continue;
        if (ours)
            to.local.push(p);
        else
            fastpath::direct(s, p, to);
    }
}

/// Into the interface that the embedder names, if he does; its MTU is that of the path.
void worker::route(packet& p) noexcept {
    const std::uint32_t if_id = outcome_of(p).if_id;
    if (if_id == 0) [[likely]]
        return;
    fastpath::adjacency& into = interfaces_[static_cast<std::size_t>(&p - packets_.data())];
    into = *p.next;
    into.kind = fastpath::adjacency_kind::tunnel;
    into.if_id = if_id;
    p.next = &into;
}

void worker::protect(stage& s, std::span<fastpath::protect_item> items) noexcept {
    items = items.first(fastpath::filter_protected(s, items));
    items = items.first(fastpath::keep_own(s, items));
    for (const auto& item : items)
        outcome_of(*item.p).sa = item.sa;
    packet_list leaving;
    fastpath::outbound(s, items, leaving);
    for (packet* p : leaving) {
        outcome& o = outcome_of(*p);
        o.verdict = ESPLANE_PROTECTED;
        o.spi = spi_of(*o.sa);
    }
}

/// Tells what became of each.  What was dropped stays as the embedder described it.
void worker::finish(stage& s, packet_array packets) noexcept {
    fastpath::tell_watched(s);
    s.pass_on_owners();
    unsigned passed = 0, local = 0;
    for (std::size_t i = 0; i < packets.size(); ++i) {
        const packet& p = packets_[i];
        const outcome& o = outcomes_[i];
        esplane_packet& to = packets[i];
        to.verdict = o.verdict;
        to.family = static_cast<std::uint8_t>(p.family);
        to.reason = p.drop;
        to.spi = o.spi;
        to.if_id = o.if_id;
        to.mtu = 0;
        to.worker = o.other;
        to.local = (p.flags & packet_flag::for_machine) != 0 ? 1 : 0;
        if (p.drop != 0) {
            report_drop(i, to);
            continue;
        }
        to.data = p.data;
        to.length = p.length;
        to.headroom = p.headroom;
        to.tailroom = p.tailroom;
        if (o.verdict != ESPLANE_OTHER_WORKER)
            (o.verdict == ESPLANE_FOR_MACHINE ? local : passed) += 1;
    }
    counters_.sent.add(passed);
    counters_.punted.add(local);
}

void worker::report_drop(std::size_t i, esplane_packet& to) noexcept {
    to.verdict = outcomes_[i].awaits_sa ? static_cast<std::uint8_t>(ESPLANE_AWAIT_SA)
                                        : verdict_of(static_cast<drop_reason>(packets_[i].drop));
    if (to.verdict == ESPLANE_DISCARD) return;
    to.reason = 0;
    if (const fastpath::sa_out* sa = outcomes_[i].sa) {
        to.spi = spi_of(*sa);
        if (to.verdict == ESPLANE_TOO_BIG) to.mtu = fastpath::inner_mtu(*sa, sa->route->mtu);
    }
}

} // namespace esplane::embed
