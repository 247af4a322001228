// SPDX-License-Identifier: Apache-2.0
//
// socket_port against plain sockets of a peer, over veth, each test in namespaces of its own. Needs
// root; skips (77) without it.
//
//   socket_port e0 10.7.0.1, fd07::1 ------ p0 10.7.0.2, fd07::2 the peer's sockets
#include "fastpath/port_socket.h"

#include <cstdlib>
#include <fcntl.h>
#include <map>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <numeric>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "fastpath/keepalive.h"
#include "lib/wire/checksum.h"

namespace esplane::fastpath {
namespace {

using bytes = std::vector<std::uint8_t>;

constexpr std::uint16_t nat_t = 4500;
constexpr std::uint16_t peer_port = 5000;

struct way_of_test {
    bool v4;
    bool super_packets;
};

ipsec::address ip(const std::string& text) {
    return ipsec::address::parse(text).value();
}

void run(const std::string& command) {
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
}

void set(int fd, int level, int option, int value) {
    ASSERT_EQ(::setsockopt(fd, level, option, &value, sizeof value), 0) << option;
}

struct endpoint {
    sockaddr_storage at{};
    socklen_t length = 0;
};

endpoint endpoint_of(const ipsec::address& a, std::uint16_t port) {
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
bytes esp(std::uint32_t spi, std::uint32_t number, std::size_t length) {
    bytes b(length);
    std::iota(b.begin(), b.end(), static_cast<std::uint8_t>(number));
    wire::store(b.data(), wire::be32(spi));
    wire::store(b.data() + 4, wire::be32(number));
    return b;
}

bytes ike(std::size_t length) {
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

TEST_P(SocketPort, ARunOfEspInUdpArrivesPacketByPacketInOrder) {
    open();
    std::vector<packet> frames;
    std::vector<bytes> sent;
    for (std::uint32_t i = 0; i < 41; ++i)
        frames.push_back(
            frame(sent.emplace_back(esp(0xc0de, i, i < 40 ? 1000 : 300)), nat_t, 0xb9));
    ASSERT_EQ(send(frames), frames.size());
    const auto got = read_all(udp_.get());
    ASSERT_EQ(got.size(), sent.size());
    const endpoint from = endpoint_of(local(), nat_t);
    for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].payload, sent[i]) << i;
        EXPECT_EQ(got[i].tos, 0xb9);
        EXPECT_EQ(std::memcmp(&got[i].from.at, &from.at, v4() ? 8 : 24), 0) << i;
    }
    EXPECT_EQ(count("tx_messages"), supers() ? 1 : 41);
    EXPECT_EQ(port_->counters().tx_packets, 41);
    EXPECT_EQ(pool_->free_frames(), pool_->count());
}

TEST_P(SocketPort, WhatIsNotOneFlowIsNotOneMessage) {
    open();
    std::vector<packet> frames;
    std::vector<bytes> sent;
    const auto add = [&](std::size_t length, std::uint8_t tos) {
        const auto n = static_cast<std::uint32_t>(sent.size());
        frames.push_back(frame(sent.emplace_back(esp(1, n, length)), nat_t, tos));
    };
    for (const std::size_t length : {100, 100, 200, 200, 150, 200, 200})
        add(length, 0);
    add(200, 2);
    add(200, 2);
    ASSERT_EQ(send(frames), frames.size());
    const auto got = read_all(udp_.get());
    ASSERT_EQ(got.size(), sent.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].payload, sent[i]) << i;
        EXPECT_EQ(got[i].tos, i < 7 ? 0 : 2) << i;
    }
    // 100 100 | 200 200 150 | 200 200 | 200 200 with ECN
    EXPECT_EQ(count("tx_messages"), supers() ? 4 : 9);
}

TEST_P(SocketPort, ALongRunIsSeveralMessagesOfWhatTheKernelTakes) {
    open();
    std::vector<packet> frames;
    for (std::uint32_t i = 0; i < max_burst; ++i)
        frames.push_back(frame(esp(1, i, 1400), nat_t));
    ASSERT_EQ(send(frames), frames.size());
    EXPECT_EQ(read_all(udp_.get()).size(), max_burst);
    EXPECT_EQ(count("tx_messages"), supers() ? 2 : max_burst); // 46 * 1400 < 65507
}

