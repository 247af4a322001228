// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/port_xdp.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include <net/if.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/base/beside.h"

namespace esplane::fastpath {
namespace {

/// Frames that fills leave in the pool: for ICMP errors and the like.
constexpr std::size_t reserve_frames = 128;
/// sendto() calls a flush: the kernel takes 32 frames with each.
constexpr int kicks_a_flush = 8;
/// Of a port whose frames may take several of the pool's.
constexpr std::uint32_t large_buffer_count = 512;
/// Bytes behind a frame for what encryption adds.
constexpr std::uint32_t tail_reserve = 256;

/// Whether frames of the device may take several buffers.
result<bool> has_large_frames(const std::string& device) {
    ifreq question{};
    if (auto r = ask_device(SIOCGIFMTU, device, question); !r) return tl::unexpected(r.error());
    const auto mtu = static_cast<std::size_t>(question.ifr_mtu);
    if (mtu <= xdp_port::largest_multi_buffer_mtu) return mtu > xdp_port::largest_mtu;
    return fail(EMSGSIZE, device + ": MTU " + std::to_string(mtu) +
                              " does not fit a packet buffer; set at most " +
                              std::to_string(xdp_port::largest_multi_buffer_mtu) +
                              ": 'ip link set dev " + device + " mtu ...'");
}

/// The generic path sees frames again that go up: they are marked for it.
wire::mac_address punt_source_of(const guard& g) noexcept {
    return g.mode() == xdp_mode::generic ? g.punt_source() : wire::mac_address{};
}

/// Nothing to see to: the kernel will take the rest with the next call, or the device is gone,
/// which shows in tx_full as the ring fills.
bool stops_kicking() noexcept {
    return errno != EAGAIN && errno != EBUSY;
}

} // namespace

/// One rx queue.
struct xdp_port::queue {
    std::unique_ptr<xsk> socket;
    std::uint32_t unfilled = xsk::ring_size; ///< entries of the fill ring that hold no frame
    packet gathered; ///< what has come of a frame in several buffers; without an owner: nothing
    bool discarding = false; ///< the rest of a frame is to be lost
};

struct alignas(64) xdp_port::lane {
    unsigned index;
    std::vector<std::unique_ptr<queue>> queues;
    std::size_t next_queue = 0; ///< that receive begins with
    punt_queue punts;
    unique_fd sleeper; ///< epoll over the sockets: it stays when they change
    int descriptor;
    std::atomic<std::uint32_t> seen{0}; ///< of turn_
    struct {
        counter rx_packets, rx_bytes, rx_linearised, rx_no_large, tx_packets, tx_bytes, tx_full,
            tx_copied, punted, punt_full;
    } counters;

    lane(unsigned i, const guard& g)
        : index(i)
        , punts(g.punt_program(), g.ifindex(), punt_source_of(g))
        , sleeper(::epoll_create1(EPOLL_CLOEXEC))
        , descriptor(sleeper.get()) {}

