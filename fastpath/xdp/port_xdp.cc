// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/port_xdp.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <xdp/xsk.h>

#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/device.h"

namespace esplane::fastpath {
namespace {

/// Frames that fills leave in the pool: for ICMP errors and the like.
constexpr std::size_t reserve_frames = 128;
/// sendto() calls a flush: the kernel takes 32 frames with each.
constexpr int kicks_a_flush = 8;

result<void> check_mtu(const std::string& device) {
    ifreq question{};
    if (auto r = ask_device(SIOCGIFMTU, device, question); !r) return r;
    if (static_cast<std::size_t>(question.ifr_mtu) <= xdp_port::largest_mtu) return {};
    return fail(EMSGSIZE, device + ": MTU " + std::to_string(question.ifr_mtu) +
                              " does not fit a packet buffer; set at most " +
                              std::to_string(xdp_port::largest_mtu) + ": 'ip link set dev " +
                              device + " mtu ...'");
}

/// rx queues in use.  A device that does not know channels has one.
result<std::uint32_t> rx_queues(const std::string& device) {
    ethtool_channels channels{};
    channels.cmd = ETHTOOL_GCHANNELS;
    ifreq question{};
    question.ifr_data = reinterpret_cast<char*>(&channels);
    if (auto r = ask_device(SIOCETHTOOL, device, question); !r) {
        if (r.error().code == EOPNOTSUPP) return 1;
        return tl::unexpected(std::move(r.error()));
    }
    const std::uint32_t n = channels.rx_count + channels.combined_count;
    if (n <= guard::max_queues) return std::max(n, 1u);
    return fail(E2BIG, device + ": " + std::to_string(n) + " rx queues, more than the " +
                           std::to_string(guard::max_queues) +
                           " of an AF_XDP port; use "
                           "'ethtool -L'");
}

/// Nothing to see to: the kernel will take the rest with the next call, or the device is gone,
/// which shows in tx_full as the ring fills.
bool stops_kicking() noexcept {
    return errno != EAGAIN && errno != EBUSY;
}

} // namespace

/// One rx queue: its socket and rings.
struct xdp_port::queue {
    xsk_ring_cons rx{};
    xsk_ring_prod tx{}; ///< of the first queue alone
    xsk_ring_prod fill{};
    xsk_ring_cons completion{};
    xsk_socket* socket = nullptr;
    std::uint32_t unfilled = umem::ring_size; ///< entries of `fill` that hold no frame