TEST_P(SocketPort, TheSourceIsTheHeadersNotTheRoutes) {
    open();
    const ipsec::address second = ip(v4() ? "10.7.0.9" : "fd07::9");
    std::vector<packet> frames{frame(esp(1, 1, 100), nat_t, 0, false, 0, second)};
    ASSERT_EQ(send(frames), 1);
    const auto got = read_all(udp_.get());
    ASSERT_EQ(got.size(), 1);
    const endpoint from = endpoint_of(second, nat_t);
    EXPECT_EQ(std::memcmp(&got[0].from.at, &from.at, v4() ? 8 : 24), 0);
}

/// IPv6 has no DF.
class SocketPortIpv4 : public SocketPort {};

TEST_P(SocketPortIpv4, DfIsAsTheHeaderSays) {
    open();
    std::vector<packet> frames;
    std::size_t length = 500; // grows: a capture shows a super-packet as one
    for (const bool df : {true, true, false, true, false, false})
        frames.push_back(frame(esp(1, 0, ++length), nat_t, 0, df));
    for (const bool df : {true, false})
        frames.push_back(frame(esp(1, 0, ++length), 0, 0, df));
    ASSERT_EQ(send(frames), frames.size());
    std::vector<bool> df;
    for (const int fd : {sniffer_.get(), raw_esp_.get()})
        for (const datagram& d : read_all(fd))
            df.push_back((d.payload[6] & 0x40) != 0);
    EXPECT_EQ(df, (std::vector<bool>{true, true, false, true, false, false, true, false}));
}

TEST_P(SocketPort, WhatIsLongerThanThePathIsLostAloneWhereItMustNotBeFragmented) {
    open();
    std::vector<packet> frames;
    for (const std::size_t length : {500, 2000, 500})
        frames.push_back(frame(esp(1, 0, length), nat_t, 0, true));
    frames.push_back(frame(esp(1, 0, 2000), 0, 0, true));
    for (std::uint32_t i = 0; i < 3; ++i) // a run: too long for UDP_SEGMENT, and may be fragmented
        frames.push_back(frame(esp(1, i, 2000), nat_t, 0, false));
    frames.push_back(frame(esp(1, 0, 2000), 0, 0, false));
    ASSERT_EQ(send(frames), frames.size());
    const std::size_t kept = v4() ? 0 : 1; // IPv6 sources fragment
    EXPECT_EQ(read_all(udp_.get()).size(), 5 + kept);
    EXPECT_EQ(read_all(raw_esp_.get()).size(), 1 + kept);
    EXPECT_EQ(count("tx_too_long"), v4() ? 2 : 0);
    EXPECT_EQ(port_->counters().tx_packets, 6 + 2 * kept);
    const auto limits = port_->take_path_limits();
    ASSERT_EQ(limits.size(), v4() ? 2 : 0);
    if (v4()) {
        EXPECT_EQ(limits[0].to, remote());
        EXPECT_EQ(limits[0].mtu, 1500);
    }
    EXPECT_TRUE(port_->take_path_limits().empty());
    EXPECT_EQ(pool_->free_frames(), pool_->count());
}

TEST_P(SocketPort, WhatHasNoWayOutIsLostAndCounted) {
    open();
    const ipsec::address gone = ip(v4() ? "10.7.0.77" : "fd07::77"); // an address moved away
    std::vector<packet> frames{frame(esp(1, 1, 100), nat_t, 0, false, 0, gone),
                               frame(esp(1, 2, 100), nat_t, 0, false, 0, gone),
                               frame(esp(1, 3, 100), 0, 0, false, 0, gone),
                               frame(esp(1, 4, 100), nat_t)};
    ASSERT_EQ(send(frames), 4);
    EXPECT_EQ(count("tx_refused"), 3);
    EXPECT_EQ(read_all(udp_.get()).size(), 1);
    EXPECT_EQ(pool_->free_frames(), pool_->count());
}