    [[nodiscard]] queue& sender() noexcept { return *queues.front(); }
};

xdp_port::xdp_port(xdp_port_options options, buffer_pool& pool, guard& g)
    : options_(std::move(options))
    , pool_(pool)
    , guard_(g)
    , lent_(pool.count()) {}

xdp_port::~xdp_port() = default;

result<std::unique_ptr<xdp_port>> xdp_port::open(xdp_port_options options, buffer_pool& pool,
                                                 guard& g) {
    std::unique_ptr<xdp_port> p(new xdp_port(std::move(options), pool, g));
    if (auto opened = p->open_queues(); !opened) return tl::unexpected(std::move(opened.error()));
    p->link_ = link_of(p->device());
    p->told_up_ = p->up();
    return p;
}

result<void> xdp_port::open_queues() {
    const auto large = has_large_frames(options_.device);
    if (!large) return tl::unexpected(large.error());
    const auto counts = queues_of(options_.device);
    if (!counts) return tl::unexpected(counts.error());
    if (counts->rx > guard::max_queues)
        return fail(E2BIG, options_.device + ": " + std::to_string(counts->rx) +
                               " rx queues, more than the " + std::to_string(guard::max_queues) +
                               " of an AF_XDP port; use 'ethtool -L'");
    make_lanes(*counts);
    const auto bound =
        bind_first(bindings_to_try(options_.wish, guard_.mode(), *large), [&](const binding& b) {
            close_queues();
            return open_queues(*counts, b);
        });
    if (bound) {
        binding_ = *bound;
        return {};
    }
    close_queues();
    const error& e = bound.error();
    if (*large && another_may_do(e.code))
        return fail(EMSGSIZE, options_.device + ": frames above " + std::to_string(largest_mtu) +
                                  " bytes need multi-buffer AF_XDP (Linux 6.6, and the driver): " +
                                  e.text + "; or 'ip link set dev " + options_.device + " mtu " +
                                  std::to_string(largest_mtu) + "'");
    if (options_.wish == xdp_wish::zero_copy && another_may_do(e.code))
        return fail(e.code, options_.device + ": no zero-copy here (" + e.text +
                                "); use mode=auto, which takes it where the driver has it");
    if (e.code == EBUSY)
        return fail(EBUSY,
                    options_.device + ": another process has an " + e.text + "; stop it first");
    return fail(e.code, options_.device + ": " + e.text);
}

/// As many as were made first: workers count on them.
void xdp_port::make_lanes(const queue_counts& counts) {
    if (!lanes_.empty()) return;
    const unsigned n = std::min({std::max(options_.workers, 1u), counts.rx, counts.tx, max_lanes});
    for (unsigned i = 0; i < n; ++i)
        lanes_.push_back(std::make_unique<lane>(i, guard_));
}

result<void> xdp_port::open_queues(const queue_counts& counts, const binding& how) {
    if (how.multi_buffer && !large_) large_ = std::make_unique<large_buffers>(large_buffer_count);
    if (std::min(counts.rx, counts.tx) < lanes())
        return fail(EINVAL, "it had " + std::to_string(lanes()) +
                                " queues; give it as many again: 'ethtool -L'");
    for (std::uint32_t i = 0; i < counts.rx; ++i)
        if (auto opened = open_queue(i, how); !opened) return opened;
    return {};
}

result<void> xdp_port::open_queue(std::uint32_t index, const binding& how) {
    lane& l = *lanes_[index % lanes()];
    auto descriptor = guard_.means().open_socket(options_.busy_poll_us);
    if (!descriptor) return tl::unexpected(std::move(descriptor.error()));
    const xsk* first = index == 0 ? nullptr : lanes_[0]->sender().socket.get();
    auto socket = xsk::bind(std::move(*descriptor), pool_, first,
                            {guard_.ifindex(), index, index < lanes()}, how);
    if (!socket) return tl::unexpected(std::move(socket.error()));
    if (auto r = guard_.hold(index, (*socket)->fd()); !r) return r;
    epoll_event event{};
    event.events = EPOLLIN;
    if (::epoll_ctl(l.descriptor, EPOLL_CTL_ADD, (*socket)->fd(), &event) != 0)
        return fail_errno("epoll");
    l.queues.push_back(std::make_unique<queue>());
    l.queues.back()->socket = std::move(*socket);
    return {};
}

void xdp_port::close_queues() noexcept {
    for (const auto& l : lanes_) {
        for (const auto& q : l->queues) {
            packet* const half = &q->gathered;
            if (half->owner != nullptr) half->owner->release({&half, 1});
        }
        l->queues.clear();
    }
}

void xdp_port::let_go() noexcept {
    beside closing;
    for (const auto& l : lanes_)
        for (const auto& q : l->queues)
            closing.run([&q] { q->socket.reset(); });
}

std::optional<unsigned> xdp_port::not_seen_by() const noexcept {
    const std::uint32_t turn = turn_.load(std::memory_order_relaxed);
    for (const auto& l : lanes_)
        if (l->seen.load(std::memory_order_acquire) != turn) return l->index;
    return std::nullopt;
}

/// The kernel leaves ENETDOWN on the sockets of a device that goes, or moves to another namespace.
bool xdp_port::has_lost_device() const noexcept {
    int code = 0;
    socklen_t length = sizeof code;
    const int socket = lanes_[0]->sender().socket->fd();
    return ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &code, &length) == 0 && code == ENETDOWN;
}

result<bool> xdp_port::tend() {
    auto followed = follow_device();
    link_ = link_of(options_.device);
    const bool changed = up() != std::exchange(told_up_, up());
    if (!followed) return tl::unexpected(std::move(followed.error()));
    return changed;
}

