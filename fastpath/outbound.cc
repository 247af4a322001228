// SPDX-License-Identifier: Apache-2.0
#include "fastpath/outbound.h"

#include "fastpath/account.h"
#include "fastpath/fragment.h"
#include "fastpath/icmp.h"
#include "fastpath/ip_front.h"
#include "fastpath/next_hop.h"
#include "lib/ipsec/overhead.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

namespace {

using ipsec::family;

constexpr std::uint8_t ecn_mask = 3;
constexpr std::uint8_t ecn_ce = 3;
constexpr std::uint8_t ecn_ect0 = 2;

/// RFC 4303 section 2.4.  One store of fixed size: no suite pads more, and the ICV is as long.
constexpr std::array<std::uint8_t, 16> padding{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// Bytes that ESP adds behind its text, without the ICV.
std::uint32_t trailer_length(const ipsec::suite_layout& l, std::uint32_t text) noexcept {
    const std::uint32_t mask = l.block_length - 1u;
    return ((text + 2 + mask) & ~mask) - text;
}

/// In the VRF of the packet, as the kernel does it; what comes by an interface of an if_id leaves
/// that for the main one.  All packets of an SA take one way, so that they stay in order.
const adjacency& outer_route(const stage& s, const packet& p, sa_out& sa) noexcept {
    const std::uint16_t vrf =
        sa.if_id.load(std::memory_order_relaxed) != 0 ? 0 : s.routes.vrf_at(p.interface);
    const std::uint64_t generation = s.routes.generation_in(vrf); // before the lookup
    if (sa.route_generation == generation) return *sa.route;
    const ipsec::address& to = sa.id.destination;
    const std::uint32_t hash = spread_hash(sa.id.spi.network());
    sa.route = to.fam == family::ipv4 ? &s.routes.lookup_v4(vrf, to.as_v4(), hash)
                                      : &s.routes.lookup_v6(vrf, to.bytes.data(), hash);
    sa.route_generation = generation;
    return *sa.route;
}

/// What the way takes, as far as is known.
std::uint32_t path_of(const sa_out& sa, const adjacency& route) noexcept {
    return std::min(route.mtu, sa.path_mtu.load(std::memory_order_relaxed));
}

/// The largest packet that fits a path of `mtu` bytes.
///
/// in_front   bytes of it that stay in front of ESP
std::uint32_t largest_packet(const sa_out& sa, std::uint32_t mtu, std::uint32_t in_front) noexcept {
    ipsec::overhead o;
    o.around = sa.header_length + sa.layout.iv_length + sa.layout.icv_length;
    o.block = sa.layout.block_length;
    o.in_front = in_front;
    return o.largest_inner(mtu);
}

/// Makes a packet that is shorter than its SA is to show longer by bytes of nothing: RFC 4303
/// section 2.7, esp_output().  To `tfc_pad` bytes, or to the largest that fits the path.  False:
/// there is no room for that.
[[gnu::cold, gnu::noinline]] bool hide_length(packet& p, const sa_out& sa,
                                              std::uint32_t path) noexcept {
    const std::uint32_t to = std::min<std::uint32_t>(sa.tfc_pad, largest_packet(sa, path, 0));
    if (p.length >= to) return true;
    const std::uint32_t more = to - p.length;
    if (p.tailroom < more + trailer_length(sa.layout, to) + sa.layout.icv_length) return false;
    std::memset(p.data + p.length, 0, more);
    p.extend(static_cast<int>(more));
    return true;
}

/// What becomes of a packet that ESP makes longer than its path: it is cut after ESP where that may
/// be, or has to be because no IPv6 link takes less; else its source is told.
[[gnu::cold, gnu::noinline]] drop_reason
exceed(stage& s, packet& p, const sa_out& sa, std::uint32_t path, std::uint32_t in_front) noexcept {
    const bool whole = (p.flags & packet_flag::dont_fragment) != 0;
    const bool smallest = p.family == family::ipv6 && p.length <= ipv6_minimum_mtu;
    if (s.may_split && (!whole || smallest)) {
        p.flags |= packet_flag::split;
        return drop_reason::none;
    }
    if (!whole) return drop_reason::too_big_fragment;
    report_too_big(s, p, largest_packet(sa, path, in_front));
    return drop_reason::too_big;
}

/// A new block of nonces for an SA that has used up its own.  False: its key has no more.
[[gnu::cold, gnu::noinline]] bool refill_nonces(sa_out& sa) noexcept {
    const auto first = sa.nonces->take();
    if (!first) return false;
    sa.nonce = *first;
    sa.nonce_end = *first + nonce_space::block;
    return true;
}

/// An SA while packets of it follow each other.  What they ask of it is read and worked out once,
/// what they use up and count is written back once, before any of them leaves.
class sa_run {
  public:
    sa_run(const stage& s, const packet& first, sa_out& of) noexcept
        : sa(of)
        , route(outer_route(s, first, of))
        , refused(refusal(route))
        , layout(of.layout)
        , header_length(of.header_length)
        , front(header_length + layout.iv_length)
        , headroom(std::max(sa_out::template_size + std::uint32_t{layout.iv_length},
                            refused == drop_reason::none ? front + ethernet_length(route) : 0))
        , path(path_of(of, route))
        , esn((of.flags & ipsec::sa_flag::esn) != 0)
        , output_mark(of.output_mark.load(std::memory_order_relaxed))
        , interface_(first.interface) {
        take_up();
    }
    ~sa_run() { put_back(); }
    sa_run(const sa_run&) = delete;
    sa_run& operator=(const sa_run&) = delete;

    sa_out& sa;
    const adjacency& route;
    const drop_reason refused; ///< why nothing leaves by `route`
    const ipsec::suite_layout layout;
    const std::uint32_t header_length;
    const std::uint32_t front;    ///< bytes from the outer header to the text
    const std::uint32_t headroom; ///< that a packet has to have
    const std::uint32_t path;     ///< bytes that the way takes
    const bool esn;
    const std::uint64_t output_mark;

    /// Whether the packet is of this run.  All of one interface are of one VRF.
    [[nodiscard]] bool covers(const protect_item& item) const noexcept {
        return item.sa == &sa && item.p->interface == interface_;
    }
    /// Whether the SA may take one more packet; none: it may.
    [[nodiscard]] drop_reason admit(stage& s) noexcept {
        if (packets_ >= packets_end_ || bytes_ >= bytes_end_) [[unlikely]]
            if (!apart([&] { return look_at(s, sa); })) {
                s.counters.expired_out.add(1);
                return drop_reason::sa_expired;
            }
        if (sequence_ >= sa.last_sequence) return drop_reason::sequence_exhausted;
        if (nonce_ == nonce_end_ && sa.counter_mode) [[unlikely]]
            if (!apart([&] { return refill_nonces(sa); })) return drop_reason::nonces_exhausted;
        return drop_reason::none;
    }
    /// `bytes` of the inner IP packet.
    void charge(std::uint64_t bytes) noexcept {
        ++packets_;
        bytes_ += bytes;
    }
    [[nodiscard]] std::uint64_t take_sequence() noexcept { return ++sequence_; }
    [[nodiscard]] std::uint64_t take_nonce() noexcept { return nonce_++; }
    /// Of the last packet of the run.
    void note_use(std::uint64_t realtime_s) noexcept { used_s_ = realtime_s; }

  private:
    void take_up() noexcept {
        sequence_ = sa.sequence;
        nonce_ = sa.nonce;
        nonce_end_ = sa.nonce_end;
        packets_ = sa.account.packets.get();
        bytes_ = sa.account.bytes.get();
        packets_end_ = sa.account.look_at_packets.load(std::memory_order_relaxed);
        bytes_end_ = sa.account.look_at_bytes.load(std::memory_order_relaxed);
    }
    void put_back() noexcept {
        sa.sequence = sequence_;
        sa.sequence_sent.set(sequence_);
        sa.nonce = nonce_;
        sa.account.packets.set(packets_);
        sa.account.bytes.set(bytes_);
        if (used_s_ != 0) sa.account.last_used.set(used_s_);
    }
    /// What looks at the SA itself, and may change it.
    template <typename Work>
    bool apart(Work work) noexcept {
        put_back();
        const bool done = work();
        take_up();
        return done;
    }

    const std::uint16_t interface_;
    std::uint64_t sequence_, nonce_, nonce_end_;
    std::uint64_t packets_, bytes_, packets_end_, bytes_end_;
    std::uint64_t used_s_ = 0;
};

/// RFC 6040 in the kernel's form: CE inside becomes ECT(0) outside, everything else is copied.
std::uint8_t outer_tos(const sa_out& sa, std::uint8_t inner) noexcept {
    std::uint8_t tos = sa.dont_copy_dscp ? 0 : static_cast<std::uint8_t>(inner & ~ecn_mask);
    if ((sa.flags & ipsec::sa_flag::no_ecn) == 0)
        tos |= (inner & ecn_mask) == ecn_ce ? ecn_ect0 : inner & ecn_mask;
    return tos;
}

/// Everything that can stop a packet, before anything of it or of its SA has changed.
///
/// in_front   bytes of it that stay in front of ESP: none in tunnel mode
[[gnu::always_inline]] inline drop_reason check(stage& s, packet& p, sa_run& run,
                                                std::uint32_t in_front) noexcept {
    const std::uint32_t back =
        trailer_length(run.layout, p.length - in_front) + run.layout.icv_length;
    if (run.refused != drop_reason::none) return run.refused;
    if (p.headroom < run.headroom || p.tailroom < back) return drop_reason::no_room;
    if (run.front + p.length + back > run.path) [[unlikely]]
        if (const drop_reason why = exceed(s, p, run.sa, run.path, in_front);
            why != drop_reason::none)
            return why;
    return run.admit(s);
}

/// `p.tos` is the inner packet's still.
void write_outer_v4(packet& p, bool inner_df, const sa_out& sa, std::uint64_t sequence) noexcept {
    auto& ip = p.ipv4();
    ip.tos = outer_tos(sa, p.tos);
    ip.total_length.set(static_cast<std::uint16_t>(p.length));
    const bool df = inner_df && (sa.flags & ipsec::sa_flag::no_pmtu_discovery) == 0;
    ip.fragment.set(df ? wire::ipv4_df : 0);
    ip.id.set(df ? 0 : static_cast<std::uint16_t>(sequence)); // RFC 6864: unique where it counts
    // The template's checksum covers the fields that never change.
    std::uint64_t sum = static_cast<std::uint16_t>(~ip.checksum.network());
    sum += wire::be16(ip.tos).network();
    sum += ip.total_length.network();
    sum += ip.fragment.network();
    sum += ip.id.network();
    ip.checksum = wire::checksum_finish(sum);
}

void write_outer_v6(packet& p, std::uint32_t inner_flow, const sa_out& sa) noexcept {
    auto& ip = p.ipv6();
    const std::uint32_t tos = outer_tos(sa, p.tos);
    ip.version_class_flow.set(0x60000000u | (tos << 20) | inner_flow);
    ip.payload_length.set(static_cast<std::uint16_t>(p.length - sizeof ip));
    p.l4_offset = sizeof ip;
}

/// IV of the packet: counting for counter modes (never twice for a key), unpredictable for CBC.
void write_iv(stage& s, sa_run& run, std::uint8_t* iv) noexcept {
    if (!run.sa.counter_mode) {
        s.crypto.unpredictable_iv(iv, run.layout.iv_length);
        return;
    }
    wire::store(iv, wire::be64(run.take_nonce()));
}

/// What a burst gives the engine, and what remains to be done then.
struct esp_work {
    explicit esp_work(std::span<crypto::job> all) noexcept
        : jobs(all) {}

    std::span<crypto::job> jobs;
    unsigned count = 0;
    packet_list unsummed; ///< need a UDP checksum once they are encrypted
};

/// Puts padding, pad length and next header behind the text, and makes room for the ICV.
[[gnu::always_inline]] inline void write_trailer(packet& p, std::uint32_t icv_length,
                                                 std::uint32_t trailer,
                                                 std::uint8_t next) noexcept {
    std::uint8_t* tail = p.data + p.length;
    const auto pad = static_cast<std::uint8_t>(trailer - 2);
    std::memcpy(tail, padding.data(), padding.size()); // what is too much lies under the ICV
    tail[pad] = pad;
    tail[pad + 1] = next;
    p.extend(static_cast<int>(trailer + icv_length));
}

/// Completes the headers that end where the IV begins; leaves the work for the engine.
///
/// text   bytes of it, trailer included
[[gnu::always_inline]] inline void finish_esp(stage& s, packet& p, sa_run& run,
                                              std::uint64_t sequence, std::uint8_t* iv,
                                              std::uint32_t text, esp_work& w) noexcept {
    std::uint8_t* const esp = iv - sizeof(wire::esp_header);
    wire::store(esp + offsetof(wire::esp_header, sequence),
                wire::be32(static_cast<std::uint32_t>(sequence)));
    write_iv(s, run, iv);
    p.flags |= packet_flag::encrypted;
    p.family = run.sa.outer_family;
    p.l2_length = 0;
    if (run.sa.encapsulated) {
        auto* udp = reinterpret_cast<wire::udp_header*>(esp - sizeof(wire::udp_header));
        udp->length.set(static_cast<std::uint16_t>(
            p.length - static_cast<std::uint32_t>(reinterpret_cast<std::uint8_t*>(udp) - p.data)));
        if (run.sa.outer_family == family::ipv6) w.unsummed.push(p);
    }
    crypto::job& j = w.jobs[w.count++];
    j.keys = run.sa.keys;
    j.esp = esp;
    j.text_length = text;
    j.esn = run.esn;
    j.seq_high = static_cast<std::uint32_t>(sequence >> 32);
}

/// Builds the packet around its inner one.
[[gnu::always_inline]] inline void encapsulate(stage& s, packet& p, sa_run& run,
                                               esp_work& w) noexcept {
    const std::uint32_t inner_length = p.length;
    const bool inner_df =
        (p.flags & (packet_flag::dont_fragment | packet_flag::split)) == packet_flag::dont_fragment;
    const std::uint32_t inner_flow =
        p.family == family::ipv6 ? p.ipv6().version_class_flow.host() & 0xfffff : 0;
    const std::uint32_t trailer = trailer_length(run.layout, p.length);
    write_trailer(p, run.layout.icv_length, trailer,
                  p.family == family::ipv4 ? wire::proto_ipip : wire::proto_ipv6);
    const std::uint64_t sequence = run.take_sequence();
    p.pull(-static_cast<int>(run.front));
    std::uint8_t* const iv = p.data + run.header_length;
    std::memcpy(iv - sa_out::template_size, run.sa.header.data(), sa_out::template_size);
    finish_esp(s, p, run, sequence, iv, inner_length + trailer, w);
    if (run.sa.outer_family == family::ipv4)
        write_outer_v4(p, inner_df, run.sa, sequence);
    else
        write_outer_v6(p, inner_flow, run.sa);
}

/// Transport mode: opens a gap behind the packet's own header and puts ESP there.
void insert_esp(stage& s, packet& p, sa_run& run, const ip_front& front, esp_work& w) noexcept {
    const std::uint32_t upper = p.length - front.length;
    const std::uint32_t trailer = trailer_length(run.layout, upper);
    write_trailer(p, run.layout.icv_length, trailer, p.data[front.next_at]);
    const std::uint64_t sequence = run.take_sequence();
    p.pull(-static_cast<int>(run.front));
    std::memmove(p.data, p.data + run.front, front.length);
    std::uint8_t* const iv = p.data + front.length + run.header_length;
    const sa_out& sa = run.sa;
    std::memcpy(iv - sa.header_length, sa.header.end() - sa.header_length, sa.header_length);
    rewrite_front(p, front, sa.encapsulated ? wire::proto_udp : wire::proto_esp);
    p.l4_offset = static_cast<std::uint16_t>(front.length);
    finish_esp(s, p, run, sequence, iv, upper + trailer, w);
}

/// What happens to one packet before the engine has it.  Anything but none: it is to be dropped.
[[gnu::always_inline]] inline drop_reason build_tunnel(stage& s, packet& p, sa_run& run,
                                                       esp_work& w) noexcept {
    if (const drop_reason why = check(s, p, run, 0); why != drop_reason::none) return why;
    const std::uint32_t inner = p.length;
    if (run.sa.tfc_pad != 0 && !hide_length(p, run.sa, run.path)) [[unlikely]]
        return drop_reason::no_room;
    run.charge(inner);
    encapsulate(s, p, run, w);
    return drop_reason::none;
}

/// As the kernel, it counts the bytes behind the IP header.
[[gnu::noinline]] drop_reason build_transport(stage& s, packet& p, sa_run& run,
                                              esp_work& w) noexcept {
    if ((p.flags & packet_flag::fragment) != 0) return drop_reason::transport_fragment;
    const ip_front front = front_before_esp(p);
    if (const drop_reason why = check(s, p, run, front.length); why != drop_reason::none)
        return why;
    run.charge(p.length - front.length);
    insert_esp(s, p, run, front, w);
    return drop_reason::none;
}

/// Of what is to be cut, how long its pieces may be.
///
/// first   of `out` that comes from `items`: those that were not dropped, in order
[[gnu::cold, gnu::noinline]] void note_paths(std::span<const protect_item> items,
                                             const packet_list& out, unsigned first) noexcept {
    for (const protect_item& item : items) {
        packet& p = *item.p;
        if (first == out.size() || &out[first] != &p) continue;
        ++first;
        if ((p.flags & packet_flag::split) != 0)
            p.split_at = static_cast<std::uint16_t>(std::min(path_of(*item.sa, *p.next), 0xffffu));
    }
}

/// The first packets of `items` that go one way under one SA; returns how many those are.
[[gnu::always_inline]] inline std::size_t build_run(stage& s, std::span<const protect_item> items,
                                                    esp_work& w, packet_list& out,
                                                    bool& longer) noexcept {
    sa_run run(s, *items[0].p, *items[0].sa);
    const bool tunnel = run.sa.run_mode == ipsec::mode::tunnel;
    std::size_t n = 0;
    do {
        packet& p = *items[n].p;
        const drop_reason why = tunnel ? build_tunnel(s, p, run, w) : build_transport(s, p, run, w);
        if (why != drop_reason::none) {
            s.drop(p, why);
            continue;
        }
        run.note_use(s.now.realtime_s);
        p.next = &run.route;
        if (run.output_mark != 0) [[unlikely]]
            p.put_mark(static_cast<std::uint32_t>(run.output_mark));
        longer |= (p.flags & packet_flag::split) != 0;
        out.push(p);
    } while (++n < items.size() && run.covers(items[n]));
    return n;
}

} // namespace

std::uint32_t inner_mtu(const sa_out& sa, std::uint32_t mtu) noexcept {
    const std::uint32_t ip =
        sa.outer_family == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    return largest_packet(sa, mtu, sa.run_mode == ipsec::mode::transport ? ip : 0);
}

std::size_t keep_own(stage& s, std::span<protect_item> items) noexcept {
    std::size_t kept = 0;
    for (const protect_item& item : items) {
        const unsigned who = s.owner_of(item.sa->owner);
        if (who == s.self)
            items[kept++] = item;
        else if (who == sa_owner::spread)
            s.scratch.spread[s.spread++] = item;
        else
            s.hand_over(*item.p, who, handover_phase::outbound, item.sa->name);
    }
    return kept;
}

// 1. Check room, path MTU, lifetime, sequence: a dropped packet leaves whole and burns no number.
// 2. Count it, take a sequence number and an IV, write headers and trailer.
// 3. Encrypt them all.
// 4. Give those in UDP over IPv6 their checksum.
// 5. Note where to cut those that are too long: it takes the place of where their UDP header is.
void outbound(stage& s, std::span<const protect_item> items, packet_list& out) noexcept {
    for (const protect_item& item : items) {
        __builtin_prefetch(&item.sa->account, 1);
        __builtin_prefetch(item.sa->header.data());
        __builtin_prefetch(item.sa->keys);
    }
    esp_work w(s.scratch.jobs);
    const unsigned first = out.size();
    bool longer = false;
    for (auto rest = items; !rest.empty();)
        rest = rest.subspan(build_run(s, rest, w, out, longer));
    s.crypto.encrypt(w.jobs.first(w.count));
    s.counters.encrypted.add(w.count);
    for (packet* p : w.unsummed)
        write_udp_checksum(*p);
    if (longer) [[unlikely]]
        note_paths(items, out, first);
}

} // namespace esplane::fastpath
