// SPDX-License-Identifier: Apache-2.0
//
// socket_port against plain sockets of a peer, over veth, each test in namespaces of its own
// (socket_port_bed.h).  Needs root; skips (77) without it.
#include "tests/interop/socket_port_bed.h"

#include "fastpath/keepalive.h"

namespace esplane::fastpath {
namespace {

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
