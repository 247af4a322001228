// SPDX-License-Identifier: Apache-2.0
//
// The least gateway there can be, for tests of the AF_XDP port and its guard: what arrives on one
// port leaves by the other, with new MAC addresses and nothing else changed.
//
//   guard_gateway [OPTIONS] DEVICE=NEXT_HOP_MAC DEVICE=NEXT_HOP_MAC
//     --local ADDRESS         an address of the machine
//     --encap PORT            a port that carries ESP in UDP
//     --take-local            traffic for the machine comes by, and is handed up
//     --protect SRC/N DST/N   an `out` policy that protects
//     --bypass SRC/N DST/N    an `out` policy that allows; earlier ones win
//   guard_gateway release DEVICE...
//
// Says "ready" when packets flow, runs until SIGTERM, then prints its counters.
#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fastpath/xdp/port_xdp.h"

namespace {

using namespace esplane;
using namespace esplane::fastpath;

volatile std::sig_atomic_t stopped = 0;

template <typename T>
T must(result<T> r) {
    if (!r) {
        std::fprintf(stderr, "guard_gateway: %s\n", r.error().text.c_str());
        std::exit(1);
    }
    if constexpr (!std::is_void_v<T>) return std::move(*r);
}

struct side {
    std::string device;
    wire::mac_address own{};
    wire::mac_address next_hop{};
    std::unique_ptr<guard> keeper;
    std::unique_ptr<xdp_port> port;
    std::uint64_t refused = 0; ///< by send
};

struct settings {
    std::vector<ipsec::address> local;
    std::vector<wire::be16> encap;
    std::vector<egress_rule> rules;
    bool take_local = false;
    std::vector<std::pair<std::string, std::string>> devices; ///< name, next hop's MAC address
};

wire::mac_address parse_mac(const std::string& text) {
    std::array<unsigned, 6> b{};
    if (std::sscanf(text.c_str(), "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) !=
        6)
        must<void>(fail(EINVAL, text + ": not a MAC address"));
    wire::mac_address mac{};
    std::transform(b.begin(), b.end(), mac.begin(),
                   [](unsigned x) { return static_cast<std::uint8_t>(x); });
    return mac;
}

wire::mac_address mac_of(const std::string& device) {
    ifreq question{};
    device.copy(question.ifr_name, IFNAMSIZ - 1);
    const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (::ioctl(fd, SIOCGIFHWADDR, &question) != 0) must<void>(fail_errno(device));
    ::close(fd);
    wire::mac_address mac{};
    std::memcpy(mac.data(), question.ifr_hwaddr.sa_data, mac.size());
    return mac;
}

egress_rule parse_rule(const std::string& source, const std::string& destination, bool allow) {
    const auto split = [](const std::string& text, ipsec::address& a, std::uint8_t& prefix) {
        const auto slash = text.find('/');
        a = must(ipsec::address::parse(text.substr(0, slash)));
        prefix = static_cast<std::uint8_t>(std::stoi(text.substr(slash + 1)));
    };
    egress_rule r;
    r.allow = allow;
    split(source, r.sel.source, r.sel.source_prefix);
    split(destination, r.sel.destination, r.sel.destination_prefix);
    r.sel.fam = r.sel.source.fam;
    return r;
}

settings parse(int argc, char** argv) {
    settings s;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const auto next = [&] { return i + 1 < argc ? std::string(argv[++i]) : std::string(); };
        if (word == "--take-local") {
            s.take_local = true;
        } else if (word == "--local") {
            s.local.push_back(must(ipsec::address::parse(next())));
        } else if (word == "--encap") {
            s.encap.emplace_back(static_cast<std::uint16_t>(std::stoi(next())));
        } else if (word == "--protect" || word == "--bypass") {
            const std::string source = next();
            s.rules.push_back(parse_rule(source, next(), word == "--bypass"));
            s.rules.back().position = static_cast<std::uint32_t>(s.rules.size());
        } else {
            const auto equals = word.find('=');
            s.devices.emplace_back(word.substr(0, equals), word.substr(equals + 1));
        }
    }
    return s;
}

side open_side(const settings& s, const std::string& device, const std::string& next_hop,
               buffer_pool& pool) {
    side x;
    x.device = device;
    x.own = mac_of(device);
    x.next_hop = parse_mac(next_hop);
    x.keeper = must(guard::open(device));
    must(x.keeper->set_local_addresses(s.local));
    must(x.keeper->set_encap_ports(s.encap));
    must(x.keeper->set_take_local(s.take_local));
    must(x.keeper->set_out_policies(s.rules));
    must(x.keeper->attach());
    x.port = must(xdp_port::open({device, device}, pool, *x.keeper));
    return x;
}

bool is_local(const settings& s, const packet& p) {
    const auto* eth = reinterpret_cast<const wire::ethernet_header*>(p.data);
    ipsec::address to;
    if (eth->type.host() == wire::ethertype_ipv4)
        to = ipsec::address::v4(
            reinterpret_cast<const wire::ipv4_header*>(p.data + sizeof *eth)->destination);
    else
        to = ipsec::address::v6(
            reinterpret_cast<const wire::ipv6_header*>(p.data + sizeof *eth)->destination);
    return std::find(s.local.begin(), s.local.end(), to) != s.local.end();
}

/// One burst from `from`: up to the stack what is for the machine, the rest out of `to`.
std::size_t forward(const settings& s, side& from, side& to, buffer_pool& pool) {
    std::array<packet, max_burst> burst;
    std::vector<packet*> up, out;
    const std::size_t n = from.port->receive(0, burst);
    for (packet& p : std::span(burst.data(), n)) {
        if (is_local(s, p)) {
            up.push_back(&p);
            continue;
        }
        auto* eth = reinterpret_cast<wire::ethernet_header*>(p.data);
        eth->destination = to.next_hop;
        eth->source = to.own;
        out.push_back(&p);
    }
    (void)from.port->punt(0, up);
    pool.release(up);
    const std::size_t sent = to.port->send(0, out);
    to.refused += out.size() - sent;
    pool.release(std::span(out).subspan(sent));
    return n;
}

void run(const settings& s, side& a, side& b, buffer_pool& pool) {
    std::vector<pollfd> idle;
    for (const side* x : {&a, &b})
        for (const int fd : x->port->descriptors(0))
            idle.push_back({fd, POLLIN, 0});
    while (!stopped) {
        const std::size_t n = forward(s, a, b, pool) + forward(s, b, a, pool);
        a.port->flush(0);
        b.port->flush(0);
        if (n == 0) (void)::poll(idle.data(), idle.size(), 10);
    }
}

void print(const side& x) {
    const port_counters c = x.port->counters();
    const guard_counters g = x.keeper->counters();
    std::printf("%s queues=%zu mode=%s rx=%llu tx=%llu punted=%llu no_buffer=%llu "
                "esp=%llu ike=%llu forwarded=%llu policy=%llu exempt=%llu refused=%llu\n",
                x.device.c_str(), x.port->queues(),
                x.keeper->mode() == xdp_mode::native ? "native" : "generic",
                static_cast<unsigned long long>(c.rx_packets),
                static_cast<unsigned long long>(c.tx_packets),
                static_cast<unsigned long long>(c.punted),
                static_cast<unsigned long long>(c.rx_no_buffer),
                static_cast<unsigned long long>(g.ingress[esplane_taken_esp]),
                static_cast<unsigned long long>(g.ingress[esplane_passed_ike]),
                static_cast<unsigned long long>(g.egress[esplane_denied_forwarded]),
                static_cast<unsigned long long>(g.egress[esplane_denied_policy]),
                static_cast<unsigned long long>(g.egress[esplane_allowed_exempt]),
                static_cast<unsigned long long>(x.refused));
}

int release(int argc, char** argv) {
    for (int i = 2; i < argc; ++i) {
        const attachments gone = must(guard::release(argv[i]));
        std::printf("%s:%s%s%s\n", argv[i], gone.ingress ? " ingress" : "",
                    gone.egress ? " egress" : "", gone.qdisc ? " qdisc" : "");
    }
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    if (argc > 1 && std::string(argv[1]) == "release") return release(argc, argv);
    const settings s = parse(argc, argv);
    if (s.devices.size() != 2) must<void>(fail(EINVAL, "give two devices as DEVICE=NEXT_HOP_MAC"));
    std::signal(SIGTERM, [](int) { stopped = 1; });

    const auto pool = must(buffer_pool::make(16384));
    side a = open_side(s, s.devices[0].first, s.devices[0].second, *pool);
    side b = open_side(s, s.devices[1].first, s.devices[1].second, *pool);
    std::puts("ready");
    std::fflush(stdout);
    run(s, a, b, *pool);
    print(a);
    print(b);
    return 0;
}
