// SPDX-License-Identifier: Apache-2.0
//
// What socket_port is tested in: namespaces of its own, plain sockets of a peer, and what those
// send and see.
//
//   socket_port e0 10.7.0.1, fd07::1 ------ p0 10.7.0.2, fd07::2 the peer's sockets
#pragma once

#include <cstdlib>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <numeric>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "fastpath/port_socket.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {

using bytes = std::vector<std::uint8_t>;

inline constexpr std::uint16_t nat_t = 4500;
inline constexpr std::uint16_t peer_port = 5000;

struct way_of_test {
    bool v4;
    bool super_packets;
};

inline ipsec::address ip(const std::string& text) {
    return ipsec::address::parse(text).value();
}

inline void run(const std::string& command) {
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

inline void set(int fd, int level, int option, int value) {
    ASSERT_EQ(::setsockopt(fd, level, option, &value, sizeof value), 0) << option;
}

struct endpoint {
    sockaddr_storage at{};
    socklen_t length = 0;
};

inline endpoint endpoint_of(const ipsec::address& a, std::uint16_t port) {
    endpoint e;
    if (a.fam == ipsec::family::ipv4) {
        auto& s = reinterpret_cast<sockaddr_in&>(e.at);
        s.sin_family = AF_INET;
        s.sin_port = htons(port);
        s.sin_addr.s_addr = a.as_v4().network();
        e.length = sizeof s;
    } else {
        auto& s = reinterpret_cast<sockaddr_in6&>(e.at);
        s.sin6_family = AF_INET6;
        s.sin6_port = htons(port);
        std::copy(a.bytes.begin(), a.bytes.end(), s.sin6_addr.s6_addr);
        e.length = sizeof s;
    }
    return e;
}

/// A payload of ESP: SPI, then a number, then bytes that follow from it.
inline bytes esp(std::uint32_t spi, std::uint32_t number, std::size_t length) {
    bytes b(length);
    std::iota(b.begin(), b.end(), static_cast<std::uint8_t>(number));
    wire::store(b.data(), wire::be32(spi));
    wire::store(b.data() + 4, wire::be32(number));
    return b;
}

inline bytes ike(std::size_t length) {
    bytes b(length, 0x11);
    wire::store(b.data(), wire::be32(0));
    wire::store(b.data() + 4 + 24, wire::be32(static_cast<std::uint32_t>(length - 4)));
    return b;
}

class SocketPort : public testing::TestWithParam<way_of_test> {
  protected:
    static void SetUpTestSuite() {
        if (peer_ >= 0) return;
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
        peer_ = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
        own_ = ::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        const std::string other =
            "/proc/" + std::to_string(::getpid()) + "/fd/" + std::to_string(peer_);
        run("ip link set lo up; ip link add e0 type veth peer name p0 netns " + other);
        run("ip address add 10.7.0.1/24 dev e0; ip address add 10.7.0.9/24 dev e0; "
            "ip address add fd07::1/64 dev e0 nodad; ip address add fd07::9/64 dev e0 nodad; "
            "ip link set e0 up");
        ASSERT_EQ(::setns(peer_, CLONE_NEWNET), 0);
        run("ip link set lo up; ip address add 10.7.0.2/24 dev p0; "
            "ip address add fd07::2/64 dev p0 nodad; ip link set p0 up");
        await_link("p0");
        ASSERT_EQ(::setns(own_, CLONE_NEWNET), 0);
        await_link("e0");
        run("ping -q -c 1 10.7.0.2 >/dev/null; ping -q -c 1 fd07::2 >/dev/null");
    }

    void SetUp() override {
        ASSERT_EQ(::setns(peer_, CLONE_NEWNET), 0);
        udp_ = peer_socket(SOCK_DGRAM, IPPROTO_UDP);
        const endpoint any = endpoint_of(v4() ? ip("0.0.0.0") : ip("::"), peer_port);
        ASSERT_EQ(::bind(udp_.get(), reinterpret_cast<const sockaddr*>(&any.at), any.length), 0);
        raw_esp_ = peer_socket(SOCK_RAW, IPPROTO_ESP);
        sniffer_ = peer_socket(SOCK_RAW, IPPROTO_UDP);
        ASSERT_EQ(::setns(own_, CLONE_NEWNET), 0);
        pool_ = std::move(*buffer_pool::make(1024));
    }

    /// The kernel looks at links once a second or so, and sends nothing before.
    static void await_link(const std::string& device) {
        run("for i in $(seq 150); do ip link show " + device +
            " | grep -q 'state UP' && "
            "[ -z \"$(ip -6 address show tentative)\" ] && exit 0; sleep 0.02; done; exit 1");
    }

    [[nodiscard]] static bool v4() { return GetParam().v4; }
    [[nodiscard]] static bool supers() { return GetParam().super_packets; }
    [[nodiscard]] static ipsec::address local() { return ip(v4() ? "10.7.0.1" : "fd07::1"); }
    [[nodiscard]] static ipsec::address remote() { return ip(v4() ? "10.7.0.2" : "fd07::2"); }
    [[nodiscard]] static std::size_t ip_header() { return v4() ? 20 : 40; }

    [[nodiscard]] static unique_fd peer_socket(int type, int protocol) {
        const int family = v4() ? AF_INET : AF_INET6;
        unique_fd fd(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
        set(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
        set(fd.get(), v4() ? IPPROTO_IP : IPPROTO_IPV6, v4() ? IP_RECVTOS : IPV6_RECVTCLASS, 1);
        return fd;
    }

    void open(unsigned lanes = 1, net_socket_options options = {}) {
        options.segment = options.merge = supers();
        auto opened =
            socket_port::open({"net", port_role::secure, options}, *pool_, lanes, nullptr);
        ASSERT_TRUE(opened) << opened.error().text;
        port_ = std::move(*opened);
    }

    /// A frame of the port: IP in front of `payload`, and UDP where a port is given.
    [[nodiscard]] packet frame(const bytes& payload, std::uint16_t source_port,
                               std::uint8_t tos = 0, bool df = false, std::uint8_t protocol = 0,
                               ipsec::address source = local()) {
        packet p;
        EXPECT_TRUE(pool_->allocate(p, 0));
        const std::size_t udp = source_port != 0 ? 8 : 0;
        const std::size_t total = ip_header() + udp + payload.size();
        p.extend(static_cast<int>(total));
        if (protocol == 0) protocol = udp != 0 ? wire::proto_udp : wire::proto_esp;
        if (v4()) {
            auto& h = p.ipv4();
            h = {};
            h.version_ihl = 0x45;
            h.tos = tos;
            h.total_length.set(static_cast<std::uint16_t>(total));
            h.fragment.set(df ? wire::ipv4_df : 0);
            h.ttl = 64;
            h.protocol = protocol;
            h.source = source.as_v4();
            h.destination = remote().as_v4();
            h.checksum = wire::checksum_finish(wire::checksum_add(0, p.data, 20));
        } else {
            auto& h = p.ipv6();
            h = {};
            h.version_class_flow.set(0x60000000u | std::uint32_t{tos} << 20);
            h.payload_length.set(static_cast<std::uint16_t>(total - 40));
            h.hop_limit = 64;
            h.next_header = protocol;
            h.source = source.bytes;
            h.destination = remote().bytes;
        }
        std::uint8_t* at = p.data + ip_header();
        if (udp != 0) {
            wire::store(
                at, wire::udp_header{wire::be16(source_port), wire::be16(peer_port),
                                     wire::be16(static_cast<std::uint16_t>(total - ip_header())),
                                     wire::be16()});
            at += udp;
        }
        std::copy(payload.begin(), payload.end(), at);
        p.flags = fastpath::packet_flag::encrypted;
        return p;
    }

    std::size_t send(std::vector<packet>& frames) {
        std::vector<packet*> list;
        for (packet& p : frames)
            list.push_back(&p);
        return port_->send(0, list);
    }

    struct datagram {
        bytes payload;
        endpoint from;
        int tos = -1;
    };

    /// What a socket of the peer's has got, in order.
    static std::vector<datagram> read_all(int fd) {
        std::vector<datagram> all;
        for (pollfd p{fd, POLLIN, 0}; ::poll(&p, 1, 50) == 1;) {
            datagram d;
            d.payload.resize(65536);
            iovec piece{d.payload.data(), d.payload.size()};
            alignas(cmsghdr) char room[256];
            msghdr m{&d.from.at, sizeof d.from.at, &piece, 1, room, sizeof room, 0};
            const ssize_t length = ::recvmsg(fd, &m, 0);
            EXPECT_GE(length, 0);
            d.payload.resize(static_cast<std::size_t>(length));
            for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c))
                if (c->cmsg_type == IP_TOS || c->cmsg_type == IPV6_TCLASS) d.tos = *CMSG_DATA(c);
            all.push_back(std::move(d));
        }
        return all;
    }

    void peer_sends(const bytes& payload, std::uint16_t segment = 0, int tos = 0) {
        const endpoint to = endpoint_of(local(), nat_t);
        set(udp_.get(), v4() ? IPPROTO_IP : IPPROTO_IPV6, v4() ? IP_TOS : IPV6_TCLASS, tos);
        set(udp_.get(), IPPROTO_UDP, UDP_SEGMENT, segment);
        ASSERT_EQ(::sendto(udp_.get(), payload.data(), payload.size(), 0,
                           reinterpret_cast<const sockaddr*>(&to.at), to.length),
                  static_cast<ssize_t>(payload.size()));
    }

    /// What the port gives, in calls for `room` frames.
    std::vector<bytes> receive(std::size_t room = max_burst, unsigned lane = 0) {
        std::vector<bytes> all;
        pollfd p{port_->descriptors(lane)[0], POLLIN, 0};
        while (::poll(&p, 1, 50) == 1 || !all.empty()) {
            const std::vector<bytes> some = receive_once(room, lane);
            all.insert(all.end(), some.begin(), some.end());
            if (some.empty() && ::poll(&p, 1, 0) == 0) break;
        }
        return all;
    }
    /// One burst of it.
    std::vector<bytes> receive_once(std::size_t room, unsigned lane = 0) {
        std::vector<bytes> all;
        std::vector<packet> into(room);
        const std::size_t n = port_->receive(lane, into);
        for (packet& one : std::span(into).first(n)) {
            EXPECT_EQ(one.headroom, buffer_pool::headroom);
            all.emplace_back(one.data, one.data + one.length);
            packet* const back = &one;
            one.owner->release({&back, 1});
        }
        return all;
    }

    [[nodiscard]] bytes payload_of(const bytes& frame, std::size_t headers) const {
        return {frame.begin() + static_cast<std::ptrdiff_t>(headers), frame.end()};
    }

    /// Whether the outer headers are those of what the peer sent.
    void expect_headers(const bytes& f, bool udp, int tos) {
        ASSERT_GE(f.size(), ip_header() + 8);
        if (v4()) {
            const auto h = wire::load<wire::ipv4_header>(f.data());
            EXPECT_EQ(wire::checksum_fold(wire::checksum_add(0, f.data(), 20)), 0xffff);
            EXPECT_EQ(h.total_length.host(), f.size());
            EXPECT_EQ(h.tos, tos);
            EXPECT_EQ(h.ttl, 64);
            EXPECT_EQ(h.protocol, udp ? wire::proto_udp : wire::proto_esp);
            EXPECT_EQ(h.source, remote().as_v4());
            EXPECT_EQ(h.destination, local().as_v4());
        } else {
            const auto h = wire::load<wire::ipv6_header>(f.data());
            EXPECT_EQ(h.version_class_flow.host() >> 28, 6u);
            EXPECT_EQ(h.version_class_flow.host() >> 20 & 0xff, static_cast<unsigned>(tos));
            EXPECT_EQ(h.payload_length.host(), f.size() - 40);
            EXPECT_EQ(h.hop_limit, 64);
            EXPECT_EQ(h.next_header, udp ? wire::proto_udp : wire::proto_esp);
            EXPECT_EQ(h.source, remote().bytes);
            EXPECT_EQ(h.destination, local().bytes);
        }
        if (!udp) return;
        const auto u = wire::load<wire::udp_header>(f.data() + ip_header());
        EXPECT_EQ(u.source.host(), peer_port);
        EXPECT_EQ(u.destination.host(), nat_t);
        EXPECT_EQ(u.length.host(), f.size() - ip_header());
    }

    [[nodiscard]] std::uint64_t count(const std::string& name) const {
        for (const named_count& c : port_->extended_counters())
            if (c.name == name) return c.value;
        ADD_FAILURE() << name;
        return 0;
    }

    static inline int peer_ = -1, own_ = -1; ///< network namespaces
    unique_fd udp_, raw_esp_, sniffer_;
    std::unique_ptr<buffer_pool> pool_;
    std::unique_ptr<socket_port> port_;
};

} // namespace esplane::fastpath
