// SPDX-License-Identifier: Apache-2.0
#include "tests/support/lab.h"

#include <algorithm>
#include <random>
#include <stdexcept>
#include <sys/socket.h>

#include "fastpath/lane.h"
#include "lib/wire/checksum.h"

namespace esplane::tests {

namespace {

using ipsec::address;
using ipsec::family;

const wire::mac_address port_mac[2] = {{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}};
const wire::mac_address peer_mac = {2, 0, 0, 0, 1, 0};
constexpr int port_ifindex[2] = {11, 12};
constexpr int machine_ifindex = 13; ///< of a host's TUN

address parse(const std::string& text) {
    return *address::parse(text);
}

/// Network of a site, either family.
address site_network(family f, unsigned site) {
    return parse(f == family::ipv4 ? "10." + std::to_string(site) + ".0.0"
                                   : "fd0" + std::to_string(site) + "::");
}
constexpr std::uint8_t site_prefix(family f) {
    return f == family::ipv4 ? 16 : 32;
}

address gateway_address(family f, unsigned site) {
    return parse((f == family::ipv4 ? "192.168.77." : "fd77::") + std::to_string(site));
}

address host_address(family f, unsigned site, std::uint16_t host) {
    address a = site_network(f, site);
    const std::size_t last = ipsec::address_length(f) - 2u;
    wire::store(a.bytes.data() + last, wire::be16(host));
    return a;
}

control::network make_network(unsigned site) {
    const unsigned peer = 3 - site;
    control::network n;
    n.links = {{port_ifindex[0], "plain", port_mac[0], 1500, true},
               {port_ifindex[1], "secure", port_mac[1], 1500, true}};
    for (const family f : {family::ipv4, family::ipv6}) {
        const std::uint8_t bits = ipsec::address_bits(f);
        const std::uint8_t wan_prefix = f == family::ipv4 ? 24 : 64;
        const address lan = host_address(f, site, 1);
        const address wan = gateway_address(f, site);
        n.addresses.push_back({port_ifindex[0], lan, site_prefix(f)});
        n.addresses.push_back({port_ifindex[1], wan, wan_prefix});
        const auto add = [&](const address& to, std::uint8_t prefix, control::route_kind kind,
                             int ifindex, const address& via) {
            control::route r;
            r.destination = to;
            r.prefix = prefix;
            r.kind = kind;
            r.ifindex = ifindex;
            r.gateway = via;
            n.routes.push_back(r);
        };
        add(lan, bits, control::route_kind::local, port_ifindex[0], {});
        add(wan, bits, control::route_kind::local, port_ifindex[1], {});
        add(site_network(f, site), site_prefix(f), control::route_kind::unicast, port_ifindex[0],
            host_address(f, site, 2)); // all hosts of a site sit behind one router
        add(ipsec::masked(wan, wan_prefix), wan_prefix, control::route_kind::unicast,
            port_ifindex[1], {});
        add(site_network(f, peer), site_prefix(f), control::route_kind::unicast, port_ifindex[1],
            gateway_address(f, peer));
        n.neighbours.push_back({port_ifindex[0], host_address(f, site, 2), peer_mac, true});
        n.neighbours.push_back({port_ifindex[1], gateway_address(f, peer), peer_mac, true});
    }
    return n;
}

/// A call that a test relies on.
void must(const result<void>& r) {
    if (!r)
        throw std::runtime_error("lab: error " + std::to_string(r.error().code) + " " +
                                 r.error().text);
}

} // namespace

frame make_packet(const packet_spec& s) {
    const bool v4 = s.family == family::ipv4;
    const std::size_t ip_length = v4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    frame f(s.length);
    const address source = host_address(s.family, s.from, s.host);
    const address destination = host_address(s.family, s.to, s.host);
    const auto l4_length = static_cast<std::uint32_t>(s.length - ip_length);
    for (std::size_t i = ip_length + sizeof(wire::udp_header); i < f.size(); ++i)
        f[i] = static_cast<std::uint8_t>(i * 7 + s.number);
    wire::store(f.data() + ip_length + sizeof(wire::udp_header), wire::be32(s.number));
    wire::udp_header udp{};
    udp.source.set(s.source_port);
    udp.destination.set(s.destination_port);
    udp.length.set(static_cast<std::uint16_t>(l4_length));
    wire::store(f.data() + ip_length, udp);
    const std::uint64_t pseudo =
        wire::checksum_pseudo(source.bytes.data(), destination.bytes.data(),
                              ipsec::address_length(s.family), wire::proto_udp, l4_length);
    udp.checksum =
        wire::checksum_finish(wire::checksum_add(pseudo, f.data() + ip_length, l4_length));
    wire::store(f.data() + ip_length, udp);
    if (v4) {
        wire::ipv4_header ip{};
        ip.version_ihl = 0x45;
        ip.tos = s.tos;
        ip.total_length.set(static_cast<std::uint16_t>(s.length));
        ip.fragment.set(s.dont_fragment ? wire::ipv4_df : 0);
        ip.ttl = s.ttl;
        ip.protocol = wire::proto_udp;
        ip.source = source.as_v4();
        ip.destination = destination.as_v4();
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
        wire::store(f.data(), ip);
    } else {
        wire::ipv6_header ip{};
        ip.version_class_flow.set(0x60000000u | std::uint32_t{s.tos} << 20);
        ip.payload_length.set(static_cast<std::uint16_t>(l4_length));
        ip.next_header = wire::proto_udp;
        ip.hop_limit = s.ttl;
        ip.source = source.bytes;
        ip.destination = destination.bytes;
        wire::store(f.data(), ip);
    }
    return f;
}

std::uint32_t number_of(const frame& ip_packet) {
    const std::size_t at =
        (ip_packet.at(0) >> 4) == 4 ? sizeof(wire::ipv4_header) : sizeof(wire::ipv6_header);
    return wire::load<wire::be32>(&ip_packet.at(at + sizeof(wire::udp_header))).host();
}

frame with_ethernet(const frame& ip_packet) {
    wire::ethernet_header header{};
    header.destination = port_mac[0];
    header.source = peer_mac;
    header.type.set(!ip_packet.empty() && (ip_packet[0] >> 4) == 6 ? wire::ethertype_ipv6
                                                                   : wire::ethertype_ipv4);
    frame f(sizeof header + ip_packet.size());
    wire::store(f.data(), header);
    std::copy(ip_packet.begin(), ip_packet.end(), f.begin() + sizeof header);
    return f;
}

frame without_ethernet(const frame& f) {
    return {f.begin() + sizeof(wire::ethernet_header), f.end()};
}

control::random_source fixed_random(std::uint64_t seed) {
    return [engine = std::mt19937_64(seed)](std::span<std::uint8_t> into) mutable {
        for (std::uint8_t& b : into)
            b = static_cast<std::uint8_t>(engine());
    };
}

ipsec::algorithms make_algorithms(ipsec::suite run, std::uint32_t seed) {
    const auto key = [&](std::size_t length, std::uint32_t salt) {
        std::vector<std::uint8_t> bytes(length);
        fixed_random(seed * 16 + salt)(bytes);
        return secret(bytes);
    };
    const auto aes_length = [&] {
        switch (run) {
        case ipsec::suite::aes192_gcm16:
        case ipsec::suite::aes192_cbc_sha256_128:
        case ipsec::suite::aes192_cbc_sha1_96:
            return 24;
        case ipsec::suite::aes256_gcm16:
        case ipsec::suite::aes256_cbc_sha256_128:
        case ipsec::suite::aes256_cbc_sha1_96:
            return 32;
        default:
            return 16;
        }
    }();
    ipsec::algorithms a;
    switch (run) {
    case ipsec::suite::aes128_gcm16:
    case ipsec::suite::aes192_gcm16:
    case ipsec::suite::aes256_gcm16:
        a.aead = {"rfc4106(gcm(aes))", key(aes_length + 4u, 0), 128};
        break;
    case ipsec::suite::chacha20_poly1305:
        a.aead = {"rfc7539esp(chacha20,poly1305)", key(36, 0), 128};
        break;
    case ipsec::suite::null_sha256_128:
        a.cipher = {"ecb(cipher_null)", {}, 0};
        a.auth = {"hmac(sha256)", key(32, 1), 128};
        break;
    case ipsec::suite::null_sha1_96:
        a.cipher = {"ecb(cipher_null)", {}, 0};
        a.auth = {"hmac(sha1)", key(20, 1), 96};
        break;
    case ipsec::suite::aes128_cbc_sha1_96:
    case ipsec::suite::aes192_cbc_sha1_96:
    case ipsec::suite::aes256_cbc_sha1_96:
        a.cipher = {"cbc(aes)", key(static_cast<std::size_t>(aes_length), 2), 0};
        a.auth = {"hmac(sha1)", key(20, 3), 96};
        break;
    default:
        a.cipher = {"cbc(aes)", key(static_cast<std::size_t>(aes_length), 2), 0};
        a.auth = {"hmac(sha256)", key(32, 3), 128};
    }
    must(ipsec::resolve(a));
    return a;
}

lab::lab(unsigned which, std::uint32_t frames, unsigned worker_count, unsigned secure_lanes,
         lab_kind k)
    : site(which)
    , kind(k)
    , network(make_network(which))
    , pool(*fastpath::buffer_pool::make(frames, worker_count))
    , backend(tables, fixed_random(which))
    , control(backend, fixed_random(which + 100))
    , mesh(worker_count) {
    using fastpath::memory_port;
    using fastpath::port_role;
    const bool ethernet = kind == lab_kind::gateway;
    ports[plain] =
        std::make_unique<memory_port>("plain", *pool, ethernet, port_role::plain, worker_count);
    ports[secure] = std::make_unique<memory_port>("secure", *pool, ethernet, port_role::secure,
                                                  secure_lanes == 0 ? worker_count : secure_lanes);
    if (kind == lab_kind::host) {
        network.links.push_back({machine_ifindex, "ipsec0", {}, 1400, true});
        ports[plain]->stand_for_machine();
        ports[secure]->stand_for_kernel();
    }
    interfaces = *fastpath::tun_port::make(*pool, tables.graveyard(), 1);
    fastpath::port* const all[] = {ports[0].get(), ports[1].get(), interfaces.get()};
    for (unsigned i = 0; i < worker_count; ++i) {
        auto made = fastpath::worker::make(tables, *pool, all, {.index = i}, &mesh);
        if (!made) throw std::runtime_error(made.error().text);
        workers.push_back(std::move(*made));
    }
    worker = workers.front().get();
    publish_network();
}

/// Its workers ran on this thread, which is nobody's again.
lab::~lab() {
    fastpath::enter_lane(0);
}

void lab::publish_network() {
    fastpath::device_bindings bindings{{}, tunnels};
    if (kind == lab_kind::gateway) {
        bindings.ports = {{port_ifindex[0], plain}, {port_ifindex[1], secure}};
    } else {
        bindings.ports = {{machine_ifindex, plain, true}, {0, secure}};
        bindings.by_kernel = secure;
    }
    tables.publish(fastpath::fib::build(network, bindings));
}

ipsec::sa_id lab::sa_of(const tunnel_options& o, bool leaving) const {
    const unsigned from = leaving ? site : 3 - site;
    return {gateway_address(o.outer, 3 - from), wire::be32(o.spi + from - 1), wire::proto_esp};
}

void lab::add_sas(const tunnel_options& o) {
    for (const bool leaving : {true, false}) {
        const unsigned from = leaving ? site : 3 - site;
        ipsec::sa s;
        s.id = sa_of(o, leaving);
        s.source = gateway_address(o.outer, from);
        s.reqid = o.reqid;
        s.if_id = o.if_id;
        s.algs = make_algorithms(o.run, o.key_seed * 2 + from);
        s.flags = static_cast<std::uint8_t>(o.flags | (o.esn ? ipsec::sa_flag::esn : 0));
        s.extra_flags = o.extra_flags;
        s.sel = o.sel;
        s.replay_window = o.replay_window;
        s.replay.bitmap.resize(o.replay_window / 32);
        s.limits = o.limits;
        if (o.encapsulated) s.encap = {wire::be16(4500), wire::be16(4500), {}};
        must(control.add_sa(std::move(s), {}, clock));
    }
}

void lab::add_policies(const tunnel_options& o) {
    for (const family f : {family::ipv4, family::ipv6})
        for (const auto dir : {ipsec::policy_direction::out, ipsec::policy_direction::in,
                               ipsec::policy_direction::fwd}) {
            const unsigned from = dir == ipsec::policy_direction::out ? site : 3 - site;
            ipsec::policy p;
            p.dir = dir;
            p.if_id = o.if_id;
            p.sel.fam = f;
            p.sel.source = site_network(f, from);
            p.sel.destination = site_network(f, 3 - from);
            p.sel.source_prefix = p.sel.destination_prefix = site_prefix(f);
            ipsec::template_ t;
            t.id.destination = gateway_address(o.outer, 3 - from);
            t.source = gateway_address(o.outer, from);
            t.fam = o.outer;
            t.reqid = o.reqid;
            p.templates = {t};
            add_policy(std::move(p));
        }
}

void lab::add_policy(ipsec::policy p) {
    must(control.add_policy(std::move(p), {}, clock));
}

void lab::add_tunnel(const tunnel_options& o) {
    add_sas(o);
    add_policies(o);
}

namespace {

constexpr int interface_ifindex = 100;

control::route route_into(std::uint32_t if_id, const std::string& network) {
    const auto slash = network.find('/');
    control::route r;
    r.destination = parse(network.substr(0, slash));
    r.prefix = static_cast<std::uint8_t>(std::stoi(network.substr(slash + 1)));
    r.ifindex = interface_ifindex + static_cast<int>(if_id);
    return r;
}

} // namespace

void lab::add_interface(std::uint32_t if_id, const std::string& prefix) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        throw std::runtime_error("lab: socketpair");
    must(interfaces->add(fastpath::tun::over(unique_fd(ends[0])), if_id));
    machine_ends[if_id] = unique_fd(ends[1]);
    control::link l;
    l.ifindex = interface_ifindex + static_cast<int>(if_id);
    l.name = "ipsec" + std::to_string(if_id);
    l.mtu = 1420;
    l.up = true;
    l.kind = control::link_kind::tun;
    network.links.push_back(l);
    tunnels.push_back({l.ifindex, if_id});
    add_route(if_id, prefix);
}

