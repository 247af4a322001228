// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_tun.h"

#include <algorithm>
#include <array>
#include <nmmintrin.h>
#include <sys/epoll.h>

#include "fastpath/sa.h"

namespace esplane::fastpath {

namespace {

/// Asking costs a system call: while nothing comes, every so many loops is often enough.
constexpr unsigned loops_between = 16;
constexpr std::size_t devices_a_turn = 8;

std::uint32_t hash_of(std::uint32_t if_id) noexcept {
    return _mm_crc32_u32(0, if_id);
}

} // namespace

struct tun_port::interface {
    interface(tun d, std::uint32_t id)
        : device(std::move(d))
        , if_id(id)
        , hash(hash_of(id)) {
        way_out.kind = adjacency_kind::tunnel;
        way_out.if_id = id;
        way_out.mtu = largest_mtu; // the kernel has held packets against the device's
    }

    tun device;
    std::uint32_t if_id;
    std::uint32_t hash;
    adjacency way_out;
};

result<std::unique_ptr<tun_port>> tun_port::make(buffer_pool& pool, retired& graveyard,
                                                 unsigned lanes) {
    const int ready = ::epoll_create1(EPOLL_CLOEXEC);
    if (ready < 0) return fail_errno("epoll");
    return std::unique_ptr<tun_port>(new tun_port(pool, graveyard, lanes, ready));
}

tun_port::tun_port(buffer_pool& pool, retired& graveyard, unsigned lanes, int ready)
    : pool_(pool)
    , graveyard_(graveyard)
    , ready_(ready)
    , interfaces_(graveyard)
    , lanes_(lanes) {}

tun_port::~tun_port() {
    ::close(ready_);
}

result<void> tun_port::add(tun device, std::uint32_t if_id) {
    auto one = std::make_shared<interface>(std::move(device), if_id);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.ptr = one.get();
    if (::epoll_ctl(ready_, EPOLL_CTL_ADD, one->device.descriptor(), &event) != 0)
        return fail_errno("epoll");
    interfaces_.insert(one.get());
    owned_[if_id] = std::move(one);
    count_.fetch_add(1, std::memory_order_release);
    return {};
}

void tun_port::remove(std::uint32_t if_id) {
    const auto found = owned_.find(if_id);
    if (found == owned_.end()) return;
    std::shared_ptr<interface> one = std::move(found->second);
    owned_.erase(found);
    one->device.forsake();
    (void)::epoll_ctl(ready_, EPOLL_CTL_DEL, one->device.descriptor(), nullptr);
    interfaces_.erase(one.get());
    count_.fetch_sub(1, std::memory_order_release);
    graveyard_.add([gone = std::move(one)] {});
    (void)graveyard_.reclaim();
}

auto tun_port::find(std::uint32_t if_id) const noexcept -> interface* {
    return interfaces_.find(hash_of(if_id),
                            [&](const interface& one) { return one.if_id == if_id; });
}

std::size_t tun_port::receive(unsigned lane, std::span<packet> into) noexcept {
    if (lane != 0 || count_.load(std::memory_order_acquire) == 0) return 0;
    if (skipped_ != 0 && ++skipped_ <= loops_between) return 0;
    std::array<epoll_event, devices_a_turn> events;
    const int ready = ::epoll_wait(ready_, events.data(), events.size(), 0);
    std::size_t n = 0;
    for (int i = 0; i < ready; ++i) {
        const auto& from =
            *static_cast<const interface*>(events[static_cast<std::size_t>(i)].data.ptr);
        // A share for each, so that none starves the others.
        const std::size_t share = (into.size() - n) / static_cast<std::size_t>(ready - i);
        n += read(from, into.subspan(n, share));
    }
    skipped_ = n == 0 ? 1 : 0;
    return n;
}

std::size_t tun_port::read(const interface& from, std::span<packet> into) noexcept {
    lane_counters& counted = lanes_[0];
    std::size_t n = 0;
    while (n < into.size()) {
        packet& p = into[n];
        if (!pool_.allocate(p, largest_mtu)) {
            counted.rx_no_buffer.add(1);
            break;
        }
        const ssize_t length = ::read(from.device.descriptor(), p.data, largest_mtu);
        if (length <= 0) {
            if (length == 0 || (errno != EAGAIN && errno != EINTR)) // deleted: no more of it
                (void)::epoll_ctl(ready_, EPOLL_CTL_DEL, from.device.descriptor(), nullptr);
            packet* const unused = &p;
            pool_.release({&unused, 1});
            break;
        }
        p.extend(static_cast<int>(length));
        p.next = &from.way_out;
        counted.rx_packets.add(1);
        counted.rx_bytes.add(static_cast<std::uint64_t>(length));
        ++n;
    }
    return n;
}

std::size_t tun_port::punt(unsigned lane, std::span<packet* const> packets) noexcept {
    lane_counters& counted = lanes_[lane];
    std::size_t taken = 0;
    for (const packet* p : packets) {
        const interface* to = find(p->inbound_sa->if_id.load(std::memory_order_relaxed));
        if (to == nullptr || ::write(to->device.descriptor(), p->data, p->length) < 0) break;
        ++taken;
    }
    counted.punted.add(taken);
    counted.punt_full.add(packets.size() - taken);
    return taken;
}

port_counters tun_port::counters() const noexcept {
    port_counters all;
    for (const lane_counters& one : lanes_) {
        all.rx_packets += one.rx_packets.get();
        all.rx_bytes += one.rx_bytes.get();
        all.rx_no_buffer += one.rx_no_buffer.get();
        all.punted += one.punted.get();
        all.punt_full += one.punt_full.get();
    }
    return all;
}

} // namespace esplane::fastpath
