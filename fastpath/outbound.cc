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

/// RFC 4303 section 2.4.  One store of fixed size: no suite pads more, and the ICV is as long.
constexpr std::array<std::uint8_t, 16> padding{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/// Bytes that ESP adds behind any text, at most; not fewer than the store of the padding writes.
constexpr std::uint32_t most_behind(const ipsec::suite_layout& l) noexcept {
    return l.block_length + 1u + l.icv_length;
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
    if (p.tailroom < more + most_behind(sa.layout)) return false;
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
        , front(std::uint32_t{of.header_length} + of.layout.iv_length)
        , icv_length(of.layout.icv_length)
        , block(of.layout.block_length)
        , headroom(std::max(sa_out::template_size + std::uint32_t{of.layout.iv_length},
                            front + ethernet_length(route)))
        , tailroom(most_behind(of.layout))
        , path(path_of(of, route))
        , longest(refused == drop_reason::none ? largest_packet(of, path, 0) : 0)
        , tos_mask(
              static_cast<std::uint8_t>((of.dont_copy_dscp ? 0 : ~ecn_mask) |
                                        ((of.flags & ipsec::sa_flag::no_ecn) != 0 ? 0 : ecn_mask)))
        , copies_df((of.flags & ipsec::sa_flag::no_pmtu_discovery) == 0)
        , esn((of.flags & ipsec::sa_flag::esn) != 0)
        , output_mark(of.output_mark.load(std::memory_order_relaxed))
        , interface_(first.interface)
        , now_s_(s.now.realtime_s) {
        take_up();
        asked_upto_ = sequence_ + (is_free() ? max_burst : 0);
    }
    ~sa_run() { put_back(); }
    sa_run(const sa_run&) = delete;
    sa_run& operator=(const sa_run&) = delete;

    sa_out& sa;
    const adjacency& route;
    const drop_reason refused; ///< why nothing leaves by `route`
    const std::uint32_t front; ///< bytes from the outer header to the text
    const std::uint32_t icv_length;
    const std::uint32_t block;    ///< text is padded to a multiple of it
    const std::uint32_t headroom; ///< that a packet has to have
    const std::uint32_t tailroom;
    const std::uint32_t path;    ///< bytes that the way takes
    const std::uint32_t longest; ///< packet in tunnel mode that fits it
    const std::uint8_t tos_mask; ///< what of the inner TOS is copied
    const bool copies_df;
    const bool esn;
    const std::uint64_t output_mark;

    /// Whether the packet is of this run.  All of one interface are of one VRF.
    [[nodiscard]] bool covers(const protect_item& item) const noexcept {
        return item.sa == &sa && item.p->interface == interface_;
    }
    [[nodiscard]] bool has_room(const packet& p) const noexcept {
        return p.headroom >= headroom && p.tailroom >= tailroom;
    }
    /// Text that begins with so many bytes, with padding, pad length and next header.
    [[nodiscard]] std::uint32_t text_length(std::uint32_t bytes) const noexcept {
        return (bytes + 1 + block) & -block;
    }
    /// Whether the SA may take one more packet; none: it may.  Nothing is asked for a burst while
    /// limits, the last number and the last nonce are farther away than that; else for each packet.
    [[nodiscard]] drop_reason admit(stage& s) noexcept {
        if (sequence_ != asked_upto_) [[likely]]
            return drop_reason::none;
        return ask(s);
    }
    /// Counts `bytes` of the inner IP packet.  Returns its sequence number.
    [[nodiscard]] std::uint64_t take(std::uint32_t bytes) noexcept {
        bytes_ += bytes;
        return ++sequence_;
    }
    /// The nonce that goes with a sequence number.
    [[nodiscard]] std::uint64_t nonce_of(std::uint64_t sequence) const noexcept {
        return sequence + nonce_ahead_;
    }

  private:
    [[nodiscard]] bool is_free() const noexcept {
        return is_far_from_limits(sa.account, max_burst) &&
               sequence_ <= sa.last_sequence - max_burst &&
               (!sa.counter_mode || sa.nonce_end - sa.nonce >= max_burst);
    }
    /// Looks at the SA itself, which that may change.
    [[gnu::noinline]] drop_reason ask(stage& s) noexcept {
        put_back();
        const drop_reason why = why_none_more(s);
        take_up();
        asked_upto_ = sequence_ + (why == drop_reason::none ? 1 : 0);
        return why;
    }
    [[nodiscard]] drop_reason why_none_more(stage& s) noexcept {
        if (!fastpath::admit(s, sa)) {
            s.counters.expired_out.add(1);
            return drop_reason::sa_expired;
        }
        if (sa.sequence_sent.get() >= sa.last_sequence) return drop_reason::sequence_exhausted;
        if (sa.counter_mode && sa.nonce == sa.nonce_end && !refill_nonces(sa))
            return drop_reason::nonces_exhausted;
        return drop_reason::none;
    }
    void take_up() noexcept {
        sequence_ = first_ = sa.sequence_sent.get();
        nonce_ahead_ = sa.nonce - first_ - 1;
    }
    void put_back() noexcept {
        if (sequence_ == first_) return;
        sa.sequence_sent.set(sequence_);
        if (sa.counter_mode) sa.nonce = nonce_of(sequence_) + 1;
        sa.account.packets.add(sequence_ - first_);
        sa.account.bytes.add(bytes_);
        sa.account.last_used.set(now_s_);
        bytes_ = 0;
    }

    const std::uint16_t interface_;
    const std::uint64_t now_s_;
    std::uint64_t first_, sequence_; ///< the last ones sent: in `sa`, by now
    std::uint64_t nonce_ahead_;      ///< of the sequence number
    std::uint64_t asked_upto_;       ///< the last number that nothing is asked for
    std::uint64_t bytes_ = 0;        ///< not yet in `sa`
};

/// What a burst gives the engine, and what remains to be done then.
struct esp_work {
    explicit esp_work(std::span<crypto::job> all) noexcept
        : first(all.data())
        , end(first) {}

    [[nodiscard]] std::span<crypto::job> jobs() const noexcept { return {first, end}; }

    crypto::job* const first;
    crypto::job* end;
    packet_list unsummed; ///< need a UDP checksum once they are encrypted
    bool longer = false;  ///< some are to leave in fragments
};

/// What becomes of a packet that fits neither its way nor, perhaps, its buffer.
///
/// in_front   bytes of it that stay in front of ESP: none in tunnel mode
[[gnu::cold, gnu::noinline]] drop_reason judge_long(stage& s, packet& p, const sa_run& run,
                                                    std::uint32_t in_front, esp_work& w) noexcept {
    if (run.refused != drop_reason::none) return run.refused;
    if (!run.has_room(p)) return drop_reason::no_room;
    const drop_reason why = exceed(s, p, run.sa, run.path, in_front);
    w.longer |= why == drop_reason::none;
    return why;
}

/// Everything that can stop a packet, before anything of it or of its SA has changed.
///
/// fits   its way
[[gnu::always_inline]] inline drop_reason check(stage& s, packet& p, sa_run& run, bool fits,
                                                std::uint32_t in_front, esp_work& w) noexcept {
    if (!fits) [[unlikely]]
        if (const drop_reason why = judge_long(s, p, run, in_front, w); why != drop_reason::none)
            return why;
    if (!run.has_room(p)) [[unlikely]]
        return drop_reason::no_room;
    return run.admit(s);
}

/// RFC 6040 in the kernel's form: CE inside becomes ECT(0) outside, everything else is copied.
std::uint8_t outer_tos(const sa_run& run, std::uint8_t inner) noexcept {
    const unsigned ce_as_ect0 = inner & ~(inner >> 1 & 1u);
    return static_cast<std::uint8_t>(ce_as_ect0 & run.tos_mask);
}

/// `p.tos` and `p.flags` are the inner packet's still.
[[gnu::always_inline]] inline void write_outer_v4(packet& p, const sa_run& run,
                                                  std::uint64_t sequence) noexcept {
    const bool df =
        run.copies_df &&
        (p.flags & (packet_flag::dont_fragment | packet_flag::split)) == packet_flag::dont_fragment;
    // Identification, flags and offset.  RFC 6864: unique where it counts.
    const std::uint32_t fragment = df ? std::uint32_t{wire::be16(wire::ipv4_df).network()} << 16
                                      : wire::be16(static_cast<std::uint16_t>(sequence)).network();
    const wire::be16 tos(outer_tos(run, p.tos)); // the second byte of its word
    const wire::be16 length(static_cast<std::uint16_t>(p.length));
    auto& ip = p.ipv4();
    // The template's checksum covers the fields that never change.
    std::uint32_t sum = static_cast<std::uint16_t>(~ip.checksum.network());
    sum += tos.network();
    sum += length.network();
    sum += fragment;
    ip.checksum = wire::checksum_finish(sum);
    ip.tos = static_cast<std::uint8_t>(tos.host());
    ip.total_length = length;
    wire::store(p.data + offsetof(wire::ipv4_header, id), fragment);
}

/// inner   where it begins; `p.family` is its own still
void write_outer_v6(packet& p, const sa_run& run, const std::uint8_t* inner) noexcept {
    std::uint32_t flow = 0;
    if (p.family == family::ipv6) flow = wire::load<wire::be32>(inner).host() & 0xfffff;
    auto& ip = p.ipv6();
    const std::uint32_t tos = outer_tos(run, p.tos);
    ip.version_class_flow.set(0x60000000u | (tos << 20) | flow);
    ip.payload_length.set(static_cast<std::uint16_t>(p.length - sizeof ip));
    p.l4_offset = sizeof ip;
}

/// Puts padding, pad length and next header behind a packet.
[[gnu::always_inline]] inline void write_trailer(std::uint8_t* end, std::uint32_t length,
                                                 std::uint8_t next) noexcept {
    const std::uint32_t pad = length - 2;
    std::memcpy(end, padding.data(), padding.size()); // what is too much lies under the ICV
    wire::store(end + pad, static_cast<std::uint16_t>(pad | next << 8));
}

/// IV of the packet: counting for counter modes (never twice for a key), unpredictable for CBC.
[[gnu::always_inline]] inline void write_iv(stage& s, const sa_run& run, std::uint64_t sequence,
                                            std::uint8_t* iv) noexcept {
    if (run.sa.counter_mode) [[likely]]
        wire::store(iv, wire::be64(run.nonce_of(sequence)));
    else
        s.crypto.unpredictable_iv(iv, run.sa.layout.iv_length);
}

/// The header that ends where ESP begins.
void write_udp_length(packet& p, const sa_run& run, std::uint8_t* esp, esp_work& w) noexcept {
    auto* udp = reinterpret_cast<wire::udp_header*>(esp - sizeof(wire::udp_header));
    udp->length.set(static_cast<std::uint16_t>(
        p.length - static_cast<std::uint32_t>(reinterpret_cast<std::uint8_t*>(udp) - p.data)));
    if (run.sa.outer_family == family::ipv6) w.unsummed.push(p);
}

/// Completes the headers that end where the IV begins; leaves the work for the engine.
///
/// text   bytes of it, trailer included
[[gnu::always_inline]] inline void finish_esp(stage& s, packet& p, const sa_run& run,
                                              std::uint64_t sequence, std::uint8_t* iv,
                                              std::uint32_t text, esp_work& w) noexcept {
    std::uint8_t* const esp = iv - sizeof(wire::esp_header);
    wire::store(esp + offsetof(wire::esp_header, sequence),
                wire::be32(static_cast<std::uint32_t>(sequence)));
    write_iv(s, run, sequence, iv);
    if (run.sa.encapsulated) write_udp_length(p, run, esp, w);
    p.flags |= packet_flag::encrypted;
    p.family = run.sa.outer_family;
    p.l2_length = 0;
    crypto::job& j = *w.end++;
    j.keys = run.sa.keys;
    j.esp = esp;
    j.text_length = text;
    j.seq_high = static_cast<std::uint32_t>(sequence >> 32);
    j.esn = run.esn;
}

/// Builds the packet around its inner one, of which `bytes` count.
[[gnu::always_inline]] inline void encapsulate(stage& s, packet& p, sa_run& run,
                                               std::uint32_t bytes, esp_work& w) noexcept {
    std::uint8_t* const inner = p.data;
    std::uint8_t* const iv = inner - run.sa.layout.iv_length;
    const std::uint32_t text = run.text_length(p.length);
    const std::uint32_t trailer = text - p.length;
    write_trailer(inner + p.length, trailer,
                  p.family == family::ipv4 ? wire::proto_ipip : wire::proto_ipv6);
    std::memcpy(iv - sa_out::template_size, run.sa.header.data(), sa_out::template_size);
    p.grow(run.front, trailer + run.icv_length);
    const std::uint64_t sequence = run.take(bytes);
    if (run.sa.outer_family == family::ipv4) [[likely]]
        write_outer_v4(p, run, sequence);
    else
        write_outer_v6(p, run, inner);
    finish_esp(s, p, run, sequence, iv, text, w);
}

/// Transport mode: opens a gap behind the packet's own header and puts ESP there.
void insert_esp(stage& s, packet& p, sa_run& run, const ip_front& front, esp_work& w) noexcept {
    const sa_out& sa = run.sa;
    const std::uint32_t upper = p.length - front.length;
    const std::uint32_t text = run.text_length(upper);
    write_trailer(p.data + p.length, text - upper, p.data[front.next_at]);
    p.grow(run.front, text - upper + run.icv_length);
    std::memmove(p.data, p.data + run.front, front.length);
    std::uint8_t* const iv = p.data + front.length + sa.header_length;
    std::memcpy(iv - sa.header_length, sa.header.end() - sa.header_length, sa.header_length);
    rewrite_front(p, front, sa.encapsulated ? wire::proto_udp : wire::proto_esp);
    p.l4_offset = static_cast<std::uint16_t>(front.length);
    finish_esp(s, p, run, run.take(upper), iv, text, w);
}

/// What happens to one packet before the engine has it.  Anything but none: it is to be dropped.
[[gnu::always_inline]] inline drop_reason build_tunnel(stage& s, packet& p, sa_run& run,
                                                       esp_work& w) noexcept {
    const std::uint32_t bytes = p.length;
    if (const drop_reason why = check(s, p, run, bytes <= run.longest, 0, w);
        why != drop_reason::none)
        return why;
    if (run.sa.tfc_pad != 0 && !hide_length(p, run.sa, run.path)) [[unlikely]]
        return drop_reason::no_room;
    encapsulate(s, p, run, bytes, w);
    return drop_reason::none;
}

/// As the kernel, it counts the bytes behind the IP header.
[[gnu::noinline]] drop_reason build_transport(stage& s, packet& p, sa_run& run,
                                              esp_work& w) noexcept {
    if ((p.flags & packet_flag::fragment) != 0) return drop_reason::transport_fragment;
    const ip_front front = front_before_esp(p);
    const std::uint32_t whole =
        front.length + run.front + run.text_length(p.length - front.length) + run.icv_length;
    const bool fits = run.refused == drop_reason::none && whole <= run.path;
    if (const drop_reason why = check(s, p, run, fits, front.length, w); why != drop_reason::none)
        return why;
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
                                                    esp_work& w, packet_list& out) noexcept {
    sa_run run(s, *items[0].p, *items[0].sa);
    const bool tunnel = run.sa.run_mode == ipsec::mode::tunnel;
    const protect_item* item = items.data();
    const protect_item* const end = item + items.size();
    do {
        packet& p = *item->p;
        const drop_reason why = tunnel ? build_tunnel(s, p, run, w) : build_transport(s, p, run, w);
        if (why != drop_reason::none) [[unlikely]] {
            s.drop(p, why);
            continue;
        }
        p.next = &run.route;
        if (run.output_mark != 0) [[unlikely]]
            p.put_mark(static_cast<std::uint32_t>(run.output_mark));
        out.push(p);
    } while (++item != end && run.covers(*item));
    return static_cast<std::size_t>(item - items.data());
}

} // namespace