void lab::add_route(std::uint32_t if_id, const std::string& prefix) {
    network.routes.insert(network.routes.begin(), route_into(if_id, prefix));
    publish_network();
}

void lab::withdraw_route(const std::string& prefix) {
    std::erase_if(network.routes, [&](const control::route& r) {
        const control::route gone = route_into(0, prefix);
        return r.ifindex > interface_ifindex && r.prefix == gone.prefix &&
               r.destination == gone.destination;
    });
    publish_network();
}

void lab::send_own(std::uint32_t if_id, const std::vector<frame>& ip_packets) {
    for (const frame& f : ip_packets)
        if (::send(machine_ends.at(if_id).get(), f.data(), f.size(), 0) < 0)
            throw std::runtime_error("lab: the interface is full");
    for (int i = 0; i < 32; ++i) // it is not asked at every loop
        worker->run_once(clock);
    poll_events();
}

std::vector<frame> lab::came_up(std::uint32_t if_id) {
    std::vector<frame> all;
    frame f(4096);
    for (ssize_t n; (n = ::recv(machine_ends.at(if_id).get(), f.data(), f.size(), 0)) > 0;)
        all.emplace_back(f.begin(), f.begin() + n);
    return all;
}

void lab::push(std::uint16_t port, const std::vector<frame>& ip_packets, unsigned lane) {
    for (const frame& f : ip_packets)
        (void)ports[port]->inject(ports[port]->ethernet() ? with_ethernet(f) : f, lane);
    run();
    poll_events();
}