TEST_P(SocketPort, WhatPassesThroughInClearKeepsASourceThatIsNotTheMachines) {
    open();
    const ipsec::address behind = ip(v4() ? "10.7.0.77" : "fd07::77");
    std::vector<packet> frames{frame(esp(1, 1, 100), 0, 0, false, 0, behind)};
    if (v4()) frames.push_back(frame(esp(1, 2, 100), nat_t, 0, false, 0, behind));
    for (packet& p : frames)
        p.flags = 0;
    ASSERT_EQ(send(frames), frames.size());
    EXPECT_EQ(count("tx_refused"), 0);
    EXPECT_EQ(read_all(raw_esp_.get()).size(), 1);
    EXPECT_EQ(read_all(udp_.get()).size(), v4() ? 1 : 0);
    EXPECT_EQ(pool_->free_frames(), pool_->count());
}

TEST_P(SocketPort, EspAndWholePacketsLeaveByRawSockets) {
    open();
    std::vector<packet> frames;
    frames.push_back(frame(esp(7, 1, 200), 0, 0x03));
    frames.push_back(frame(esp(7, 2, 300), 0));
    packet whole = frame(bytes(100, 'x'), 1234, 0x20); // UDP from another port: as it is
    std::uint8_t* const udp = whole.data + ip_header();
    const std::size_t addresses = v4() ? 4 : 16;
    const std::uint8_t* const source = whole.data + (v4() ? 12 : 8);
    const auto sum = wire::checksum_add(
        wire::checksum_pseudo(source, source + addresses, addresses, 17, 108), udp, 108);
    wire::store(udp + 6, wire::checksum_finish(sum));
    frames.push_back(whole);
    ASSERT_EQ(send(frames), frames.size());
    const auto esps = read_all(raw_esp_.get());
    ASSERT_EQ(esps.size(), 2);
    EXPECT_EQ(esps[0].tos, 0x03);
    EXPECT_EQ(payload_of(esps[0].payload, v4() ? 20 : 0), esp(7, 1, 200));
    EXPECT_EQ(payload_of(esps[1].payload, v4() ? 20 : 0), esp(7, 2, 300));
    const auto udps = read_all(udp_.get());
    ASSERT_EQ(udps.size(), 1);
    EXPECT_EQ(udps[0].payload, bytes(100, 'x'));
    EXPECT_EQ(udps[0].tos, 0x20);
}

/// Which mark the kernel sees is told by a routing rule that refuses it.
TEST_P(SocketPort, EspWithAMarkOfItsOwnGoesWithThat) {
    const std::string family = v4() ? "ip -4" : "ip -6";
    run(family + " rule add fwmark 0x77 prohibit");
    open(1, {.mark = 0xe5});
    std::vector<packet> frames;
    for (std::uint32_t number = 1; number <= 4; ++number)
        frames.push_back(frame(esp(1, number, 100), number <= 3 ? nat_t : 0));
    frames.push_back(frame(esp(1, 5, 100), 0));
    frames[1].put_mark(0x77);
    frames[2].put_mark(0x78);
    frames[3].put_mark(0x77);
    ASSERT_EQ(send(frames), frames.size());
    run(family + " rule delete fwmark 0x77 prohibit");
    EXPECT_EQ(count("tx_refused"), 2);
    const auto udps = read_all(udp_.get());
    ASSERT_EQ(udps.size(), 2);
    EXPECT_EQ(udps[0].payload, esp(1, 1, 100));
    EXPECT_EQ(udps[1].payload, esp(1, 3, 100));
    EXPECT_EQ(read_all(raw_esp_.get()).size(), 1);
}