result<void> xdp_port::follow_device() {
    const int there = static_cast<int>(::if_nametoindex(options_.device.c_str()));
    const bool had = has_device();
    if (had && there == guard_.ifindex() && !has_lost_device()) return {};
    if (had) turn_.fetch_add(1, std::memory_order_release);
    if (had || there != guard_.ifindex()) protected_ = false;
    if (there != 0) return take_up_again();
    if (!not_seen_by()) close_queues();
    return {};
}

std::string xdp_port::why_down() const {
    if (up()) return {};
    if (has_device() || link_ == link_state::gone)
        return fastpath::why_down(link_, options_.device);
    const auto worker = not_seen_by();
    return worker ? why_waiting(*worker) : "its device cannot be taken up";
}

result<void> xdp_port::take_up_again() {
    if (!protected_)
        if (auto attached = guard_.attach(options_.wish); !attached) return attached;
    protected_ = true;
    if (not_seen_by()) return {}; // the next time
    if (auto opened = open_queues(); !opened) return opened;
    turn_.fetch_add(1, std::memory_order_release);
    return {};
}

/// Whether the lane may touch its queues until it returns to its caller.
bool xdp_port::works(lane& l) noexcept {
    const std::uint32_t turn = turn_.load(std::memory_order_acquire);
    const bool is_up = (turn & 1) == 0;
    if (turn == l.seen.load(std::memory_order_relaxed)) [[likely]]
        return is_up;
    if (is_up) take_back(l);
    l.seen.store(turn, std::memory_order_release);
    return is_up;
}

/// Gives the pool the frames that the sockets before had: they are closed.
void xdp_port::take_back(lane& l) noexcept {
    l.counters.punt_full.add(l.punts.restart(guard_.ifindex(), punt_source_of(guard_)));
    lent_.take_back(l.index, [&](std::uint64_t frame) { pool_.give({&frame, 1}); });
}

std::size_t xdp_port::receive(unsigned lane_index, std::span<packet> into) noexcept {
    lane& l = *lanes_[lane_index];
    if (!works(l)) return 0;
    std::size_t received = 0;
    for (std::size_t i = 0; i < l.queues.size() && received < into.size(); ++i) {
        received += receive(l, *l.queues[l.next_queue], into.subspan(received));
        l.next_queue = l.next_queue + 1 >= l.queues.size() ? 0 : l.next_queue + 1;
    }
    return received;
}

std::size_t xdp_port::receive(lane& l, queue& q, std::span<packet> into) noexcept {
    xsk_ring_cons& rx = q.socket->rx;
    std::uint32_t at = 0;
    const std::uint32_t n = xsk_ring_cons__peek(&rx, static_cast<std::uint32_t>(into.size()), &at);
    std::uint64_t bytes = 0;
    std::uint32_t frames = 0;
    for (std::uint32_t i = 0; i < n; ++i) {
        const xdp_desc& d = *xsk_ring_cons__rx_desc(&rx, at + i);
        lent_.returned(d.addr);
        if (binding_.multi_buffer && !gather(l, q, d, into[frames])) continue;
        if (!binding_.multi_buffer) {
            __builtin_prefetch(pool_.base() + d.addr);
            pool_.describe(into[frames], d.addr, d.len);
        }
        bytes += into[frames++].length;
    }
    if (n > 0) {
        xsk_ring_cons__release(&rx, n);
        l.counters.rx_packets.add(frames);
        l.counters.rx_bytes.add(bytes);
        q.unfilled += n;
    }
    if (q.unfilled > 0) refill(l, q);
    return frames;
}

/// One buffer of a frame that may have several; true where `into` is a frame now.  One that leaves
/// no room behind it for encryption is copied too.
bool xdp_port::gather(lane& l, queue& q, const xdp_desc& d, packet& into) noexcept {
    const bool last = (d.options & xdp_packet_continues) == 0;
    const bool first = q.gathered.owner == nullptr && !q.discarding;
    const auto front = static_cast<std::uint32_t>(d.addr % buffer_pool::frame_size);
    if (first && last && front + d.len + tail_reserve <= buffer_pool::frame_size) {
        pool_.describe(into, d.addr, d.len);
        return true;
    }
    if (first) q.discarding = !large_->allocate(q.gathered, 0);
    packet& p = q.gathered;
    if (!q.discarding && d.len + tail_reserve > p.tailroom) {
        packet* const lost = &p;
        large_->release({&lost, 1});
        p.owner = nullptr;
        q.discarding = true;
    }
    if (!q.discarding) {
        std::memcpy(p.data + p.length, pool_.base() + d.addr, d.len);
        p.extend(static_cast<int>(d.len));
    }
    const std::uint64_t emptied = d.addr;
    pool_.give({&emptied, 1});
    if (!last) return false;
    const bool whole = !q.discarding;
    if (whole) into = p;
    (whole ? l.counters.rx_linearised : l.counters.rx_no_large).add(1);
    p.owner = nullptr;
    q.discarding = false;
    return whole;
}