void lab::run() {
    for (std::size_t worked = 1; worked != 0;) {
        worked = 0;
        for (const auto& one : workers)
            worked += one->run_once(clock);
    }
}

void lab::advance(std::uint64_t ns) {
    const std::uint64_t before = clock.monotonic_ns / 1'000'000'000;
    clock.monotonic_ns += ns;
    clock.realtime_s += clock.monotonic_ns / 1'000'000'000 - before;
    for (const auto& one : workers)
        one->run_once(clock);
    poll_events();
    control.tick(clock);
}

void lab::poll_events() {
    for (const auto& one : workers)
        for (fastpath::worker_event e; one->events().pop(e);)
            backend.deliver(e);
    control.tick(clock);
}

namespace {

std::vector<frame> stripped(const fastpath::port& from, std::vector<frame> frames) {
    if (from.ethernet())
        for (frame& f : frames)
            f = without_ethernet(f);
    return frames;
}

} // namespace

std::vector<frame> lab::sent(std::uint16_t port) {
    return stripped(*ports[port], ports[port]->take_sent());
}

std::vector<frame> lab::punted(std::uint16_t port) {
    return stripped(*ports[port], ports[port]->take_punted());
}

std::uint64_t lab::drops(fastpath::drop_reason r) const {
    std::uint64_t n = 0;
    for (const auto& one : workers)
        n += one->counters().dropped[static_cast<std::size_t>(r)].get();
    return n;
}

} // namespace esplane::tests
