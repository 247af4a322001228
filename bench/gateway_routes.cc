// SPDX-License-Identifier: Apache-2.0
//
// A full BGP table from the kernel: how long from rtnetlink to the last route in the path's table.
//
//   1,000,000 IPv4 + 200,000 IPv6 routes in a network namespace of its own
//       --> rtnetlink dump --> route_monitor --> changes --> tables
//
// Needs root.  The namespace goes with the thread that measures.
#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sched.h>
#include <thread>
#include <unistd.h>

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include "bench/gateway.h"
#include "fastpath/tables.h"
#include "lib/base/unique_fd.h"
#include "xfrm/route.h"

namespace esplane::bench {
namespace {

constexpr unsigned routes_v4 = 1'000'000;
constexpr unsigned routes_v6 = 200'000;

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Fills the kernel's tables, many messages a system call; ip -batch would take minutes.
class filler {
  public:
    explicit filler(int ifindex)
        : ifindex_(ifindex)
        , fd_(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) {}

    /// Blocks of 16: a prefix and 15 longer ones in it, as in the Internet's table.
    void fill_v4() {
        for (unsigned i = 0; i < routes_v4; ++i) {
            const unsigned block = 0x01000000 + (i / 16) * 0x1000;
            const unsigned bits = i % 16 == 0 ? block : block + i % 16 * 0x100;
            const std::array<std::uint8_t, 4> gateway{10, 255, 0,
                                                      static_cast<std::uint8_t>(2 + i % 7)};
            const wire::be32 destination(bits);
            add(AF_INET, &destination, 4, i % 16 == 0 ? 20 : 24, gateway.data());
        }
        flush();
    }
    void fill_v6() {
        for (unsigned i = 0; i < routes_v6; ++i) {
            std::array<std::uint8_t, 16> destination{0x20, 0x01};
            wire::store(destination.data() + 2, wire::be32(i));
            std::array<std::uint8_t, 16> gateway{0xfd, 0x01};
            gateway[15] = static_cast<std::uint8_t>(2 + i % 7);
            add(AF_INET6, destination.data(), 16, 48, gateway.data());
        }
        flush();
    }

  private:
    void add(unsigned char af, const void* destination, std::size_t length, unsigned char prefix,
             const std::uint8_t* gateway) {
        std::byte* at = message_.data() + used_;
        nlmsghdr header{};
        header.nlmsg_type = RTM_NEWROUTE;
        header.nlmsg_flags = NLM_F_REQUEST | NLM_F_CREATE;
        rtmsg route{};
        route.rtm_family = af;
        route.rtm_dst_len = prefix;
        route.rtm_table = RT_TABLE_MAIN;
        route.rtm_protocol = RTPROT_BGP;
        route.rtm_type = RTN_UNICAST;
        std::size_t n = NLMSG_HDRLEN;
        std::memcpy(at + n, &route, sizeof route);
        n += NLMSG_ALIGN(sizeof route);
        n += attribute(at + n, RTA_DST, destination, length);
        n += attribute(at + n, RTA_GATEWAY, gateway, length);
        n += attribute(at + n, RTA_OIF, &ifindex_, sizeof ifindex_);
        header.nlmsg_len = static_cast<std::uint32_t>(n);
        std::memcpy(at, &header, sizeof header);
        used_ += NLMSG_ALIGN(n);
        if (used_ + 256 > message_.size()) flush();
    }
    static std::size_t attribute(std::byte* at, int type, const void* data, std::size_t length) {
        const rtattr a{static_cast<unsigned short>(RTA_LENGTH(length)),
                       static_cast<unsigned short>(type)};
        std::memcpy(at, &a, sizeof a);
        std::memcpy(at + RTA_LENGTH(0), data, length);
        return RTA_SPACE(length);
    }
    void flush() {
        if (::send(fd_.get(), message_.data(), used_, 0) < 0) std::perror("filling the kernel");
        used_ = 0;
    }

    int ifindex_;
    unique_fd fd_;
    std::array<std::byte, 32 << 10> message_{};
    std::size_t used_ = 0;
};

bool prepare_namespace() {
    return ::unshare(CLONE_NEWNET) == 0 &&
           std::system("ip link add r0 type veth peer name r1 && ip link set r0 up && "
                       "ip link set r1 up && ip addr add 10.255.0.1/24 dev r0 && "
                       "ip addr add fd01::1/64 dev r0 nodad && "
                       // no room for 200,000 by default
                       "echo 1000000 > /proc/sys/net/ipv6/route/max_size") == 0;
}

/// Takes in what the kernel has to say; returns the longest step's seconds, or why not.
result<double> follow(xfrm::route_monitor& monitor, fastpath::tables& tables, int ifindex) {
    double longest_s = 0;
    do {
        const auto start = std::chrono::steady_clock::now();
        const auto change = monitor.poll();
        if (!change) return tl::unexpected(change.error());
        tables.apply(*change, monitor.current(), {{{ifindex, 0}}, {}});
        longest_s = std::max(longest_s, seconds_since(start));
    } while (monitor.unfinished());
    return longest_s;
}

gateway_rows measure_load() {
    constexpr const char* name = "routes_load";
    if (!prepare_namespace()) return {not_measured(name, "needs root")};
    const int ifindex = static_cast<int>(::if_nametoindex("r0"));
    filler kernel(ifindex);
    auto start = std::chrono::steady_clock::now();
    kernel.fill_v4();
    kernel.fill_v6();
    const double filled_s = seconds_since(start);

    fastpath::tables tables;
    start = std::chrono::steady_clock::now();
    auto monitor = xfrm::route_monitor::open();
    if (!monitor) return {not_measured(name, monitor.error().text)};
    const auto longest_s = follow(**monitor, tables, ifindex);
    if (!longest_s) return {not_measured(name, longest_s.error().text)};
    gateway_row r;
    r.name = name;
    r.measured = seconds_since(start);
    r.unit = "s";
    r.limit = 10;
    const auto usage = tables.routes().usage();
    r.note = std::to_string(usage.routes_v4) + " IPv4 and " + std::to_string(usage.routes_v6) +
             " IPv6 routes; longest step " + std::to_string(std::lround(*longest_s * 1000)) +
             " ms; the kernel took " + std::to_string(std::lround(filled_s)) + " s to learn them";
    if (usage.routes_v4 < routes_v4 || usage.routes_v6 < routes_v6)
        return {not_measured(name, "routes are missing: " + r.note)};
    return {r};
}

} // namespace

gateway_rows measure_routes() {
    gateway_rows rows;
    std::thread([&] { rows = measure_load(); }).join();
    return rows;
}

} // namespace esplane::bench