TEST_P(SocketPort, ANatKeepaliveIsOneByteFromWhereTheSaSends) {
    ipsec::sa sa;
    sa.source = local();
    sa.id.destination = remote();
    sa.encap = {wire::be16(nat_t), wire::be16(peer_port), {}};
    const auto sender = keepalive_sender::open(0xe5);
    ASSERT_TRUE(sender) << sender.error().text;
    ASSERT_TRUE(sender->send(sa));
    const auto got = read_all(sniffer_.get());
    ASSERT_EQ(got.size(), 1);
    const std::uint8_t* const udp = got[0].payload.data() + (v4() ? 20 : 0);
    ASSERT_EQ(got[0].payload.size(), (v4() ? 20u : 0u) + 9);
    EXPECT_EQ(wire::load<wire::udp_header>(udp).source.host(), nat_t);
    EXPECT_EQ(udp[8], 0xff);
    EXPECT_EQ(read_all(udp_.get()).size(), 1) << "its checksum is right";
}

TEST_P(SocketPort, WhatArrivesHasItsHeadersAgain) {
    open();
    bytes super;
    for (std::uint32_t i = 0; i < 40; ++i) {
        const bytes one = esp(0xabcd, i, i < 39 ? 1200 : 77);
        super.insert(super.end(), one.begin(), one.end());
    }
    peer_sends(super, 1200, 0x2d);
    peer_sends(esp(5, 5, 64), 0, 0);
    const auto got = receive();
    ASSERT_EQ(got.size(), 41);
    for (std::uint32_t i = 0; i < 40; ++i) {
        expect_headers(got[i], true, 0x2d);
        EXPECT_EQ(payload_of(got[i], ip_header() + 8), esp(0xabcd, i, i < 39 ? 1200 : 77)) << i;
    }
    expect_headers(got[40], true, 0);
    EXPECT_EQ(payload_of(got[40], ip_header() + 8), esp(5, 5, 64));
    EXPECT_EQ(count("rx_messages"), supers() ? 2 : 41);
    EXPECT_EQ(port_->counters().rx_packets, 41);
    EXPECT_EQ(pool_->free_frames(), pool_->count());
}

TEST_P(SocketPort, WhatDoesNotFitTheBurstComesWithTheNext) {
    open();
    bytes super;
    for (std::uint32_t i = 0; i < 50; ++i) {
        const bytes one = esp(1, i, 100);
        super.insert(super.end(), one.begin(), one.end());
    }
    peer_sends(super, 100);
    peer_sends(esp(1, 50, 100));
    const auto got = receive(7);
    ASSERT_EQ(got.size(), 51);
    for (std::uint32_t i = 0; i < got.size(); ++i)
        EXPECT_EQ(payload_of(got[i], ip_header() + 8), esp(1, i, 100)) << i;
}

TEST_P(SocketPort, AMessageIsNotDividedBetweenBursts) {
    open();
    bytes super;
    for (std::uint32_t i = 0; i < 10; ++i) {
        const bytes one = esp(1, i, 100);
        super.insert(super.end(), one.begin(), one.end());
    }
    for (int i = 0; i < 3; ++i)
        peer_sends(super, 100);
    EXPECT_EQ(receive_once(25).size(), supers() ? 20u : 25u);
    EXPECT_EQ(receive_once(7).size(), supers() ? 7u : 5u); // one that is longer than a burst is
    EXPECT_EQ(receive_once(7).size(), supers() ? 3u : 0u);
}

TEST_P(SocketPort, RawEspArrives) {
    open();
    const endpoint to = endpoint_of(local(), 0);
    for (std::uint32_t i = 0; i < 3; ++i) {
        const bytes one = esp(9, i, i == 2 ? 3000 : 200); // the last in fragments
        ASSERT_EQ(::sendto(raw_esp_.get(), one.data(), one.size(), 0,
                           reinterpret_cast<const sockaddr*>(&to.at), to.length),
                  static_cast<ssize_t>(one.size()));
    }
    const auto got = receive();
    ASSERT_EQ(got.size(), 3);
    for (std::uint32_t i = 0; i < got.size(); ++i) {
        expect_headers(got[i], false, 0);
        EXPECT_EQ(payload_of(got[i], ip_header()), esp(9, i, i == 2 ? 3000 : 200)) << i;
    }
}