void xdp_port::refill(lane& l, queue& q) noexcept {
    std::array<std::uint64_t, max_burst> frames;
    while (q.unfilled > 0 && pool_.within_reach() > reserve_frames) {
        const std::size_t want = std::min(
            {std::size_t{q.unfilled}, frames.size(), pool_.within_reach() - reserve_frames});
        const auto n = static_cast<std::uint32_t>(pool_.take({frames.data(), want}));
        std::uint32_t at = 0;
        if (n == 0 || xsk_ring_prod__reserve(&q.socket->fill, n, &at) == 0) {
            pool_.give({frames.data(), n});
            return;
        }
        for (std::uint32_t i = 0; i < n; ++i) {
            *xsk_ring_prod__fill_addr(&q.socket->fill, at + i) = frames[i];
            lent_.lend(frames[i], l.index);
        }
        xsk_ring_prod__submit(&q.socket->fill, n);
        q.unfilled -= n;
    }
}

std::size_t xdp_port::send(unsigned lane_index, std::span<packet* const> frames) noexcept {
    lane& l = *lanes_[lane_index];
    if (!works(l)) return 0;
    reclaim(l);
    queue& q = l.sender();
    std::uint32_t descriptors = 0;
    std::uint64_t bytes = 0;
    std::size_t n = 0;
    for (; n < frames.size(); ++n) {
        const std::uint32_t placed = place(l, q, *frames[n]);
        if (placed == 0) break;
        descriptors += placed;
        bytes += frames[n]->length;
        if (frames[n]->owner != &pool_) frames[n]->owner->release(frames.subspan(n, 1));
    }
    if (descriptors > 0) xsk_ring_prod__submit(&q.socket->tx, descriptors);
    l.counters.tx_packets.add(n);
    l.counters.tx_bytes.add(bytes);
    l.counters.tx_full.add(frames.size() - n);
    return n;
}

/// Puts a frame into the tx ring, from where it lies or, if that is not the pool, from a copy.
/// Returns how many descriptors it took; 0 where there is no room, or no frame for the copy.
std::uint32_t xdp_port::place(lane& l, queue& q, const packet& p) noexcept {
    constexpr std::uint32_t most = large_buffers::buffer_size / buffer_pool::frame_size;
    xsk_ring_prod& tx = q.socket->tx;
    const auto put = [&](std::uint64_t frame, std::uint32_t length, bool last) {
        std::uint32_t at = 0;
        (void)xsk_ring_prod__reserve(&tx, 1, &at); // there is room: asked before
        *xsk_ring_prod__tx_desc(&tx, at) = {frame, length, last ? 0 : xdp_packet_continues};
        lent_.lend(frame, l.index);
    };
    if (p.owner == &pool_) {
        if (xsk_prod_nb_free(&tx, 1) == 0) return 0;
        put(pool_.offset_of(p), p.length, true);
        return 1;
    }
    const std::uint32_t pieces = (p.length + buffer_pool::frame_size - 1) / buffer_pool::frame_size;
    std::array<std::uint64_t, most> copies;
    if (pieces > (binding_.multi_buffer ? most : 1) || xsk_prod_nb_free(&tx, pieces) < pieces)
        return 0;
    if (const std::size_t got = pool_.take({copies.data(), pieces}); got < pieces) {
        pool_.give({copies.data(), got});
        return 0;
    }
    for (std::uint32_t i = 0; i < pieces; ++i) {
        const std::uint32_t done = i * buffer_pool::frame_size;
        const std::uint32_t length = std::min(p.length - done, buffer_pool::frame_size);
        std::memcpy(pool_.base() + copies[i], p.data + done, length);
        put(copies[i], length, i + 1 == pieces);
    }
    l.counters.tx_copied.add(1);
    return pieces;
}

