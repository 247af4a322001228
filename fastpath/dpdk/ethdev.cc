// SPDX-License-Identifier: Apache-2.0
#include "fastpath/dpdk/ethdev.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <sys/random.h>
#include <thread>

#include <rte_alarm.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fastpath/dpdk/eal.h"

namespace esplane::fastpath {

namespace {

constexpr std::uint16_t usual_descriptors = 512;
/// Buffers on their way through the workers, per lane: bursts, held packets, mempool caches.
constexpr std::uint32_t buffers_under_way = 1024;
constexpr std::uint64_t spread_by =
    RTE_ETH_RSS_IP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_SCTP | RTE_ETH_RSS_ESP;

/// A call of ethdev's: its error in the driver's words where it has some.
template <typename Call>
result<void> driver(const char* what, Call call) {
    auto done = quietly(call);
    if (done) return {};
    return fail(done.error().code, std::string(what) + ": " + done.error().text);
}

/// A step that not every driver has, and that one can do without.
template <typename Call>
bool optional_step(Call call) {
    return quietly(call).has_value();
}

rte_eth_conf configuration_for(const rte_eth_dev_info& info, unsigned queues) {
    rte_eth_conf c{};
    c.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_CHECKSUM;
    c.intr_conf.lsc = (*info.dev_flags & RTE_ETH_DEV_INTR_LSC) != 0;
    c.intr_conf.rmv = (*info.dev_flags & RTE_ETH_DEV_INTR_RMV) != 0;
    const std::uint64_t hash = info.flow_type_rss_offloads & spread_by;
    if (queues > 1 && hash != 0) {
        c.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
        c.rx_adv_conf.rss_conf.rss_hf = hash;
    }
    return c;
}

std::uint16_t descriptors(std::uint16_t preferred) {
    return preferred != 0 ? preferred : usual_descriptors;
}

wire::mac_address bytes_of(const rte_ether_addr& a) {
    wire::mac_address mac;
    std::memcpy(mac.data(), a.addr_bytes, mac.size());
    return mac;
}

/// Locally administered: for devices that have none.
wire::mac_address random_mac() {
    wire::mac_address mac{};
    (void)!::getrandom(mac.data(), mac.size(), 0);
    mac[0] = static_cast<std::uint8_t>((mac[0] & 0xfc) | 0x02);
    return mac;
}

} // namespace

int on_device_event(std::uint16_t id, int event, void* device, void*) noexcept {
    auto& d = *static_cast<ethdev*>(device);
    if (event == RTE_ETH_EVENT_INTR_RMV) {
        d.link_up_.store(false, std::memory_order_relaxed);
        d.gone_.store(true, std::memory_order_release);
    }
    if (event == RTE_ETH_EVENT_INTR_LSC) {
        rte_eth_link link{};
        if (::rte_eth_link_get_nowait(id, &link) == 0)
            d.link_up_.store(link.link_status == RTE_ETH_LINK_UP, std::memory_order_relaxed);
    }
    return 0;
}

namespace {

/// Waits until EAL's interrupt thread has done what it has begun.  A driver whose peer goes (memif,
/// vhost) tidies up there, and the first sign of it comes before the end: closing the device
/// meanwhile would close its descriptors twice, the second time somebody else's.
void let_interrupts_finish() {
    std::atomic<bool> passed{false};
    const auto pass = [](void* flag) { static_cast<std::atomic<bool>*>(flag)->store(true); };
    if (::rte_eal_alarm_set(1, pass, &passed) != 0) return;
    for (int i = 0; i < 1000 && !passed; ++i)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (!passed) (void)::rte_eal_alarm_cancel(pass, &passed);
}

int forward_event(std::uint16_t id, rte_eth_event_type event, void* device, void* unused) {
    return on_device_event(id, event, device, unused);
}

} // namespace

result<std::unique_ptr<ethdev>> ethdev::open(const ethdev_options& o, mbuf_memory& memory,
                                             rte_mempool* pool) {
    const auto id = probe_device(o.device, o.arguments);
    if (!id) return tl::unexpected(id.error());
    std::unique_ptr<ethdev> d(new ethdev(*id));
    d->pool_ = pool;
    d->connects_ = socket_end_of(o.device, o.arguments) == socket_end::client;
    if (auto done = d->configure(o, memory); !done) return tl::unexpected(done.error());
    d->find_mac();
    d->watch(true);
    return d;
}

result<void> ethdev::configure(const ethdev_options& o, mbuf_memory& memory) {
    rte_eth_dev_info info{};
    if (auto got = driver("device", [&] { return ::rte_eth_dev_info_get(id_, &info); }); !got)
        return got;
    queues_ = std::max(
        1u, std::min({o.lanes, unsigned{info.max_rx_queues}, unsigned{info.max_tx_queues}}));
    const rte_eth_conf c = configuration_for(info, queues_);
    const auto queues = static_cast<std::uint16_t>(queues_);
    if (auto done = driver("configuration",
                           [&] { return ::rte_eth_dev_configure(id_, queues, queues, &c); });
        !done)
        return done;
    return set_up_queues(o, memory);
}

result<void> ethdev::set_up_queues(const ethdev_options& o, mbuf_memory& memory) {
    rte_eth_dev_info info{};
    (void)::rte_eth_dev_info_get(id_, &info);
    std::uint16_t rx = descriptors(info.default_rxportconf.ring_size);
    std::uint16_t tx = descriptors(info.default_txportconf.ring_size);
    if (auto done = driver("descriptors",
                           [&] { return ::rte_eth_dev_adjust_nb_rx_tx_desc(id_, &rx, &tx); });
        !done)
        return done;
    std::uint16_t mtu = 0;
    if (::rte_eth_dev_get_mtu(id_, &mtu) == 0 && mtu != 0) mtu_ = mtu;
    const int node = ::rte_eth_dev_socket_id(id_);
    if (pool_ == nullptr) {
        const std::uint32_t count = queues_ * (std::uint32_t{rx} + tx + buffers_under_way);
        const std::uint32_t frame = std::max(common_frame, mtu_ + 22); // Ethernet, two tags
        auto made = memory.make_pool("esplane_" + o.name, count, frame, node);
        if (!made) return tl::unexpected(made.error());
        pool_ = *made;
    }
    for (unsigned i = 0; i < queues_; ++i) {
        const auto q = static_cast<std::uint16_t>(i);
        const auto socket = static_cast<unsigned>(node);
        if (auto done = driver(
                "rx queue",
                [&] { return ::rte_eth_rx_queue_setup(id_, q, rx, socket, nullptr, pool_); });
            !done)
            return done;
        if (auto done = driver(
                "tx queue", [&] { return ::rte_eth_tx_queue_setup(id_, q, tx, socket, nullptr); });
            !done)
            return done;
    }
    return {};
}

result<void> ethdev::start() {
    if (auto done = driver("start", [&] { return ::rte_eth_dev_start(id_); }); !done) return done;
    started_ = true;
    // Neighbour discovery comes to group addresses.
    if (!optional_step([&] { return ::rte_eth_allmulticast_enable(id_); }))
        (void)optional_step([&] { return ::rte_eth_promiscuous_enable(id_); });
    refresh_link();
    return {};
}

void ethdev::find_mac() {
    rte_ether_addr a{};
    const bool has_one =
        ::rte_eth_macaddr_get(id_, &a) == 0 && rte_is_valid_assigned_ether_addr(&a);
    mac_ = has_one ? bytes_of(a) : random_mac();
    if (!has_one) (void)set_mac(mac_); // a device that takes none receives whatever comes
}

void ethdev::watch(bool on) {
    const auto change = on ? ::rte_eth_dev_callback_register : ::rte_eth_dev_callback_unregister;
    for (const auto event : {RTE_ETH_EVENT_INTR_LSC, RTE_ETH_EVENT_INTR_RMV})
        while (change(id_, event, forward_event, this) == -EAGAIN) // it runs, and uses this object
            std::this_thread::yield();
}

ethdev::~ethdev() {
    watch(false);
    let_interrupts_finish();
    rte_eth_dev_info info{};
    const bool known = ::rte_eth_dev_info_get(id_, &info) == 0;
    (void)quietly([&] {
        if (started_) (void)::rte_eth_dev_stop(id_);
        (void)::rte_eth_dev_close(id_);
        return known && info.device != nullptr ? ::rte_dev_remove(info.device) : 0;
    });
}

void ethdev::refresh_link() noexcept {
    rte_eth_link link{};
    if (::rte_eth_dev_is_removed(id_) != 0) gone_.store(true, std::memory_order_release);
    if (!gone() && ::rte_eth_link_get_nowait(id_, &link) == 0)
        link_up_.store(link.link_status == RTE_ETH_LINK_UP, std::memory_order_relaxed);
    if (connects_ && was_up_ && !link_up()) gone_.store(true, std::memory_order_release);
    was_up_ = link_up();
}

result<void> ethdev::set_mtu(std::uint32_t mtu) {
    const std::uint32_t room =
        rte_pktmbuf_data_room_size(pool_) - mbuf_memory::headroom - mbuf_memory::room_behind;
    if (mtu + 22 > room)
        return fail(EMSGSIZE, "MTU " + std::to_string(mtu) + " does not fit a packet buffer: at " +
                                  "most " + std::to_string(room - 22));
    auto set =
        driver("MTU", [&] { return ::rte_eth_dev_set_mtu(id_, static_cast<std::uint16_t>(mtu)); });
    // A device that knows no MTU has no limit of its own.
    if (!set && set.error().code != ENOTSUP) return set;
    mtu_ = mtu;
    return {};
}

result<void> ethdev::set_mac(const wire::mac_address& mac) {
    rte_ether_addr a{};
    std::memcpy(a.addr_bytes, mac.data(), mac.size());
    auto set = driver("MAC address", [&] { return ::rte_eth_dev_default_mac_addr_set(id_, &a); });
    if (set) mac_ = mac;
    return set;
}

std::uint64_t ethdev::rx_lost() const {
    rte_eth_stats s{};
    return ::rte_eth_stats_get(id_, &s) == 0 ? s.imissed + s.rx_nombuf : 0;
}

std::vector<named_count> ethdev::extended_counters() const {
    const int count = ::rte_eth_xstats_get_names(id_, nullptr, 0);
    if (count <= 0) return {};
    const auto size = static_cast<unsigned>(count);
    std::vector<rte_eth_xstat_name> names(size);
    std::vector<rte_eth_xstat> values(size);
    if (::rte_eth_xstats_get_names(id_, names.data(), size) != count ||
        ::rte_eth_xstats_get(id_, values.data(), size) != count)
        return {};
    std::vector<named_count> all;
    for (const rte_eth_xstat& v : values)
        if (v.id < size) all.push_back({names[v.id].name, v.value});
    return all;
}

} // namespace esplane::fastpath
