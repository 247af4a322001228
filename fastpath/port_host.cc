// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_host.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <sys/uio.h>
#include <unistd.h>

#include "fastpath/coalesce.h"
#include "fastpath/counters.h"
#include "fastpath/offload.h"
#include "fastpath/segment.h"

namespace esplane::fastpath {

namespace {

/// Asking costs a system call: while nothing comes, every so many loops is often enough.
constexpr unsigned loops_between = 3;
/// Packets from which on a burst ends with a super-packet: the next one is a burst by itself, and
/// so stays one message on the way and one super-packet at the far end.
constexpr std::size_t large = 16;
/// An offload header, the longest IP packet, and a byte by which a longer one is known.
constexpr std::size_t read_bytes = sizeof(offload_header) + 65535 + 40 + 1;

result<void> check_mtu(const std::string& device, std::uint32_t mtu) {
    if (mtu <= host_port::largest_mtu) return {};
    const std::string most = std::to_string(host_port::largest_mtu);
    return fail(EMSGSIZE, device + ": MTU " + std::to_string(mtu) +
                              " does not fit a packet buffer; set at most " + most);
}

} // namespace

struct alignas(64) host_port::lane_state {
    lane_state(int fd, coalescer::abilities can)
        : queue(fd)
        , merging(can) {}

    /// Whether something that was read waits to be taken.
    [[nodiscard]] bool holds() const noexcept { return !cutting.done() || !whole.empty(); }