    queue() = default;
    queue(const queue&) = delete;
    queue& operator=(const queue&) = delete;
    ~queue() {
        if (socket != nullptr) xsk_socket__delete(socket);
    }
    [[nodiscard]] int fd() const noexcept { return xsk_socket__fd(socket); }
    [[nodiscard]] bool has_unsent() const noexcept {
        return __atomic_load_n(tx.consumer, __ATOMIC_ACQUIRE) != tx.cached_prod;
    }
};

xdp_port::xdp_port(xdp_port_options options, umem& memory, guard& g)
    : options_(std::move(options))
    , memory_(memory)
    , pool_(memory.pool())
    , guard_(g)
    , punts_(g.punt_program(), g.ifindex(),
             g.mode() == xdp_mode::generic ? g.punt_source() : wire::mac_address{}) {}

xdp_port::~xdp_port() = default;

result<std::unique_ptr<xdp_port>> xdp_port::open(xdp_port_options options, umem& memory, guard& g) {
    if (auto fits = check_mtu(options.device); !fits) return tl::unexpected(fits.error());
    const auto count = rx_queues(options.device);
    if (!count) return tl::unexpected(count.error());
    std::unique_ptr<xdp_port> p(new xdp_port(std::move(options), memory, g));
    for (std::uint32_t i = 0; i < *count; ++i)
        if (auto r = p->open_queue(i); !r) return tl::unexpected(std::move(r.error()));
    return p;
}

result<void> xdp_port::open_queue(std::uint32_t index) {
    xsk_socket_config config{};
    config.rx_size = config.tx_size = umem::ring_size;
    config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
    config.bind_flags =
        static_cast<std::uint16_t>(XDP_USE_NEED_WAKEUP | (options_.copy ? XDP_COPY : 0));

    auto q = std::make_unique<queue>();
    const int e = retry_while_busy([&] {
        return xsk_socket__create_shared(&q->socket, options_.device.c_str(), index,
                                         memory_.handle(), &q->rx, index == 0 ? &q->tx : nullptr,
                                         &q->fill, &q->completion, &config);
    });
    if (e == -EBUSY)
        return fail(EBUSY, options_.device + ": another process has an AF_XDP socket on queue " +
                               std::to_string(index) + "; stop it first");
    if (e != 0)
        return fail_bpf(e, options_.device + ": AF_XDP socket on queue " + std::to_string(index));

    refill(*q);
    if (auto r = guard_.hold(index, q->fd()); !r) return r;
    xdp_options kernel_chose{};
    socklen_t length = sizeof kernel_chose;
    if (::getsockopt(q->fd(), SOL_XDP, XDP_OPTIONS, &kernel_chose, &length) == 0)
        zero_copy_ = (kernel_chose.flags & XDP_OPTIONS_ZEROCOPY) != 0;
    descriptors_.push_back(q->fd());
    queues_.push_back(std::move(q));
    return {};
}

std::size_t xdp_port::receive(unsigned, std::span<packet> into) noexcept {
    std::size_t received = 0;
    for (std::size_t i = 0; i < queues_.size() && received < into.size(); ++i) {
        received += receive(*queues_[next_queue_], into.subspan(received));
        next_queue_ = next_queue_ + 1 == queues_.size() ? 0 : next_queue_ + 1;
    }
    return received;
}

std::size_t xdp_port::receive(queue& q, std::span<packet> into) noexcept {
    std::uint32_t at = 0;
    const std::uint32_t n =
        xsk_ring_cons__peek(&q.rx, static_cast<std::uint32_t>(into.size()), &at);
    std::uint64_t bytes = 0;
    for (std::uint32_t i = 0; i < n; ++i) {
        const xdp_desc* d = xsk_ring_cons__rx_desc(&q.rx, at + i);
        __builtin_prefetch(pool_.base() + d->addr);
        pool_.describe(into[i], d->addr, d->len);
        bytes += d->len;
    }
    if (n > 0) {
        xsk_ring_cons__release(&q.rx, n);
        counters_.rx_packets.add(n);
        counters_.rx_bytes.add(bytes);
        q.unfilled += n;
    }
    if (q.unfilled > 0) refill(q);
    return n;
}

void xdp_port::refill(queue& q) noexcept {
    std::array<std::uint64_t, max_burst> frames;
    while (q.unfilled > 0 && pool_.within_reach() > reserve_frames) {
        const std::size_t want = std::min(
            {std::size_t{q.unfilled}, frames.size(), pool_.within_reach() - reserve_frames});
        std::uint32_t at = 0;
        if (xsk_ring_prod__reserve(&q.fill, static_cast<std::uint32_t>(want), &at) == 0) return;
        const auto n = static_cast<std::uint32_t>(pool_.take({frames.data(), want}));
        assert(n == want);
        for (std::uint32_t i = 0; i < n; ++i)
            *xsk_ring_prod__fill_addr(&q.fill, at + i) = frames[i];
        xsk_ring_prod__submit(&q.fill, n);
        q.unfilled -= n;
    }
}

std::size_t xdp_port::send(unsigned, std::span<packet* const> frames) noexcept {
    reclaim();
    xsk_ring_prod& tx = queues_.front()->tx;
    const auto wanted = static_cast<std::uint32_t>(frames.size());
    const std::uint32_t n = std::min(xsk_prod_nb_free(&tx, wanted), wanted);
    std::uint32_t at = 0;
    if (n > 0) (void)xsk_ring_prod__reserve(&tx, n, &at);
    std::uint64_t bytes = 0;
    for (std::uint32_t i = 0; i < n; ++i) {
        const packet& p = *frames[i];
        assert(p.owner == &pool_ && p.length > 0);
        *xsk_ring_prod__tx_desc(&tx, at + i) = {pool_.offset_of(p), p.length, 0};
        bytes += p.length;
    }
    if (n > 0) xsk_ring_prod__submit(&tx, n);
    counters_.tx_packets.add(n);
    counters_.tx_bytes.add(bytes);
    counters_.tx_full.add(wanted - n);
    return n;
}

std::size_t xdp_port::punt(unsigned, std::span<packet* const> frames) noexcept {
    std::size_t n = 0;
    while (n < frames.size() && punts_.push({frames[n]->data, frames[n]->length},
                                            (frames[n]->flags & packet_flag::urgent) != 0))
        ++n;
    counters_.punt_full.add(frames.size() - n);
    return n;
}

void xdp_port::flush(unsigned) noexcept {
    kick();
    reclaim();
    const auto [taken, refused] = punts_.hand_up();
    counters_.punted.add(taken);
    counters_.punt_full.add(refused);
}

/// Gives sent frames back to the pool.
void xdp_port::reclaim() noexcept {
    xsk_ring_cons& done = queues_.front()->completion;
    std::array<std::uint64_t, max_burst> frames;
    std::uint32_t at = 0;
    while (const std::uint32_t n = xsk_ring_cons__peek(&done, max_burst, &at)) {
        for (std::uint32_t i = 0; i < n; ++i)
            frames[i] = *xsk_ring_cons__comp_addr(&done, at + i);
        xsk_ring_cons__release(&done, n);
        pool_.give({frames.data(), n});
    }
}

/// Makes the kernel look at the rings where it does not by itself.
void xdp_port::kick() noexcept {
    const queue& sender = *queues_.front();
    for (int i = 0; i < kicks_a_flush && sender.has_unsent(); ++i) {
        if (!xsk_ring_prod__needs_wakeup(&sender.tx)) break;
        if (::sendto(sender.fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0 && stops_kicking())
            break;
    }
    for (const auto& q : queues_)
        if (zero_copy_ && xsk_ring_prod__needs_wakeup(&q->fill))
            (void)::recvfrom(q->fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
}

port_counters xdp_port::counters() const noexcept {
    port_counters c;
    c.rx_packets = counters_.rx_packets.get();
    c.rx_bytes = counters_.rx_bytes.get();
    c.tx_packets = counters_.tx_packets.get();
    c.tx_bytes = counters_.tx_bytes.get();
    c.tx_full = counters_.tx_full.get();
    c.punted = counters_.punted.get();
    c.punt_full = counters_.punt_full.get();
    for (const int fd : descriptors_) {
        xdp_statistics s{};
        socklen_t length = sizeof s;
        if (::getsockopt(fd, SOL_XDP, XDP_STATISTICS, &s, &length) == 0)
            c.rx_no_buffer += s.rx_dropped + s.rx_ring_full;
    }
    c.kernel_denied = guard_.counters().denied();
    return c;
}

} // namespace esplane::fastpath