TEST_P(SocketPort, EachLaneHearsTheRawEspThatIsItsOwn) {
    open(3);
    const endpoint to = endpoint_of(local(), 0);
    for (std::uint32_t spi = 300; spi < 330; ++spi) {
        const bytes one = esp(spi, spi, 100);
        ASSERT_EQ(::sendto(raw_esp_.get(), one.data(), one.size(), 0,
                           reinterpret_cast<const sockaddr*>(&to.at), to.length),
                  100);
    }
    for (unsigned lane = 0; lane < 3; ++lane) {
        const auto got = receive(max_burst, lane);
        EXPECT_EQ(got.size(), 10);
        for (const bytes& f : got)
            EXPECT_EQ(wire::load<wire::be32>(f.data() + ip_header()).host() % 3, lane);
    }
}

TEST_P(SocketPort, KeepalivesAndIkeAreNoFrames) {
    open();
    peer_sends({0xff});
    peer_sends(ike(80));
    peer_sends({1, 2, 3, 4, 5});
    peer_sends(esp(1, 1, 60));
    EXPECT_EQ(receive().size(), 1);
    EXPECT_EQ(count("rx_keepalives"), 1);
    EXPECT_EQ(count("rx_not_esp"), 1);
    EXPECT_EQ(count("ike_lost"), 1); // nobody shares the port
    EXPECT_EQ(pool_->free_frames(), pool_->count());
}

TEST_P(SocketPort, ATunnelWithinAFrameThatIsTooLongIsCounted) {
    open();
    peer_sends(esp(1, 1, 4000)); // in fragments
    peer_sends(esp(1, 2, 3000));
    const auto got = receive();
    ASSERT_EQ(got.size(), 1);
    EXPECT_EQ(payload_of(got[0], ip_header() + 8), esp(1, 2, 3000));
    EXPECT_EQ(count("rx_too_long"), 1);
}

TEST_P(SocketPort, WhatWaitsInTheKernelIsBoundedAndTheRestCounted) {
    net_socket_options options;
    options.receive_bytes = 64 << 10;
    open(1, options);
    for (std::uint32_t i = 0; i < 1000; ++i)
        peer_sends(esp(1, i, 1000));
    const std::size_t first = receive().size();
    EXPECT_LT(first, 200);
    EXPECT_GT(first, 10);
    peer_sends(esp(1, 0, 1000)); // the kernel tells with the next
    EXPECT_EQ(receive().size(), 1);
    EXPECT_EQ(port_->counters().rx_no_buffer, 1000 - first);
}

TEST_P(SocketPort, AnEmptyPoolLosesNothing) {
    open();
    std::vector<packet> held(pool_->count() - 5);
    for (packet& p : held)
        ASSERT_TRUE(pool_->allocate(p, 0));
    for (std::uint32_t i = 0; i < 8; ++i)
        peer_sends(esp(1, i, 100));
    std::vector<packet> into(max_burst);
    EXPECT_EQ(port_->receive(0, into), 5);
    for (packet& p : held) {
        packet* const back = &p;
        pool_->release({&back, 1});
    }
    EXPECT_EQ(port_->receive(0, std::span(into).subspan(5)), 3);
    for (std::uint32_t i = 0; i < 8; ++i)
        EXPECT_EQ(wire::load<wire::be32>(into[i].data + ip_header() + 12).host(), i);
}

std::string name_of(const testing::TestParamInfo<way_of_test>& one) {
    return std::string(one.param.v4 ? "Ipv4" : "Ipv6") +
           (one.param.super_packets ? "InSuperPackets" : "OneByOne");
}
INSTANTIATE_TEST_SUITE_P(Over, SocketPort,
                         testing::Values(way_of_test{true, true}, way_of_test{true, false},
                                         way_of_test{false, true}, way_of_test{false, false}),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Over, SocketPortIpv4,
                         testing::Values(way_of_test{true, true}, way_of_test{true, false}),
                         name_of);

} // namespace
} // namespace esplane::fastpath