    int queue;
    unsigned skipped = 0;          ///< calls since the queue was last asked
    segmenter cutting;             ///< of what was read
    std::span<std::uint8_t> whole; ///< or a packet as it is
    coalescer merging;
    struct {
        counter rx_packets, rx_bytes, rx_no_buffer, rx_segmented, rx_refused;
        counter tx_packets, tx_bytes, tx_full, punted, punt_full, punt_merged;
    } counted;
    alignas(64) std::array<std::uint8_t, read_bytes> read;
};

host_port::host_port(tun_queues queues, host_port_options options, buffer_pool& pool)
    : options_(std::move(options))
    , pool_(pool)
    , queues_(std::move(queues))
    , ifindex_(queues_.ifindex()) {
    const auto [tcp, udp] = queues_.passes();
    const coalescer::abilities can{.tcp = options_.coalesce && tcp,
                                   .udp = options_.coalesce && udp};
    for (std::size_t i = 0; i < queues_.size(); ++i)
        lanes_.push_back(std::make_unique<lane_state>(queues_.descriptor(i), can));
}

host_port::~host_port() = default;

result<std::unique_ptr<host_port>> host_port::open(host_port_options options, buffer_pool& pool,
                                                   unsigned lanes) {
    if (auto fits = check_mtu(options.device, options.mtu); !fits)
        return tl::unexpected(fits.error());
    auto queues = tun_queues::open(options.device, options.mtu, lanes);
    if (!queues) return tl::unexpected(queues.error());
    const auto state = state_of_tun(queues->ifindex());
    if (state)
        if (auto fits = check_mtu(options.device, state->mtu); !fits)
            return tl::unexpected(fits.error());
    auto p = over(std::move(*queues), std::move(options), pool);
    p->up_ = p->told_up_ = state && state->up;
    return p;
}

std::unique_ptr<host_port> host_port::over(tun_queues queues, host_port_options options,
                                           buffer_pool& pool) {
    return std::unique_ptr<host_port>(new host_port(std::move(queues), std::move(options), pool));
}

std::string host_port::mode() const {
    const auto [tcp, udp] = queues_.passes();
    if (tcp && udp) return "TCP and UDP in super-packets";
    return tcp ? "TCP in super-packets" : "packet by packet";
}

std::string host_port::lacking() const {
    const auto [tcp, udp] = queues_.passes();
    if (udp) return {};
    return options_.device + ": the kernel passes " + (tcp ? "UDP" : "TCP and UDP") +
           " packet by packet through a TUN device, which costs speed: Linux 6.2 or later has what "
           "is missing";
}

result<void> host_port::set_mtu(std::uint32_t mtu) {
    if (auto fits = check_mtu(options_.device, mtu); !fits) return fits;
    options_.mtu = mtu; // of a device that has to be made anew, too
    return set_tun_mtu(ifindex(), mtu);
}

std::span<const int> host_port::descriptors(unsigned lane) const noexcept {
    return {&lanes_[lane]->queue, 1};
}

std::size_t host_port::receive(unsigned lane, std::span<packet> into) noexcept {
    lane_state& l = *lanes_[lane];
    if (l.skipped != 0 && ++l.skipped <= loops_between) return 0;
    std::size_t n = 0, reads = 0;
    std::uint64_t bytes = 0;
    bool cutting = !l.cutting.done();
    while (n < into.size()) {
        if (!l.holds()) {
            if ((cutting && n >= large) || reads++ == into.size() || !fetch(l)) break;
            cutting = !l.cutting.done();
            continue;
        }
        if (!pool_.allocate(into[n], largest_mtu)) {
            l.counted.rx_no_buffer.add(1);
            break;
        }
        take(l, into[n]);
        bytes += into[n++].length;
    }
    l.skipped = n == 0 ? 1 : 0;
    l.counted.rx_packets.add(n);
    l.counted.rx_bytes.add(bytes);
    return n;
}

/// Reads one packet; true where there was one, though it may have been refused.
bool host_port::fetch(lane_state& l) noexcept {
    const ssize_t got = ::read(l.queue, l.read.data(), l.read.size());
    if (got <= static_cast<ssize_t>(sizeof(offload_header))) return false;
    offload_header o;
    std::memcpy(&o, l.read.data(), sizeof o);
    const std::span packet(l.read.data() + sizeof o, static_cast<std::size_t>(got) - sizeof o);
    const bool cut_short = got == static_cast<ssize_t>(l.read.size());
    if (o.kind == offload_header::not_merged && packet.size() <= largest_mtu) {
        if ((o.flags & offload_header::needs_checksum) != 0) complete_checksum(packet, o);
        l.whole = packet;
    } else if (o.kind != offload_header::not_merged && !cut_short &&
               l.cutting.start_ip(packet, o.segment_size) && l.cutting.longest() <= largest_mtu) {
        l.counted.rx_segmented.add(1);
    } else {
        l.cutting.stop();
        l.counted.rx_refused.add(1);
    }
    return true;
}

/// What l.holds(), or the first segment of it.
void host_port::take(lane_state& l, packet& into) noexcept {
    if (!l.cutting.done()) {
        into.extend(static_cast<int>(l.cutting.next(into.data)));
        return;
    }
    std::memcpy(into.data, l.whole.data(), l.whole.size());
    into.extend(static_cast<int>(l.whole.size()));
    l.whole = {};
}

/// Returns how many the kernel has taken.
std::size_t host_port::hand_up(lane_state& l, std::span<packet* const> packets) noexcept {
    std::size_t taken = 0;
    while (!packets.empty()) {
        const std::size_t burst = std::min<std::size_t>(packets.size(), max_burst);
        l.merging.start(packets.first(burst));
        while (!l.merging.done()) {
            const coalescer::batch b = l.merging.next();
            if (::writev(l.queue, b.pieces.data(), static_cast<int>(b.pieces.size())) < 0) continue;
            taken += b.packets.size();
            if (b.packets.size() > 1) l.counted.punt_merged.add(1);
        }
        packets = packets.subspan(burst);
    }
    return taken;
}

std::size_t host_port::punt(unsigned lane, std::span<packet* const> packets) noexcept {
    lane_state& l = *lanes_[lane];
    const std::size_t taken = hand_up(l, packets);
    l.counted.punted.add(taken);
    l.counted.punt_full.add(packets.size() - taken);
    return taken;
}

/// All were copied, or are lost: the caller gives back as many buffers as there were lost packets.
std::size_t host_port::send(unsigned lane, std::span<packet* const> packets) noexcept {
    lane_state& l = *lanes_[lane];
    const std::size_t taken = hand_up(l, packets);
    std::uint64_t bytes = 0;
    for (packet* p : packets.first(taken)) {
        bytes += p->length;
        p->owner->release({&p, 1});
    }
    l.counted.tx_packets.add(taken);
    l.counted.tx_bytes.add(bytes);
    l.counted.tx_full.add(packets.size() - taken);
    return taken;
}

/// A device that is gone is down for one round, so that all who care hear of it.
result<bool> host_port::tend() {
    const auto state = state_of_tun(ifindex());
    result<void> made;
    if (!state && !up()) made = make_anew();
    up_.store(state ? state->up : !up() && made.has_value(), std::memory_order_relaxed);
    const bool changed = up() != std::exchange(told_up_, up());
    if (!made) return tl::unexpected(made.error());
    return changed;
}

result<void> host_port::make_anew() {
    auto fresh = tun_queues::open(options_.device, options_.mtu, lanes());
    if (!fresh) return tl::unexpected(fresh.error());
    if (auto replaced = queues_.replace_by(std::move(*fresh)); !replaced) return replaced;
    ifindex_.store(queues_.ifindex(), std::memory_order_relaxed);
    return {};
}

port_counters host_port::counters() const noexcept {
    port_counters all;
    for (const auto& l : lanes_) {
        all.rx_packets += l->counted.rx_packets.get();
        all.rx_bytes += l->counted.rx_bytes.get();
        all.rx_no_buffer += l->counted.rx_no_buffer.get();
        all.tx_packets += l->counted.tx_packets.get();
        all.tx_bytes += l->counted.tx_bytes.get();
        all.tx_full += l->counted.tx_full.get();
        all.punted += l->counted.punted.get();
        all.punt_full += l->counted.punt_full.get();
    }
    return all;
}

std::vector<named_count> host_port::extended_counters() const {
    named_count segmented{"rx_segmented"}, refused{"rx_refused"}, merged{"punt_merged"};
    for (const auto& l : lanes_) {
        segmented.value += l->counted.rx_segmented.get();
        refused.value += l->counted.rx_refused.get();
        merged.value += l->counted.punt_merged.get();
    }
    return {segmented, refused, merged};
}

} // namespace esplane::fastpath
