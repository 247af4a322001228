// SPDX-License-Identifier: Apache-2.0
#include "fastpath/dpdk/port_dpdk.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>

#include "fastpath/dpdk/mbuf_packet.h"
#include "fastpath/machine.h"

namespace esplane::fastpath {

namespace {

/// A look at the TAP is a system call: one in this many loops, unless the last one found a frame.
constexpr unsigned loops_a_look = 16;
/// Frames of the machine's in one look.
constexpr unsigned relayed_a_look = 32;
/// A mempool has a cache for each thread that DPDK knows.
thread_local unsigned lanes_of_thread = 0;

} // namespace

result<std::unique_ptr<dpdk_port>> dpdk_port::open(dpdk_port_options o, mbuf_memory& memory,
                                                   std::optional<tap> twin) {
    std::unique_ptr<dpdk_port> p(new dpdk_port(std::move(o), memory));
    if (auto up = p->take_up(); !up) return tl::unexpected(up.error());
    for (unsigned i = 0; i < p->device_->queues(); ++i)
        p->lanes_.push_back(std::make_unique<lane_state>());
    p->twin_ = std::move(twin);
    if (p->twin_)
        if (auto set = p->twin_->serve(p->device_->mac(), p->device_->mtu(), p->lanes()); !set)
            return tl::unexpected(set.error());
    (void)p->start(); // where it fails tend() tries again, and says why
    p->was_up_ = p->up();
    if (p->twin_) p->twin_->set_carrier(p->was_up_);
    return p;
}

dpdk_port::~dpdk_port() = default;

result<void> dpdk_port::take_up() {
    const unsigned wanted = lanes_.empty() ? options_.lanes : lanes();
    auto device =
        ethdev::open({options_.name, options_.device, options_.arguments, wanted}, memory_, pool_);
    if (!device) return tl::unexpected(device.error());
    if (!lanes_.empty() && (*device)->queues() != lanes())
        return fail(EINVAL, "came back with another number of queues: start esplaned anew");
    device_ = std::move(*device);
    pool_ = device_->pool();
    id_ = device_->id();
    return {};
}

result<void> dpdk_port::start() {
    if (auto started = device_->start(); !started) {
        device_.reset(); // no worker has seen it; what failed half-way is made anew
        return started;
    }
    usable_.store(true, std::memory_order_release);
    return {};
}

/// Workers leave the device alone from now on; it is closed when each of them has noticed.
void dpdk_port::take_down() {
    if (!leaving_) {
        usable_.store(false, std::memory_order_release);
        leaving_ = grace_period::begin();
    }
    if (!leaving_->over()) return;
    device_.reset();
    leaving_.reset();
}

result<bool> dpdk_port::tend() {
    if (device_) device_->refresh_link();
    if (device_ && device_->gone()) take_down();
    result<void> taken;
    if (!device_) taken = take_up();
    if (device_ && !device_->started() && !leaving_) taken = start();
    if (device_ && twin_) follow_twin();
    const bool is_up = up();
    if (twin_) twin_->set_carrier(is_up);
    const bool changed = is_up != std::exchange(was_up_, is_up);
    if (!taken && taken.error().code != ENODEV && !changed) return tl::unexpected(taken.error());
    return changed;
}

std::string dpdk_port::why_down() const {
    if (up()) return {};
    if (leaving_) return "a worker has not let go of the device that is gone (`esplane workers`)";
    return device_ ? "its device has no link" : "its device is gone";
}

/// MTU and MAC address that an administrator gave the TAP become the device's, or are taken back.
void dpdk_port::follow_twin() {
    const auto mtu = twin_->mtu();
    if (mtu && *mtu != device_->mtu() && !device_->set_mtu(*mtu))
        (void)twin_->set_mtu(device_->mtu());
    const auto mac = twin_->mac();
    if (mac && *mac != device_->mac()) (void)device_->set_mac(*mac);
}

void dpdk_port::enter(unsigned) noexcept {
    if (lanes_of_thread++ == 0 && rte_lcore_id() == LCORE_ID_ANY) (void)::rte_thread_register();
}

void dpdk_port::leave(unsigned) noexcept {
    if (--lanes_of_thread == 0) ::rte_thread_unregister();
}

std::size_t dpdk_port::receive(unsigned lane, std::span<packet> into) noexcept {
    if (!up()) return 0;
    std::array<rte_mbuf*, max_burst> mbufs;
    const auto room = static_cast<std::uint16_t>(std::min(into.size(), mbufs.size()));
    const unsigned n = rte_eth_rx_burst(id_, static_cast<std::uint16_t>(lane), mbufs.data(), room);
    if (n == 0) return 0;
    lane_state& l = *lanes_[lane];
    std::uint64_t bytes = 0;
    std::size_t kept = 0;
    for (unsigned i = 0; i < n; ++i) {
        rte_mbuf* m = mbufs[i];
        if (!is_whole_and_ours(*m)) [[unlikely]]
            m = bring_in(l, m);
        if (m == nullptr) continue;
        bytes += m->data_len;
        describe_mbuf(into[kept++], *m, memory_);
    }
    l.rx_packets.add(kept);
    l.rx_bytes.add(bytes);
    return kept;
}

/// A frame in several mbufs, or in memory that others hold too, as a frame in one of ours; nullptr
/// where there is none, or it does not fit.  Counted.
rte_mbuf* dpdk_port::bring_in(lane_state& l, rte_mbuf* frame) noexcept {
    rte_mbuf* whole = rte_pktmbuf_alloc(pool_);
    if (whole == nullptr) {
        l.rx_no_buffer.add(1);
    } else if (frame->pkt_len > rte_pktmbuf_tailroom(whole)) {
        l.rx_oversized.add(1);
        rte_pktmbuf_free(std::exchange(whole, nullptr));
    } else {
        char* to = rte_pktmbuf_append(whole, static_cast<std::uint16_t>(frame->pkt_len));
        for (const rte_mbuf* m = frame; m != nullptr; to += m->data_len, m = m->next)
            std::memcpy(to, rte_pktmbuf_mtod(m, const char*), m->data_len);
        whole->packet_type = frame->packet_type;
        whole->ol_flags = frame->ol_flags & said_of_checksums;
        (frame->nb_segs > 1 ? l.rx_linearised : l.rx_shared).add(1);
    }
    rte_pktmbuf_free(frame);
    return whole;
}

/// An mbuf with the frame of a packet whose buffer is of another kind; nullptr where none is left
/// or it does not fit.
rte_mbuf* dpdk_port::copy_of(const packet& p) noexcept {
    rte_mbuf* m = rte_pktmbuf_alloc(pool_);
    if (m == nullptr) return nullptr;
    char* to = p.length <= rte_pktmbuf_tailroom(m)
                   ? rte_pktmbuf_append(m, static_cast<std::uint16_t>(p.length))
                   : nullptr;
    if (to == nullptr) {
        rte_pktmbuf_free(m);
        return nullptr;
    }
    std::memcpy(to, p.data, p.length);
    return m;
}

std::size_t dpdk_port::send(unsigned lane, std::span<packet* const> frames) noexcept {
    if (!up()) {
        lanes_[lane]->tx_full.add(frames.size());
        return 0;
    }
    std::array<rte_mbuf*, max_burst> mbufs;
    lane_state& l = *lanes_[lane];
    std::size_t total = 0;
    while (total < frames.size()) {
        const auto part = frames.subspan(total, std::min(frames.size() - total, mbufs.size()));
        std::size_t n = 0;
        while (n < part.size() &&
               (mbufs[n] = part[n]->owner == &memory_ ? take_mbuf(*part[n]) : copy_of(*part[n])))
            ++n;
        const std::size_t sent = transmit(lane, mbufs.data(), n);
        for (std::size_t i = 0; i < n; ++i) {
            if (part[i]->owner == &memory_) continue;
            if (i < sent)
                part[i]->owner->release(part.subspan(i, 1));
            else
                rte_pktmbuf_free(mbufs[i]);
            if (i < sent) l.tx_copied.add(1);
        }
        total += sent;
        if (sent < part.size()) break;
    }
    l.tx_full.add(frames.size() - total);
    return total;
}

/// What the device took, it may have given back to the mempool by the time the call returns.
std::size_t dpdk_port::transmit(unsigned lane, rte_mbuf** mbufs, std::size_t n) noexcept {
    std::array<std::uint32_t, max_burst> lengths;
    for (std::size_t i = 0; i < n; ++i)
        lengths[i] = mbufs[i]->pkt_len;
    const std::size_t sent = rte_eth_tx_burst(id_, static_cast<std::uint16_t>(lane), mbufs,
                                              static_cast<std::uint16_t>(n));
    std::uint64_t bytes = 0;
    for (std::size_t i = 0; i < sent; ++i)
        bytes += lengths[i];
    lanes_[lane]->tx_packets.add(sent);
    lanes_[lane]->tx_bytes.add(bytes);
    return sent;
}

std::size_t dpdk_port::punt(unsigned lane, std::span<packet* const> frames) noexcept {
    lane_state& l = *lanes_[lane];
    std::size_t n = 0;
    while (n < frames.size() && twin_ && twin_->write(lane, {frames[n]->data, frames[n]->length}))
        ++n;
    l.punted.add(n);
    l.punt_full.add(frames.size() - n);
    return n;
}

void dpdk_port::relay(unsigned lane, machine_rules& rules) noexcept {
    if (!twin_ || ++lanes_[lane]->loops < loops_a_look) return;
    lanes_[lane]->loops = 0;
    for (unsigned i = 0; i < relayed_a_look; ++i)
        if (!relay_one(lane, rules)) return;
    lanes_[lane]->loops = loops_a_look;
}

/// Takes a frame off the TAP and sends it, if the rules allow it.  False where none waited.
bool dpdk_port::relay_one(unsigned lane, machine_rules& rules) noexcept {
    lane_state& l = *lanes_[lane];
    rte_mbuf* m = rte_pktmbuf_alloc(pool_);
    if (m == nullptr) return false;
    const std::size_t length = twin_->read(
        lane, {rte_pktmbuf_mtod(m, std::uint8_t*), std::size_t{rte_pktmbuf_tailroom(m)}});
    if (length == 0) {
        rte_pktmbuf_free(m);
        return false;
    }
    (void)rte_pktmbuf_append(m, static_cast<std::uint16_t>(length));
    packet p;
    describe_mbuf(p, *m, memory_);
    const bool allowed = rules.may_leave(p);
    if (!allowed) l.denied.add(1);
    if (!allowed || !up() || transmit(lane, &m, 1) == 0)
        rte_pktmbuf_free(m);
    else
        l.relayed.add(1);
    return true;
}

port_counters dpdk_port::counters() const noexcept {
    port_counters c;
    for (const auto& l : lanes_) {
        c.rx_packets += l->rx_packets.get();
        c.rx_bytes += l->rx_bytes.get();
        c.rx_linearised += l->rx_linearised.get();
        c.rx_no_buffer += l->rx_no_buffer.get();
        c.tx_packets += l->tx_packets.get();
        c.tx_bytes += l->tx_bytes.get();
        c.tx_full += l->tx_full.get();
        c.tx_copied += l->tx_copied.get();
        c.punted += l->punted.get();
        c.punt_full += l->punt_full.get();
        c.kernel_denied += l->denied.get();
    }
    if (device_) c.rx_no_buffer += device_->rx_lost();
    return c;
}

std::vector<named_count> dpdk_port::extended_counters() const {
    std::vector<named_count> all;
    std::uint64_t relayed = 0, shared = 0, oversized = 0;
    for (const auto& l : lanes_) {
        relayed += l->relayed.get();
        shared += l->rx_shared.get();
        oversized += l->rx_oversized.get();
    }
    all.push_back({"machine_relayed", relayed});
    all.push_back({"rx_shared", shared});
    all.push_back({"rx_oversized", oversized});
    if (device_)
        for (named_count& one : device_->extended_counters())
            all.push_back(std::move(one));
    return all;
}

} // namespace esplane::fastpath