std::size_t xdp_port::punt(unsigned lane_index, std::span<packet* const> frames) noexcept {
    lane& l = *lanes_[lane_index];
    std::size_t n = 0;
    while (works(l) && n < frames.size() &&
           l.punts.push({frames[n]->data, frames[n]->length},
                        (frames[n]->flags & packet_flag::urgent) != 0))
        ++n;
    l.counters.punt_full.add(frames.size() - n);
    return n;
}

void xdp_port::flush(unsigned lane_index) noexcept {
    lane& l = *lanes_[lane_index];
    if (!works(l)) return;
    kick(l);
    reclaim(l);
    const auto [taken, refused] = l.punts.hand_up();
    l.counters.punted.add(taken);
    l.counters.punt_full.add(refused);
}

/// Gives sent frames back to the pool.
void xdp_port::reclaim(lane& l) noexcept {
    xsk_ring_cons& done = l.sender().socket->completion;
    std::array<std::uint64_t, max_burst> frames;
    std::uint32_t at = 0;
    while (const std::uint32_t n = xsk_ring_cons__peek(&done, max_burst, &at)) {
        for (std::uint32_t i = 0; i < n; ++i) {
            frames[i] = *xsk_ring_cons__comp_addr(&done, at + i);
            lent_.returned(frames[i]);
        }
        xsk_ring_cons__release(&done, n);
        pool_.give({frames.data(), n});
    }
}

/// Makes the kernel look at the rings where it does not by itself.
void xdp_port::kick(lane& l) noexcept {
    const xsk& sender = *l.sender().socket;
    for (int i = 0; i < kicks_a_flush && sender.has_unsent(); ++i) {
        if (!xsk_ring_prod__needs_wakeup(&sender.tx)) break;
        if (::sendto(sender.fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) < 0 && stops_kicking())
            break;
    }
    for (const auto& q : l.queues)
        if (options_.busy_poll_us != 0 ||
            (binding_.zero_copy && xsk_ring_prod__needs_wakeup(&q->socket->fill)))
            (void)::recvfrom(q->socket->fd(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
}

std::span<const int> xdp_port::descriptors(unsigned lane_index) const noexcept {
    return {&lanes_[lane_index]->descriptor, 1};
}

std::size_t xdp_port::queues() const noexcept {
    std::size_t n = 0;
    for (const auto& l : lanes_)
        n += l->queues.size();
    return n;
}

std::string xdp_port::mode() const {
    return name_of(guard_.mode(), binding_);
}

port_counters xdp_port::counters() const noexcept {
    port_counters c;
    for (const auto& l : lanes_) {
        c.rx_packets += l->counters.rx_packets.get();
        c.rx_bytes += l->counters.rx_bytes.get();
        c.rx_linearised += l->counters.rx_linearised.get();
        c.rx_no_buffer += l->counters.rx_no_large.get();
        c.tx_packets += l->counters.tx_packets.get();
        c.tx_bytes += l->counters.tx_bytes.get();
        c.tx_full += l->counters.tx_full.get();
        c.tx_copied += l->counters.tx_copied.get();
        c.punted += l->counters.punted.get();
        c.punt_full += l->counters.punt_full.get();
        for (const auto& q : l->queues)
            if (const auto s = q->socket->statistics())
                c.rx_no_buffer += s->rx_dropped + s->rx_ring_full;
    }
    c.kernel_denied = guard_.counters().denied();
    return c;
}

std::vector<named_count> xdp_port::extended_counters() const {
    xdp_statistics sum{};
    for (const auto& l : lanes_)
        for (const auto& q : l->queues)
            if (const auto s = q->socket->statistics()) {
                sum.rx_dropped += s->rx_dropped;
                sum.rx_invalid_descs += s->rx_invalid_descs;
                sum.tx_invalid_descs += s->tx_invalid_descs;
                sum.rx_ring_full += s->rx_ring_full;
                sum.rx_fill_ring_empty_descs += s->rx_fill_ring_empty_descs;
                sum.tx_ring_empty_descs += s->tx_ring_empty_descs;
            }
    return {{"xdp_rx_dropped", sum.rx_dropped},
            {"xdp_rx_invalid_descs", sum.rx_invalid_descs},
            {"xdp_tx_invalid_descs", sum.tx_invalid_descs},
            {"xdp_rx_ring_full", sum.rx_ring_full},
            {"xdp_rx_fill_ring_empty_descs", sum.rx_fill_ring_empty_descs},
            {"xdp_tx_ring_empty_descs", sum.tx_ring_empty_descs}};
}

} // namespace esplane::fastpath
