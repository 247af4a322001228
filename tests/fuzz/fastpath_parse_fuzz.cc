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
#include <cstring>
#include <span>

#include "lib/wire/checksum.h"
#include "tests/fuzz/require.h"
#include "tests/support/lab.h"

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

/// A peer that encrypts whatever it is given.
class peer {
  public:
    explicit peer(const tunnel_options& o)
        : o_(o)
        , key_(*crypto::key::make(make_algorithms(o.run, o.key_seed * 2 + 1))) {}

    frame seal(std::span<const std::uint8_t> text, std::uint64_t step) {
        sequence_ += step;
        const auto layout = ipsec::layout_of(o_.run);
        const bool v4 = o_.outer == ipsec::family::ipv4;
        const std::size_t front = (v4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header)) +
                                  (o_.encapsulated ? sizeof(wire::udp_header) : 0);
        const std::size_t padded = text.size() / layout.block_length * layout.block_length;
        frame f(front + sizeof(wire::esp_header) + layout.iv_length + padded + layout.icv_length);
        std::uint8_t* const esp = f.data() + front;
        wire::store(esp, wire::esp_header{wire::be32(o_.spi),
                                          wire::be32(static_cast<std::uint32_t>(sequence_))});
        std::memcpy(esp + sizeof(wire::esp_header) + layout.iv_length, text.data(), padded);
        crypto::job job;
        job.keys = &key_->get();
        job.esp = esp;
        job.text_length = static_cast<std::uint32_t>(padded);
        job.esn = o_.esn;
        job.seq_high = static_cast<std::uint32_t>(sequence_ >> 32);
        engine().encrypt({&job, 1});
        write_outer(f, v4);
        return f;
    }

  private:
    static crypto::engine& engine() {
        static const auto one = *crypto::engine::make();
        return *one;
    }

    void write_outer(frame& f, bool v4) const {
        const frame outer = make_packet({.family = o_.outer, .length = v4 ? 32u : 52u});
        std::memcpy(f.data(), outer.data(), f.size() < outer.size() ? f.size() : outer.size() - 12);
        const std::uint8_t protocol = o_.encapsulated ? wire::proto_udp : wire::proto_esp;
        if (!v4) {
            auto ip = wire::load<wire::ipv6_header>(f.data());
            ip.payload_length.set(static_cast<std::uint16_t>(f.size() - sizeof ip));
            ip.next_header = protocol;
            ip.destination = ipsec::address::parse("fd77::2")->bytes;
            wire::store(f.data(), ip);
            return;
        }
        auto ip = wire::load<wire::ipv4_header>(f.data());
        ip.total_length.set(static_cast<std::uint16_t>(f.size()));
        ip.protocol = protocol;
        ip.destination = ipsec::address::parse("192.168.77.2")->as_v4();
        ip.checksum = {};
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
        wire::store(f.data(), ip);
        if (!o_.encapsulated) return;
        wire::udp_header udp{wire::be16(4500), wire::be16(4500), {}, {}};
        udp.length.set(static_cast<std::uint16_t>(f.size() - sizeof ip));
        wire::store(f.data() + sizeof ip, udp);
    }

    tunnel_options o_;
    std::shared_ptr<const crypto::key> key_;
    std::uint64_t sequence_ = 0;
};

void make_checksum_right(frame& ip_packet) {
    if (ip_packet.size() < sizeof(wire::ipv4_header) || (ip_packet[0] >> 4) != 4) return;
    const std::size_t header = (ip_packet[0] & 0x0fu) * 4u;
    if (header < sizeof(wire::ipv4_header) || header > ip_packet.size()) return;
    wire::store(&ip_packet[offsetof(wire::ipv4_header, checksum)], wire::be16());
    wire::store(&ip_packet[offsetof(wire::ipv4_header, checksum)],
                wire::checksum_finish(wire::checksum_add(0, ip_packet.data(), header)));
}

struct gateway {
    lab two{2, 256};
    std::vector<peer> peers;

    gateway() {
        two.add_tunnel(sa_kinds[0]);
        for (const tunnel_options& o : sa_kinds) {
            if (o.spi != sa_kinds[0].spi) two.add_sas(o);
            peers.emplace_back(o);
        }
    }

    frame frame_of(std::uint8_t head, std::span<const std::uint8_t> content) {
        frame bytes(content.begin(), content.end());
        const unsigned form = head & 3;
        if (form == 0) return bytes;
        make_checksum_right(bytes);
        if (form == 1) return with_ethernet(bytes);
        frame sealed = peers[((head >> 3) & 3u) % peers.size()].seal(bytes, head >> 5);
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
