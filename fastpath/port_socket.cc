// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_socket.h"

#include <algorithm>
#include <fcntl.h>
#include <sys/epoll.h>

namespace esplane::fastpath {

namespace {

constexpr std::array raw_ways{net_way::esp_v4, net_way::esp_v6, net_way::whole_v4,
                              net_way::whole_v6};
constexpr std::array udp_ways{net_way::udp_v4, net_way::udp_v6};
constexpr std::size_t receiving_ways = 4;

constexpr std::size_t index_of(net_way way) noexcept {
    return static_cast<std::size_t>(way);
}

result<void> listen(int epoll, net_way way, int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u32 = static_cast<std::uint32_t>(way);
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("epoll");
    return {};
}

} // namespace

struct alignas(64) socket_port::lane_state {
    lane_state(std::uint16_t port, super_packets kernel, unique_fd epoll)
        : ready_fd(std::move(epoll))
        , ready(ready_fd.get())
        , sender(port, kernel.segment)
        , intake(port, kernel.merge) {}

    [[nodiscard]] int descriptor(net_way way) const noexcept {
        return sockets[index_of(way)].get();
    }
    [[nodiscard]] result<void> put(net_way way, unique_fd fd);

    std::array<unique_fd, net_ways> sockets;
    unique_fd ready_fd;
    int ready;         ///< epoll over those that receive; what the worker sleeps on
    unsigned turn = 0; ///< of these, which is asked first: a flood of one starves none
    socket_sender sender;
    socket_intake intake;
};

/// Under the descriptor that a worker uses, where there is one already.
result<void> socket_port::lane_state::put(net_way way, unique_fd fd) {
    if (!fd.valid()) return {};
    unique_fd& at = sockets[index_of(way)];
    if (!at.valid()) {
        at = std::move(fd);
        sender.use(way, at.get());
    } else {
        if (::dup3(fd.get(), at.get(), O_CLOEXEC) < 0) return fail_errno("dup3");
        sender.forget_options();
    }
    return receives(way) ? listen(ready, way, at.get()) : result<void>();
}

socket_port::socket_port(socket_port_options options, buffer_pool& pool,
                         std::unique_ptr<socket_share> share)
    : options_(std::move(options))
    , device_("port " + std::to_string(options_.sockets.port))
    , pool_(pool)
    , share_(std::move(share))
    , kernel_(super_packets_of(options_.sockets)) {}

socket_port::~socket_port() = default;

result<std::unique_ptr<socket_port>> socket_port::open(socket_port_options options,
                                                       buffer_pool& pool, unsigned lanes,
                                                       std::unique_ptr<socket_share> share) {
    std::unique_ptr<socket_port> p(new socket_port(std::move(options), pool, std::move(share)));
    if (auto made = p->make_lanes(lanes); !made) return tl::unexpected(made.error());
    for (const net_way way : udp_ways) {
        if (auto done = p->found_group(way); !done) return tl::unexpected(done.error());
        if (auto done = p->bind_lanes(way); !done) return tl::unexpected(done.error());
    }
    return p;
}

/// Lanes, and those of their sockets that are nobody else's.
result<void> socket_port::make_lanes(unsigned count) {
    for (unsigned lane = 0; lane < count; ++lane) {
        unique_fd ready(::epoll_create1(EPOLL_CLOEXEC));
        if (!ready.valid()) return fail_errno("epoll");
        lanes_.push_back(
            std::make_unique<lane_state>(options_.sockets.port, kernel_, std::move(ready)));
        lane_state& l = *lanes_.back();
        for (const net_way way : raw_ways) {
            auto fd = open_net_socket(way, options_.sockets, {lane, count});
            if (!fd) return tl::unexpected(fd.error());
            if (auto done = l.put(way, std::move(*fd)); !done) return done;
        }
        if (share_)
            l.intake.return_ike_by(l.descriptor(net_way::whole_v4),
                                   l.descriptor(net_way::whole_v6));
        l.intake.grant_ike(ike_per_second);
    }
    return {};
}

/// The first of the group's sockets, and one for each CPU that no lane's will name.
result<void> socket_port::found_group(net_way way) {
    if (!share_) return {};
    if (auto room = share_->make_room(family_of(way)); !room) return room;
    std::vector<unique_fd>& group = stand_ins_[index_of(way)];
    auto founder = open_stand_in(way, options_.sockets);
    if (!founder || !founder->valid()) return founder.map([](const unique_fd&) {});
    if (auto done = share_->found(family_of(way), founder->get()); !done) return done;
    group.push_back(std::move(*founder));
    const long cpus = kernel_.merge ? ::sysconf(_SC_NPROCESSORS_CONF) : 0;
    for (long cpu = lanes(); cpu < cpus; ++cpu) {
        auto fd = open_stand_in(way, options_.sockets);
        if (!fd) return tl::unexpected(fd.error());
        name_cpu(fd->get(), static_cast<unsigned>(cpu));
        group.push_back(std::move(*fd));
    }
    return {};
}

result<void> socket_port::bind_lanes(net_way way) {
    std::vector<int> sockets;
    for (unsigned lane = 0; lane < lanes(); ++lane) {
        auto fd = open_net_socket(way, options_.sockets, {lane, lanes()});
        if (!fd) return tl::unexpected(fd.error());
        if (!fd->valid()) return {};
        if (auto done = lanes_[lane]->put(way, std::move(*fd)); !done) return done;
        sockets.push_back(lanes_[lane]->descriptor(way));
        if (share_) name_cpu(sockets.back(), lane);
    }
    return share_ ? share_->divide(family_of(way), sockets) : result<void>();
}

/// Under the descriptors that workers use.  What they send meanwhile is refused, and counted.
result<void> socket_port::leave_group(net_way way) {
    const unique_fd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (const auto& l : lanes_)
        if (::dup3(nothing.get(), l->descriptor(way), O_CLOEXEC) < 0) return fail_errno("dup3");
    stand_ins_[index_of(way)].clear();
    return {};
}

/// A new socket joins the group of whichever the kernel finds on the port: none of ours is there.
result<void> socket_port::follow(net_way way, group_advice advice) {
    if (advice == group_advice::stay) return {};
    if (auto left = leave_group(way); !left || advice == group_advice::leave) return left;
    if (auto done = found_group(way); !done) return done;
    return bind_lanes(way);
}

std::span<const int> socket_port::descriptors(unsigned lane) const noexcept {
    return {&lanes_[lane]->ready, 1};
}

std::size_t socket_port::receive(unsigned lane, std::span<packet> into) noexcept {
    lane_state& l = *lanes_[lane];
    std::size_t n = l.intake.cut(into, pool_);
    if (n == into.size() || !l.intake.empty()) return n;
    std::array<epoll_event, receiving_ways> events;
    const int ready = ::epoll_wait(l.ready, events.data(), events.size(), 0);
    const unsigned ways = ready > 0 ? static_cast<unsigned>(ready) : 0;
    ++l.turn;
    for (unsigned i = 0; i < ways && n < into.size() && l.intake.empty(); ++i) {
        const std::size_t way = events[(l.turn + i) % ways].data.u32;
        l.intake.fill(static_cast<net_way>(way), l.descriptor(static_cast<net_way>(way)));
        n += l.intake.cut(into.subspan(n), pool_);
    }
    return n;
}

std::size_t socket_port::send(unsigned lane, std::span<packet* const> frames) noexcept {
    return lanes_[lane]->sender.send(frames);
}

result<bool> socket_port::tend() {
    for (const auto& l : lanes_)
        l->intake.grant_ike(ike_per_second);
    for (const net_way way : udp_ways) {
        if (!share_ || lanes_[0]->descriptor(way) < 0) continue;
        auto advice = share_->look(family_of(way));
        if (!advice) return tl::unexpected(advice.error());
        if (auto done = follow(way, *advice); !done) return tl::unexpected(done.error());
    }
    return false;
}

port_counters socket_port::counters() const noexcept {
    port_counters all;
    for (const auto& l : lanes_) {
        const socket_intake::counts& in = l->intake.counted();
        const socket_sender::counts& out = l->sender.counted();
        all.rx_packets += in.packets.get();
        all.rx_bytes += in.bytes.get();
        all.rx_no_buffer += in.no_buffer.get() + in.socket_full.get();
        all.tx_packets += out.packets.get();
        all.tx_bytes += out.bytes.get();
        all.tx_full += out.full.get();
    }
    return all;
}

std::vector<named_count> socket_port::extended_counters() const {
    std::vector<named_count> all{{"tx_too_long"},   {"tx_refused"},   {"tx_messages"},
                                 {"rx_messages"},   {"rx_too_long"},  {"rx_not_esp"},
                                 {"rx_keepalives"}, {"ike_returned"}, {"ike_lost"}};
    for (const auto& l : lanes_) {
        const socket_intake::counts& in = l->intake.counted();
        const socket_sender::counts& out = l->sender.counted();
        const counter* const counters[] = {&out.too_long,  &out.refused,     &out.messages,
                                           &in.messages,   &in.too_long,     &in.not_esp,
                                           &in.keepalives, &in.ike_returned, &in.ike_lost};
        for (std::size_t i = 0; i < all.size(); ++i)
            all[i].value += counters[i]->get();
    }
    return all;
}

std::string socket_port::mode() const {
    if (kernel_.segment && kernel_.merge) return "segment+merge";
    return kernel_.segment ? "segment" : kernel_.merge ? "merge" : "plain";
}

std::vector<path_limit> socket_port::take_path_limits() {
    std::vector<path_limit> limits;
    for (const auto& l : lanes_)
        for (const ipsec::address& to : l->sender.take_too_long())
            if (const std::uint32_t mtu = path_mtu(to, options_.sockets.mark); mtu != 0)
                limits.push_back({to, mtu});
    return limits;
}

} // namespace esplane::fastpath