std::uint32_t inner_mtu(const sa_out& sa, std::uint32_t mtu) noexcept {
    const std::uint32_t ip =
        sa.outer_family == family::ipv4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    return largest_packet(sa, mtu, sa.run_mode == ipsec::mode::transport ? ip : 0);
}

void give_away(stage& s, const protect_item& item, unsigned owner) noexcept {
    if (owner == sa_owner::spread)
        s.scratch.spread[s.spread++] = item;
    else
        s.hand_over(*item.p, owner, handover_phase::outbound, item.sa->name);
}

std::size_t keep_own(stage& s, std::span<protect_item> items) noexcept {
    std::size_t kept = 0;
    for (const protect_item& item : items)
        if (is_own(s, item)) items[kept++] = item;
    return kept;
}

// 1. Check room, path MTU, lifetime, sequence: a dropped packet leaves whole and burns no number.
// 2. Count it, take a sequence number and an IV, write headers and trailer.
// 3. Encrypt them all.
// 4. Give those in UDP over IPv6 their checksum.
// 5. Note where to cut those that are too long: it takes the place of where their UDP header is.
void outbound(stage& s, std::span<const protect_item> items, packet_list& out) noexcept {
    esp_work w(s.scratch.jobs);
    const unsigned first = out.size();
    for (auto rest = items; !rest.empty();)
        rest = rest.subspan(build_run(s, rest, w, out));
    s.crypto.encrypt(w.jobs());
    s.counters.encrypted.add(w.jobs().size());
    for (packet* p : w.unsummed)
        write_udp_checksum(*p);
    if (w.longer) [[unlikely]]
        note_paths(items, out, first);
}

} // namespace esplane::fastpath
