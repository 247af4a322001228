// SPDX-License-Identifier: Apache-2.0
//
// The packet path, from received frame to its end, through a gateway of two workers.
//
//   plain    untagged    site 2
//            VLAN 5      172.16.5.0/24, in a VRF
//            7, then 6   172.16.6.0/24
//   secure   untagged    site 1, behind the tunnel; 10.3.0.0/16 and fd03::/32 by two ways
//   ipsec10              10.1.77.0/24, by route into the tunnel of the third SA
//
// Input: a byte, whose bit 0 says whether the FIB is a large one; then records of head, class,
// length (2 bytes, little-endian) and content.
//
//   head   bits 0-1  form: frame | IP packet | text of an ESP packet | the same, its ICV broken
//          of a frame or packet
//          bit  2    port: plain, secure
//          bit  3    worker
//          bit  4    what came before is worked off first
//          bit  5    the packet is the machine's own, sent into ipsec10
//          of a text
//          bit  2    worker
//          bits 3-4  SA
//          bits 5-7  where the sequence number goes: `steps`
//   class  TOS of the header around a text; bit 5 says, too, that ESP in UDP comes from another
//   port
//
// A text is sealed with the SA's key, so that what an authentic peer could send is reached too; the
// header checksum of an IPv4 packet, alone or in a text, is made right.  Each input finds the SAs
// as new.
#include <algorithm>
#include <cstdint>
#include <span>

#include "tests/fuzz/require.h"
#include "tests/support/esp_peer.h"

namespace {

using namespace esplane;
using namespace esplane::tests;
using ipsec::address;
using ipsec::family;

constexpr std::size_t most_records = 80; // more than a burst
constexpr std::size_t longest = 2000;
constexpr std::size_t most_added = 128; // ESP around a packet, tags before it
constexpr std::size_t longest_error = sizeof(wire::ethernet_header) + 1280;
constexpr std::uint32_t buffers = 512;
constexpr unsigned workers = 2;
constexpr std::uint32_t tunnel_if_id = 10;
constexpr std::int64_t steps[] = {1, 0, 2, 3, 40, -2, -40, -200};
constexpr std::uint64_t first_number = 1000;

ipsec::selector udp_to_site_2() {
    ipsec::selector s;
    s.fam = family::ipv4;
    s.destination = *address::parse("10.2.0.0");
    s.destination_prefix = 16;
    s.protocol = wire::proto_udp;
    return s;
}

/// The last is spread over both workers.
const tunnel_options sa_kinds[] = {
    {.replay_window = 64, .spi = 0x1000},
    {.run = ipsec::suite::aes128_cbc_sha256_128,
     .encapsulated = true,
     .esn = true,
     .spi = 0x2000,
     .reqid = 2,
     .limits = {.hard_packets = 20},
     .flags = ipsec::sa_flag::decap_dscp,
     .sel = udp_to_site_2()},
    {.run = ipsec::suite::null_sha256_128,
     .outer = family::ipv6,
     .spi = 0x3000,
     .reqid = 3,
     .if_id = tunnel_if_id},
    {.esn = true, .replay_window = 128, .spi = 0x4000, .reqid = 4},
};
constexpr std::size_t spread_kind = std::size(sa_kinds) - 1;

/// The lab's site 2, with all that a frame can meet on its way in.
struct gateway {
    lab two{2, buffers, workers};
    struct far_end {
        const tunnel_options& tunnel;
        esp_peer peer{tunnel};
        std::uint64_t sequence = first_number;
        bool used = false;
    };
    std::vector<far_end> ends;

    explicit gateway(bool large_fib) {
        add_vlans();
        add_ways();
        if (large_fib) add_many_routes();
        two.add_interface(tunnel_if_id, "10.1.77.0/24");
        REQUIRE(two.tables.routes().is_near() != large_fib);
        two.add_policies(sa_kinds[0]);
        two.add_policies(sa_kinds[2]);
        for (const tunnel_options& o : sa_kinds) {
            two.add_sas(o);
            ends.push_back({o});
        }
        spread();
    }

    void add_vlans() {
        add_vlan({.ifindex = 105, .parent = 11, .vlan_id = 5, .vlan_protocol = 0x8100, .vrf = 77},
                 "172.16.5.0");
        add_vlan({.ifindex = 107, .parent = 11, .vlan_id = 7, .vlan_protocol = 0x88a8}, nullptr);
        add_vlan({.ifindex = 106, .parent = 107, .vlan_id = 6, .vlan_protocol = 0x8100},
                 "172.16.6.0");
    }
    void add_vlan(control::link l, const char* network) {
        l.name = "vlan" + std::to_string(l.vlan_id);
        l.mac = two.network.links[0].mac;
        l.mtu = 1500;
        l.up = true;
        l.kind = control::link_kind::vlan;
        two.network.links.push_back(l);
        if (network != nullptr)
            add_route({.destination = *address::parse(network),
                       .prefix = 24,
                       .ifindex = l.ifindex,
                       .vrf = l.vrf});
    }
    void add_ways() {
        for (const auto& [network, prefix, secure_hop, plain_hop] :
             {std::tuple{"10.3.0.0", 16, "192.168.77.1", "10.2.0.2"},
              std::tuple{"fd03::", 32, "fd77::1", "fd02::2"}})
            add_route({.destination = *address::parse(network),
                       .prefix = static_cast<std::uint8_t>(prefix),
                       .ifindex = two.network.links[1].ifindex,
                       .gateway = *address::parse(secure_hop),
                       .more = {{two.network.links[0].ifindex, *address::parse(plain_hop)}}});
    }
    void add_many_routes() {
        for (unsigned n = 0; n < 600; ++n)
            add_route({.destination = *address::parse("100." + std::to_string(n / 256) + "." +
                                                      std::to_string(n % 256) + ".8"),
                       .prefix = 30,
                       .kind = control::route_kind::blackhole});
    }
    void add_route(control::route r) { two.network.routes.push_back(std::move(r)); }

