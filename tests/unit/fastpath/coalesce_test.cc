// SPDX-License-Identifier: Apache-2.0
//
// Packets put together into super-packets: what may be, what may not, and that cutting gives them
// back.
#include "fastpath/coalesce.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"
#include "tests/support/coalesced.h"

namespace esplane::tests {
namespace {

using fastpath::coalescer;
using fastpath::offload_header;

constexpr std::uint8_t ack = 0x10, psh = 0x08;

struct spec {
    bool v4 = true;
    bool tcp = true;
    std::uint16_t port = 1000;
    std::uint32_t sequence = 0xffff'ff00; ///< wraps on its way
    std::uint16_t id = 0xfffe;
    bool dont_fragment = true;
    std::size_t payload = 100;
    std::size_t options = 12; ///< TCP's, bytes
    std::uint8_t flags = ack;
};

std::size_t l4_at(const spec& s) {
    return s.v4 ? 20 : 40;
}
std::size_t payload_at(const spec& s) {
    return l4_at(s) + (s.tcp ? 20 + s.options : 8);
}

/// Checksums right.
bytes make(const spec& s) {
    bytes b(payload_at(s) + s.payload);
    const std::size_t l4 = l4_at(s);
    const auto put16 = [&](std::size_t at, std::size_t value) {
        wire::store(&b[at], wire::be16(static_cast<std::uint16_t>(value)));
    };
    if (s.v4) {
        b[0] = 0x45;
        put16(2, b.size());
        put16(4, s.id);
        put16(6, s.dont_fragment ? wire::ipv4_df : 0);
        b[8] = 64;
        b[9] = s.tcp ? wire::proto_tcp : wire::proto_udp;
        wire::store(&b[12], wire::be32(0x0a000001));
        wire::store(&b[16], wire::be32(0x0a000002));
    } else {
        b[0] = 0x60;
        put16(4, b.size() - 40);
        b[6] = s.tcp ? wire::proto_tcp : wire::proto_udp;
        b[7] = 64;
        b[8] = b[24] = 0xfd;
        b[39] = 2;
    }
    put16(l4, s.port);
    put16(l4 + 2, 80);
    if (s.tcp) {
        wire::store(&b[l4 + 4], wire::be32(s.sequence));
        wire::store(&b[l4 + 8], wire::be32(77));
        b[l4 + 12] = static_cast<std::uint8_t>((5 + s.options / 4) << 4);
        b[l4 + 13] = s.flags;
        put16(l4 + 14, 501);
        std::fill_n(&b[l4 + 20], s.options, std::uint8_t{1});
    } else {
        put16(l4 + 4, b.size() - l4);
    }
    for (std::size_t i = payload_at(s); i < b.size(); ++i)
        b[i] = static_cast<std::uint8_t>(i * 7 + s.sequence);
    write_checksums(b);
    return b;
}

/// `count` packets of a flow that follow each other.
std::vector<bytes> run_of(spec s, std::size_t count) {
    std::vector<bytes> run;
    for (std::size_t i = 0; i < count; ++i, ++s.id) {
        run.push_back(make(s));
        s.sequence += static_cast<std::uint32_t>(s.payload);
    }
    return run;
}

/// How many packets each write stands for; fails where wrong_with() says so.
std::vector<std::size_t> writes_of(std::vector<bytes> packets, std::vector<written>* all = nullptr,
                                   coalescer::abilities can = {}) {
    const packets_at_rest burst(std::move(packets));
    coalescer merging(can);
    std::vector<written> writes;
    EXPECT_EQ(wrong_with(merging, burst.all(), &writes), "");
    std::vector<std::size_t> counts;
    for (const written& w : writes)
        counts.push_back(w.packets);
    if (all != nullptr) *all = writes;
    return counts;
}

using counts = std::vector<std::size_t>;

TEST(Coalescer, WhatFollowsEachOtherGoesUpInOnePiece) {
    for (const bool v4 : {true, false})
        for (const bool tcp : {true, false}) {
            const spec s{.v4 = v4, .tcp = tcp};
            std::vector<written> writes;
            EXPECT_EQ(writes_of(run_of(s, 20), &writes), counts{20});
            const offload_header& o = writes.at(0).offload;
            EXPECT_EQ(o.flags, offload_header::needs_checksum);
            EXPECT_EQ(o.kind, !tcp ? offload_header::udp
                              : v4 ? offload_header::tcp4
                                   : offload_header::tcp6);
            EXPECT_EQ(o.headers, payload_at(s));
            EXPECT_EQ(o.segment_size, s.payload);
            EXPECT_EQ(o.checksum_start, l4_at(s));
            EXPECT_EQ(o.checksum_offset, tcp ? 16 : 6);
            EXPECT_EQ(writes[0].packet.size(), payload_at(s) + 20 * s.payload);
        }
}

TEST(Coalescer, TheLastMayBeShorterAndEndsTheRun) {
    for (const bool tcp : {true, false}) {
        const spec s{.tcp = tcp};
        std::vector<bytes> burst = run_of(s, 3);
        spec last = s;
        last.sequence += 300;
        last.payload = 99;
        burst.push_back(make(last));
        spec more = last;
        more.sequence += 99;
        burst.push_back(make(more));
        EXPECT_EQ(writes_of(burst), (counts{4, 1}));
    }
}

TEST(Coalescer, ALongerOneBeginsANewRun) {
    for (const bool tcp : {true, false}) {
        std::vector<bytes> burst = run_of({.tcp = tcp}, 2);
        for (const bytes& b :
             run_of({.tcp = tcp, .sequence = 0xffff'ff00 + 200, .payload = 101}, 2))
            burst.push_back(b);
        EXPECT_EQ(writes_of(burst), (counts{2, 2}));
    }
}

TEST(Coalescer, PshIsKeptAndEndsTheRun) {
    std::vector<bytes> burst = run_of({}, 4);
    burst[1][20 + 13] |= psh;
    write_checksums(burst[1]);
    std::vector<written> writes;
    EXPECT_EQ(writes_of(burst, &writes), (counts{2, 2}));
    EXPECT_EQ(writes[0].packet[20 + 13], ack | psh);
    EXPECT_EQ(writes[1].packet[20 + 13], ack);
}

TEST(Coalescer, AnyOtherFlagGoesAlone) {
    for (const unsigned flag : {0x01u, 0x02u, 0x04u, 0x20u, 0x40u, 0x80u}) {
        std::vector<bytes> burst = run_of({}, 5);
        burst[2][20 + 13] |= static_cast<std::uint8_t>(flag);
        write_checksums(burst[2]);
        EXPECT_EQ(writes_of(burst), (counts{2, 1, 2})) << flag;
    }
}

/// A run whose third packet differs in one byte or two is two runs, checksums right.
void expect_split(const spec& s, const std::string& what,
                  const std::function<void(bytes&)>& change) {
    std::vector<bytes> burst = run_of(s, 3);
    change(burst[2]);
    write_checksums(burst[2]);
    EXPECT_EQ(writes_of(burst), (counts{2, 1})) << what;
}

TEST(Coalescer, HeadersThatDifferAreNotMerged) {
    const auto flip = [](std::size_t at) { return [at](bytes& b) { b[at] ^= 1; }; };
    for (const bool tcp : {true, false}) {
        for (const std::size_t at : {1, 8, 12, 15, 16, 19})
            expect_split({.tcp = tcp}, "IPv4 byte " + std::to_string(at), flip(at));
        for (const std::size_t at : {1, 3, 7, 8, 23, 24, 39})
            expect_split({.v4 = false, .tcp = tcp}, "IPv6 byte " + std::to_string(at), flip(at));
        expect_split({.tcp = tcp}, "DF", [](bytes& b) { b[6] ^= 0x40; });
        for (const std::size_t at : {0, 1, 2, 3})
            expect_split({.tcp = tcp}, "port", flip(20 + at));
    }
    for (const std::size_t at : {4, 7, 8, 11, 14, 15, 18, 19, 20, 31})
        expect_split({}, "TCP byte " + std::to_string(at), flip(20 + at));
}

TEST(Coalescer, WithoutDfTheIdsMustCountUp) {
    for (const bool tcp : {true, false}) {
        EXPECT_EQ(writes_of(run_of({.tcp = tcp, .dont_fragment = false}, 5)), counts{5});
        expect_split({.tcp = tcp, .dont_fragment = false}, "ID", [](bytes& b) { b[5] ^= 1; });
        std::vector<bytes> zero = run_of({.tcp = tcp}, 3);
        for (bytes& b : zero) {
            b[4] = b[5] = 0;
            write_checksums(b);
        }
        EXPECT_EQ(writes_of(zero), counts{3}) << "with DF they mean nothing";
    }
}

TEST(Coalescer, AWrongChecksumGoesAloneAndAsItCame) {
    for (const bool v4 : {true, false})
        for (const bool tcp : {true, false})
            for (const std::size_t wrong : {0u, 1u, 3u, 5u}) {
                const spec s{.v4 = v4, .tcp = tcp};
                std::vector<bytes> burst = run_of(s, 6);
                burst[wrong].back() ^= 0x40;
                counts expected{wrong, 1, 5 - wrong};
                std::erase(expected, 0u);
                EXPECT_EQ(writes_of(burst), expected) << wrong;
            }
}

TEST(Coalescer, UdpWithoutAChecksumGoesAlone) {
    std::vector<bytes> burst = run_of({.tcp = false}, 3);
    for (bytes& b : burst)
        b[26] = b[27] = 0;
    EXPECT_EQ(writes_of(burst), (counts{1, 1, 1}));
}

/// Nor does one whose sum happens to be right as if it had one: cut again it would.
TEST(Coalescer, UdpWithoutAChecksumThatAddsUpGoesAloneToo) {
    std::vector<bytes> burst = run_of({.tcp = false, .payload = 2}, 3);
    for (bytes& b : burst) {
        b[28] = b[29] = 0;
        write_checksums(b);
        std::swap_ranges(&b[26], &b[28], &b[28]); // the sum stays what it was
    }
    EXPECT_EQ(writes_of(burst), (counts{1, 1, 1}));
}

TEST(Coalescer, TheIpHeadersChecksumCountsToo) {
    std::vector<bytes> burst = run_of({}, 3);
    burst[1][10] ^= 1;
    EXPECT_EQ(writes_of(burst), (counts{1, 1, 1}));
}

TEST(Coalescer, APureAckIsNotOvertaken) {
    std::vector<bytes> burst = run_of({}, 4);
    burst.insert(burst.begin() + 2, make({.payload = 0}));
    EXPECT_EQ(writes_of(burst), (counts{2, 1, 2}));
}

TEST(Coalescer, FlowsThatComeInTurnsAreMergedEach) {
    std::vector<bytes> burst;
    for (std::uint32_t i = 0; i < 16; ++i)
        for (std::uint16_t port = 1; port <= 4; ++port)
            burst.push_back(
                make({.v4 = port % 2 == 0, .tcp = port < 3, .port = port, .sequence = 100 * i}));
    EXPECT_EQ(writes_of(burst), (counts{16, 16, 16, 16}));
}

TEST(Coalescer, WhatCannotBeToldIsOvertakenByNothing) {
    bytes fragment = make({.payload = 60});
    fragment[6] = 0x20;
    bytes options = fragment;
    options[6] = 0x40;
    options[0] = 0x46;
    bytes extended = make({.v4 = false});
    extended[6] = wire::proto_dstopts;
    for (const bytes& odd : {fragment, options, extended, bytes{}, bytes{0x45}}) {
        std::vector<bytes> burst = run_of({}, 4);
        burst.insert(burst.begin() + 2, odd);
        EXPECT_EQ(writes_of(burst), (counts{2, 1, 2}));
    }
}

TEST(Coalescer, WhatIsNeitherTcpNorUdpHoldsNothingUp) {
    bytes icmp = make({});
    icmp[9] = wire::proto_icmp;
    std::vector<bytes> burst = run_of({}, 4);
    burst.insert(burst.begin() + 2, icmp);
    EXPECT_EQ(writes_of(burst), (counts{4, 1}));
}

TEST(Coalescer, ASuperPacketHasAtMost65535Bytes) {
    for (const bool tcp : {true, false}) {
        const std::size_t headers = tcp ? 52 : 28;
        for (const std::size_t payload : {(65535 - headers) / 20, (65535 - headers) / 20 + 1}) {
            const counts c = writes_of(run_of({.tcp = tcp, .payload = payload}, 25));
            ASSERT_FALSE(c.empty());
            EXPECT_EQ(c.front(), headers + 20 * payload <= 65535 ? 20u : 19u);
        }
    }
}

TEST(Coalescer, WhatTheDeviceCannotCutStaysApart) {
    EXPECT_EQ(writes_of(run_of({.tcp = false}, 3), nullptr, {.tcp = true, .udp = false}),
              (counts{1, 1, 1}));
    EXPECT_EQ(writes_of(run_of({}, 3), nullptr, {.tcp = true, .udp = false}), counts{3});
    EXPECT_EQ(writes_of(run_of({}, 3), nullptr, {.tcp = false, .udp = true}), (counts{1, 1, 1}));
}

TEST(Coalescer, WhateverComesComesOutCutAgain) {
    std::mt19937 random(5);
    const auto one_of = [&](unsigned n) { return random() % n; };
    std::size_t merged = 0;
    for (unsigned round = 0; round < 500; ++round) {
        std::vector<bytes> burst;
        spec flows[4]{{.v4 = true}, {.v4 = false}, {.tcp = false}, {.v4 = false, .tcp = false}};
        while (burst.size() < 64) {
            spec& s = flows[one_of(4)];
            s.payload = one_of(12) == 0 ? one_of(1500) : 50;
            s.flags = one_of(20) == 0 ? static_cast<std::uint8_t>(random()) : ack;
            s.dont_fragment = one_of(30) != 0;
            burst.push_back(make(s));
            s.sequence += static_cast<std::uint32_t>(s.payload);
            ++s.id;
            bytes& b = burst.back();
            if (one_of(25) == 0)
                b[random() % b.size()] ^= static_cast<std::uint8_t>(1 + one_of(255));
            if (one_of(50) == 0) b.resize(one_of(static_cast<unsigned>(b.size())));
            if (one_of(2) == 0) write_checksums(b);
        }
        for (const std::size_t n : writes_of(burst))
            merged += n - 1;
        ASSERT_FALSE(HasFailure()) << round;
    }
    EXPECT_GT(merged, 10000u) << "else little was shown";
}

} // namespace
} // namespace esplane::tests
