// SPDX-License-Identifier: Apache-2.0
//
// The packet path, from received frame to its end, through a gateway with three SAs.
//
// Input: records of head, length (2 bytes, little-endian) and content.
//
//   head   bits 0-1  form: frame | IP packet | text of an ESP packet | the same, its ICV broken
//          bit  2    port of a frame or packet: plain, secure
//          bits 3-4  SA of a text
//          bits 5-7  how far the sequence number goes on
//
// A text is sealed with the SA's key, so that what an authentic peer could send is reached too; the
// header checksum of an IPv4 packet, alone or in a text, is made right.
#include <algorithm>
#include <cstdint>
#include <span>

#include "tests/fuzz/require.h"
#include "tests/support/esp_peer.h"

namespace {

using namespace esplane;
using namespace esplane::tests;

constexpr std::size_t most_records = 80; // more than a burst
constexpr std::size_t longest = 2000;
constexpr std::size_t most_added = 128; // ESP around a packet
constexpr std::size_t longest_error = sizeof(wire::ethernet_header) + 1280;

const tunnel_options sa_kinds[] = {
    {.replay_window = 64, .spi = 0x1000},
    {.run = ipsec::suite::aes128_cbc_sha256_128,
     .encapsulated = true,
     .esn = true,
     .spi = 0x2000,
     .reqid = 2},
    {.run = ipsec::suite::null_sha256_128, .outer = ipsec::family::ipv6, .spi = 0x3000, .reqid = 3},
};

struct gateway {
    lab two{2, 256};
    struct far_end {
        esp_peer peer;
        std::uint64_t sequence = 0;
    };
    std::vector<far_end> peers;

    gateway() {
        two.add_tunnel(sa_kinds[0]);
        for (const tunnel_options& o : sa_kinds) {
            if (o.spi != sa_kinds[0].spi) two.add_sas(o);
            peers.push_back({esp_peer(o)});
        }
    }

    frame frame_of(std::uint8_t head, std::span<const std::uint8_t> content) {
        frame bytes(content.begin(), content.end());
        const unsigned form = head & 3;
        if (form == 0) return bytes;
        fix_header_checksum(bytes);
        if (form == 1) return with_ethernet(bytes);
        far_end& end = peers[((head >> 3) & 3u) % peers.size()];
        end.sequence += head >> 5;
        frame sealed = end.peer.seal(bytes, end.sequence);
        if (form == 3) sealed.back() ^= 1;
        return with_ethernet(sealed);
    }

    std::size_t inject(std::uint8_t head, std::span<const std::uint8_t> content) {
        const frame f = frame_of(head, content);
        const bool is_text = (head & 2) != 0;
        const std::uint16_t port = is_text || (head & 4) != 0 ? lab::secure : lab::plain;
        (void)two.ports[port]->inject(f);
        return f.size();
    }

    void run_and_check(std::size_t longest_in) {
        while (two.worker->run_once(two.clock) != 0) {
        }
        two.poll_events();
        check_accounts();
        two.advance(2'000'000'000);
        check_accounts();
        REQUIRE(two.worker->counters().held.get() == 0);
        for (const auto& port : two.ports) {
            for (const frame& f : port->take_sent())
                REQUIRE(f.size() <= std::max(longest_in + most_added, longest_error));
            for (const frame& f : port->take_punted())
                REQUIRE(f.size() <= longest_in);
        }
    }

    void check_accounts() {
        REQUIRE(two.worker->counters().balanced());
        REQUIRE(two.pool->free_frames() + two.worker->counters().held.get() == two.pool->count());
    }
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static gateway g;
    std::span<const std::uint8_t> rest(data, size);
    std::size_t longest_in = 0;
    for (std::size_t i = 0; i < most_records && rest.size() >= 3; ++i) {
        const std::uint8_t head = rest[0];
        const std::size_t stated = rest[1] | static_cast<std::size_t>(rest[2]) << 8;
        rest = rest.subspan(3);
        const std::size_t length = std::min({stated, rest.size(), longest});
        longest_in = std::max(longest_in, g.inject(head, rest.first(length)));
        rest = rest.subspan(length);
    }
    g.run_and_check(longest_in);
    return 0;
}