    /// After its first packet, by which it gets an owner.
    void spread() {
        far_end& end = ends[spread_kind];
        (void)two.ports[lab::secure]->inject(
            with_ethernet(end.peer.seal(end.peer.text_of({}, wire::proto_none), 1)));
        two.run();
        two.backend.tend_spread();
        REQUIRE(two.backend.spread_sa(two.sa_of(end.tunnel, false), workers));
    }
    void renew_sas() {
        for (far_end& end : ends) {
            if (!std::exchange(end.used, false)) continue;
            for (const bool leaving : {true, false}) // what has run out is gone already
                (void)two.control.delete_sa(two.sa_of(end.tunnel, leaving), {});
            two.add_sas(end.tunnel);
            end.sequence = first_number;
            if (&end == &ends[spread_kind]) spread();
        }
    }

    frame sealed(std::uint8_t head, std::uint8_t outer_tos, const frame& text) {
        far_end& end = ends[(head >> 3) & 3u];
        end.used = true;
        end.sequence += static_cast<std::uint64_t>(steps[head >> 5]);
        frame f = end.peer.seal(text, end.sequence, outer_tos);
        if ((head & 1) != 0) f.back() ^= 1;
        if (end.tunnel.encapsulated && (outer_tos & 0x20) != 0)
            f[sizeof(wire::ipv4_header) + 1] ^= 1; // the UDP source port
        return with_ethernet(f);
    }

    /// Returns how long the frame is.
    std::size_t inject(std::uint8_t head, std::uint8_t outer_tos,
                       std::span<const std::uint8_t> content) {
        frame f(content.begin(), content.end());
        const unsigned form = head & 3;
        if (form != 0) fix_header_checksum(f);
        if (form >= 2) {
            f = sealed(head, outer_tos, f);
            (void)two.ports[lab::secure]->inject(f, (head >> 2) & 1u);
            return f.size();
        }
        if ((head & 16) != 0) two.run();
        if (form == 1 && (head & 32) != 0) {
            if (!f.empty()) two.send_own(tunnel_if_id, {f});
            return f.size();
        }
        if (form == 1) f = with_ethernet(f);
        (void)two.ports[(head & 4) != 0 ? lab::secure : lab::plain]->inject(f, (head >> 3) & 1u);
        return f.size();
    }

    void run_and_check(std::size_t longest_in) {
        two.run();
        two.poll_events();
        check_accounts();
        two.advance(2'000'000'000);
        two.run();
        check_accounts();
        for (const auto& port : two.ports) {
            for (const frame& f : port->take_sent())
                REQUIRE(f.size() <= std::max(longest_in + most_added, longest_error));
            for (const frame& f : port->take_punted())
                REQUIRE(f.size() <= longest_in);
        }
        for (const frame& f : two.came_up(tunnel_if_id))
            REQUIRE(f.size() <= std::max(longest_in, longest_error));
        renew_sas();
    }

    void check_accounts() {
        fastpath::worker_counters sum;
        for (const auto& one : two.workers)
            sum.add(one->counters());
        REQUIRE(sum.balanced());
        REQUIRE(sum.handed_out.get() == sum.handed_in.get());
        REQUIRE(two.pool->free_frames() + sum.held.get() == two.pool->count());
    }
};

gateway& gateway_with(bool large_fib) {
    static gateway small(false), large(true);
    return large_fib ? large : small;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    gateway& g = gateway_with((data[0] & 1) != 0);
    std::span<const std::uint8_t> rest(data + 1, size - 1);
    std::size_t longest_in = 0;
    for (std::size_t i = 0; i < most_records && rest.size() >= 4; ++i) {
        const std::uint8_t head = rest[0], outer_tos = rest[1];
        const std::size_t stated = rest[2] | static_cast<std::size_t>(rest[3]) << 8;
        rest = rest.subspan(4);
        const std::size_t length = std::min({stated, rest.size(), longest});
        longest_in = std::max(longest_in, g.inject(head, outer_tos, rest.first(length)));
        rest = rest.subspan(length);
    }
    g.run_and_check(longest_in);
    return 0;
}
