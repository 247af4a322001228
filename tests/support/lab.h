// SPDX-License-Identifier: Apache-2.0
//
// A gateway in memory, for tests and benchmarks: the control layer, the user-space backend and one
// worker over two memory ports, with a network like the quickstart's.
//
//   10.N.0.0/16 --- [plain] gateway N [secure] --- 192.168.77.0/24 --- gateway M
//   fdN::/32                192.168.77.N, fd77::N
//
// Site 1's peer is site 2 and the other way round.
//
// As a host it has no devices of its own: the plain port is the machine itself, which is 10.N.0.1
// and forwards for the rest of the network; the secure one leads to where the kernel routes.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/port_memory.h"
#include "fastpath/port_tun.h"
#include "fastpath/worker.h"
#include "lib/control/layer.h"

namespace esplane::tests {

using frame = std::vector<std::uint8_t>;

/// What a tunnel between the two sites is made of.
struct tunnel_options {
    ipsec::suite run = ipsec::suite::aes128_gcm16;
    ipsec::family outer = ipsec::family::ipv4;
    bool encapsulated = false; ///< in UDP, port 4500
    bool esn = false;
    std::uint32_t replay_window = 32;
    std::uint32_t spi = 0x1000; ///< of the SA from site 1 to site 2; the other way: + 1
    std::uint32_t reqid = 1;
    std::uint32_t if_id = 0;
    std::uint32_t key_seed = 1; ///< keys follow from it
    ipsec::lifetime_limits limits{};
    std::uint8_t flags = 0; ///< ipsec::sa_flag, beside esn
    std::uint32_t extra_flags = 0;
    ipsec::selector sel{}; ///< of both SAs
};

/// A UDP packet from site `from`, host 10.from.0.`host` to 10.to.0.`host` (or the IPv6 ones), whose
/// payload begins with `number`.  length   of the IP packet, at least 32 (IPv4) or 52 (IPv6)
struct packet_spec {
    ipsec::family family = ipsec::family::ipv4;
    unsigned from = 1;
    unsigned to = 2;
    std::uint16_t host = 10;
    std::uint16_t source_port = 1000;
    std::uint16_t destination_port = 2000;
    std::uint32_t length = 64;
    std::uint32_t number = 0;
    std::uint8_t tos = 0;
    std::uint8_t ttl = 64;
    bool dont_fragment = true;
};
/// The IP packet, checksums right.
[[nodiscard]] frame make_packet(const packet_spec& spec);
/// The number that make_packet put into an IP packet that came out.
[[nodiscard]] std::uint32_t number_of(const frame& ip_packet);
/// With an Ethernet header in front, to the lab's port.
[[nodiscard]] frame with_ethernet(const frame& ip_packet);
/// Without it.
[[nodiscard]] frame without_ethernet(const frame& f);

/// Deterministic bytes: a lab never asks the system for randomness.
[[nodiscard]] control::random_source fixed_random(std::uint64_t seed);

/// Keys for a suite, resolved.
[[nodiscard]] ipsec::algorithms make_algorithms(ipsec::suite run, std::uint32_t seed);

enum class lab_kind : std::uint8_t { gateway, host };

class lab {
  public:
    static constexpr std::uint16_t plain = 0;
    static constexpr std::uint16_t secure = 1;

    /// site           1 or 2
    /// frames         in the buffer pool
    /// workers        each has a lane of the plain port
    /// secure_lanes   of the secure port; 0: one for each worker too
    explicit lab(unsigned site, std::uint32_t frames = 1024, unsigned workers = 1,
                 unsigned secure_lanes = 0, lab_kind kind = lab_kind::gateway);
    ~lab();

    /// Both SAs of a tunnel and the policies `out`, `in` and `fwd` for both families' site
    /// networks.
    void add_tunnel(const tunnel_options& o);
    void add_sas(const tunnel_options& o);
    void add_policies(const tunnel_options& o);
    /// An interface of tunnels by route, and a route to `network` ("10.2.0.0/16") into it.
    void add_interface(std::uint32_t if_id, const std::string& network);
    void add_route(std::uint32_t if_id, const std::string& network);
    /// Takes out every route to `network` that leads into an interface.
    void withdraw_route(const std::string& network);
    /// IP packets that the machine itself sends into the interface; one loop of the worker.
    void send_own(std::uint32_t if_id, const std::vector<frame>& ip_packets);
    /// IP packets that came up by it since the last call.
    [[nodiscard]] std::vector<frame> came_up(std::uint32_t if_id);

    /// One policy; index and position are given by control.
    void add_policy(ipsec::policy p);
    /// Of the SA that leaves (or, false, enters) this site.
    [[nodiscard]] ipsec::sa_id sa_of(const tunnel_options& o, bool leaving) const;

    /// Loops of all workers after injecting IP packets on a lane of a port.
    void push(std::uint16_t port, const std::vector<frame>& ip_packets, unsigned lane = 0);
    /// A loop of each worker in turn, until none has anything to do.
    void run();
    /// Loops without new packets, `ns` later, control's events delivered.
    void advance(std::uint64_t ns);
    /// IP packets that left by a port since the last call.
    [[nodiscard]] std::vector<frame> sent(std::uint16_t port);
    [[nodiscard]] std::vector<frame> punted(std::uint16_t port);

    [[nodiscard]] std::uint64_t drops(fastpath::drop_reason r) const;

    unsigned site;
    lab_kind kind;
    moment clock{1'000'000'000, 1'700'000'000};
    control::network network;
    std::unique_ptr<fastpath::buffer_pool> pool;
    fastpath::tables tables;
    fastpath::user_backend backend;
    control::layer control;
    std::unique_ptr<fastpath::memory_port> ports[2];
    std::unique_ptr<fastpath::tun_port> interfaces;
    std::vector<fastpath::tunnel_binding> tunnels;
    std::map<std::uint32_t, unique_fd> machine_ends; ///< of interfaces, by if_id
    fastpath::handover_mesh mesh;
    std::vector<std::unique_ptr<fastpath::worker>> workers;
    fastpath::worker* worker; ///< the first

    /// After a change of `network`.
    void publish_network();
    void poll_events();
};

/// A lab's ports by what a test calls them.
namespace gateway_ports {
inline constexpr std::uint16_t plain = lab::plain;
inline constexpr std::uint16_t secure = lab::secure;
} // namespace gateway_ports
namespace host_ports {
inline constexpr std::uint16_t machine = lab::plain;
inline constexpr std::uint16_t network = lab::secure;
} // namespace host_ports

} // namespace esplane::tests
