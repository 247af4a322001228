// SPDX-License-Identifier: Apache-2.0
//
// ESP in transport mode against the Linux kernel: numbered UDP packets of this host go to a Linux
// that echoes them, and come back whole.  The kernel is a guest in user space: no root.
//
//   stack of the host --- esplane --- what the test does on the wire === vec0 Linux, echo on 2000
//   10.1.0.1, fd01::1   memory ports      (a NAT, for some)                10.2.0.1, fd02::1
//
// Each way has a pair of SAs and policies of its own, told apart by the source port: both families,
// plain and in UDP, behind a NAT too, every suite.  Linux drops what has a wrong checksum, in
// whichever header; what comes back must have a right one for the addresses it then has, and be as
// long in ESP as it was on the way there.  What both count of one SA must be equal.
//
//   kernel_transport [--quick] [--only TEXT] PRELOAD_LIBRARY      77 without a guest kernel
#include <algorithm>
#include <array>
#include <cstring>
#include <iostream>
#include <netinet/in.h>
#include <poll.h>
#include <sstream>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/wire/checksum.h"
#include "tests/interop/kernel_peer_tunnels.h"
#include "tests/interop/lib/ip_batch.h"
#include "tests/interop/lib/uml_guest.h"
#include "tests/support/lab.h"

namespace {

using namespace esplane;
using namespace esplane::tests;
using namespace std::chrono_literals;
using ipsec::family;

constexpr std::uint16_t machine = lab::plain;
constexpr std::uint16_t network = lab::secure;
constexpr std::uint16_t echo_port = 2000;
constexpr std::uint16_t encap_port = 4500;
constexpr std::uint32_t full_packets = 2'000;
constexpr std::uint32_t quick_packets = 200;
constexpr std::uint32_t under_way = 64;
constexpr const char* wire_mac = "02:00:00:00:01:00";
constexpr std::size_t ethernet = sizeof(wire::ethernet_header);

[[noreturn]] void wrong(const std::string& what) {
    throw std::runtime_error(what);
}

struct way {
    unsigned index = 0;
    family fam = family::ipv4;
    bool encapsulated = false;
    bool nat = false;
    ipsec::suite run = ipsec::suite::aes128_gcm16;
    std::string name;

    [[nodiscard]] std::uint16_t port() const { return static_cast<std::uint16_t>(1000 + index); }
};

struct wrapping {
    family fam;
    bool encapsulated, nat;
    const char* name;
};
constexpr std::array<wrapping, 6> wrappings{{{family::ipv4, false, false, "v4"},
                                             {family::ipv6, false, false, "v6"},
                                             {family::ipv4, true, false, "v4 udp"},
                                             {family::ipv6, true, false, "v6 udp"},
                                             {family::ipv4, true, true, "v4 udp nat"},
                                             {family::ipv6, true, true, "v6 udp nat"}}};

std::vector<way> all_ways() {
    std::vector<way> all;
    for (unsigned s = 0; s < ipsec::suite_count; ++s)
        for (const wrapping& w : wrappings) {
            const auto run = static_cast<ipsec::suite>(s);
            all.push_back({static_cast<unsigned>(all.size()), w.fam, w.encapsulated, w.nat, run,
                           std::string(name_of(run)) + " " + w.name});
        }
    return all;
}

// What `ip` is told

/// The host's address, as the one who is asked sees it, or the guest's.
///
/// viewer   1: the host, 2: the guest
std::string address(const way& w, unsigned site, unsigned viewer) {
    const unsigned shown = site == 1 && viewer == 2 && w.nat ? 9 : site;
    return w.fam == family::ipv4 ? "10." + std::to_string(shown) + ".0.1"
                                 : "fd0" + std::to_string(shown) + "::1";
}

std::string ends(const way& w, unsigned from, unsigned viewer) {
    return " src " + address(w, from, viewer) + " dst " + address(w, 3 - from, viewer);
}

std::uint32_t spi_of(const way& w, unsigned from) {
    return 0x10000 + 2 * w.index + from;
}

std::string lines_for(const way& w, unsigned viewer) {
    std::ostringstream out;
    for (const unsigned from : {1u, 2u}) {
        out << "xfrm state add" << ends(w, from, viewer) << " proto esp spi " << spi_of(w, from)
            << " reqid " << w.index + 1 << " mode transport replay-window 32"
            << algorithm_words(make_algorithms(w.run, 2 * w.index + from));
        if (w.encapsulated) out << " encap espinudp 4500 4500 0.0.0.0";
        out << "\nxfrm policy add" << ends(w, from, viewer) << " proto udp sport "
            << (from == 1 ? w.port() : echo_port) << " dport " << (from == 1 ? echo_port : w.port())
            << " dir " << (from == viewer ? "out" : "in") << " tmpl proto esp reqid " << w.index + 1
            << " mode transport\n";
    }
    return out.str();
}

std::string lines_for(const std::vector<way>& ways, unsigned viewer) {
    std::string all;
    for (const way& w : ways)
        all += lines_for(w, viewer);
    return all;
}

std::string guest_network() {
    return std::string("link set lo up\nlink set vec0 address ") + wire_mac +
           " up\naddr add 192.168.77.2/24 dev vec0\naddr add fd77::2/64 dev vec0 nodad\n"
           "addr add 10.2.0.1/32 dev vec0\naddr add fd02::1/128 dev vec0 nodad\n"
           "neigh replace 192.168.77.1 lladdr 02:00:00:00:00:02 dev vec0 nud permanent\n"
           "neigh replace fd77::1 lladdr 02:00:00:00:00:02 dev vec0 nud permanent\n"
           "route add 10.1.0.0/16 via 192.168.77.1 src 10.2.0.1\n"
           "route add 10.9.0.0/16 via 192.168.77.1 src 10.2.0.1\n"
           "route add fd01::/32 via fd77::1 src fd02::1\n"
           "route add fd09::/32 via fd77::1 src fd02::1\n";
}

/// At the end it shows its error counters, and what it has counted of one SA.
std::string guest_script(const std::string& self, const std::string& batch, const way& shown) {
    return "ip -batch " + batch + " && " + self +
           " --serve || poweroff -f\n"
           "echo guest-ready; read line\n"
           "cat /proc/net/xfrm_stat\n"
           "echo guest-errors\n"
           "ip -s xfrm state get" +
           ends(shown, 1, 2) + " proto esp spi " + std::to_string(spi_of(shown, 1)) +
           " | grep -o '[0-9]*(bytes), [0-9]*(packets)' | tail -1\n"
           "echo guest-done\n";
}

// In the guest

int bound_socket(std::uint16_t port) {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM, 0);
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(port);
    constexpr int room = 1 << 22; // what is under way never fills it
    if (fd < 0 || ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0 ||
        ::bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0) {
        std::perror("socket");
        std::exit(1);
    }
    return fd;
}

[[noreturn]] void echo(int fd) {
    std::array<std::uint8_t, 2048> data;
    for (;;) {
        sockaddr_storage from{};
        socklen_t length = sizeof from;
        const ssize_t n = ::recvfrom(fd, data.data(), data.size(), 0,
                                     reinterpret_cast<sockaddr*>(&from), &length);
        if (n >= 0)
            (void)::sendto(fd, data.data(), static_cast<std::size_t>(n), 0,
                           reinterpret_cast<sockaddr*>(&from), length);
    }
}

/// A child echoes, and takes ESP out of UDP of either family, until the guest ends.
int serve() {
    const int encap = bound_socket(encap_port);
    constexpr int udp_encap = 100, esp_in_udp = 2;
    if (::setsockopt(encap, IPPROTO_UDP, udp_encap, &esp_in_udp, sizeof esp_in_udp) != 0) {
        std::perror("UDP encapsulation");
        return 1;
    }
    const int fd = bound_socket(echo_port);
    if (::fork() != 0) return 0;
    echo(fd);
}

// On the wire

bool is_v4(const frame& ip) {
    return ip[0] >> 4 == 4;
}

/// Whether the UDP checksum behind the header covers the packet; 0 does over IPv4.
bool udp_sums_up(const frame& ip) {
    const bool v4 = is_v4(ip);
    const std::size_t l4 = v4 ? 20 : 40, bytes = v4 ? 4 : 16, source = v4 ? 12 : 8;
    if (v4 && wire::load<wire::be16>(&ip[l4 + 6]) == wire::be16()) return true;
    const std::uint64_t pseudo =
        wire::checksum_pseudo(&ip[source], &ip[source + bytes], bytes, wire::proto_udp,
                              static_cast<std::uint32_t>(ip.size() - l4));
    return wire::checksum_fold(wire::checksum_add(pseudo, &ip[l4], ip.size() - l4)) == 0xffff;
}

/// What a NAT does to ESP in UDP: the second byte of an address, and the checksums over it.
void translate(frame& ip, bool out) {
    const bool v4 = is_v4(ip);
    const std::size_t l4 = v4 ? 20 : 40;
    const std::size_t at = (v4 ? 12u : 8u) + (out ? 0 : v4 ? 4u : 16u);
    const auto before = wire::load<wire::be16>(&ip[at]);
    ip[at + 1] = static_cast<std::uint8_t>((ip[at + 1] & 0xf0) | (out ? 9 : 1));
    const auto after = wire::load<wire::be16>(&ip[at]);
    const std::size_t field = v4 ? 10 : l4 + 6;
    auto sum = wire::checksum_update(wire::load<wire::be16>(&ip[field]), before, after);
    if (!v4 && sum == wire::be16()) sum = wire::be16(0xffff); // 0 means none (RFC 768)
    wire::store(&ip[field], sum);
}

class trial {
  public:
    trial(uml_guest& guest, lab& host, const way& w, std::uint32_t packets)
        : guest_(guest)
        , host_(host)
        , way_(w)
        , lengths_(packets)
        , seen_(packets) {}

    void run() {
        const auto all = static_cast<std::uint32_t>(seen_.size());
        for (std::uint32_t next = 0; count_ < all;) {
            std::vector<frame> some;
            for (; next < all && next - count_ - some.size() < under_way && some.size() < 32;
                 ++next)
                some.push_back(request(next));
            send(some);
            if (!receive() && some.empty() && !wait())
                wrong(std::to_string(all - count_) + " packets missing");
        }
    }

  private:
    [[nodiscard]] frame request(std::uint32_t number) const {
        return make_packet({.family = way_.fam,
                            .host = 1,
                            .source_port = way_.port(),
                            .destination_port = echo_port,
                            .length = 64 + number * 577 % 1337,
                            .number = number,
                            .tos = static_cast<std::uint8_t>(number % 3 == 0 ? 0x28 : 0)});
    }
    void send(const std::vector<frame>& packets) {
        host_.clock = fastpath::now();
        host_.push(machine, packets);
        for (frame& esp : host_.sent(network)) {
            look_at(esp);
            lengths_[sent_++] = esp.size();
            if (way_.nat) translate(esp, true);
            const frame f = with_ethernet_header(esp);
            if (::send(guest_.link(0), f.data(), f.size(), 0) != static_cast<ssize_t>(f.size()))
                wrong(std::string("the link to the guest: ") + std::strerror(errno));
        }
        if (host_.worker->counters().dropped_total() != 0) wrong("esplane has dropped a packet");
    }
    static frame with_ethernet_header(const frame& ip) {
        frame f = with_ethernet(ip);
        constexpr std::array<std::uint8_t, 12> macs{2, 0, 0, 0, 1, 0, 2, 0, 0, 0, 0, 2};
        std::copy(macs.begin(), macs.end(), f.begin());
        return f;
    }
    void look_at(const frame& esp) const {
        const std::uint8_t protocol = esp[is_v4(esp) ? 9 : 6];
        if (protocol != (way_.encapsulated ? wire::proto_udp : wire::proto_esp))
            wrong("protocol " + std::to_string(protocol) + " on the wire");
        if (way_.encapsulated && !udp_sums_up(esp)) wrong("a wrong UDP checksum around ESP");
    }
    bool receive() {
        bool some = false;
        frame f(2048);
        for (ssize_t n; (n = ::recv(guest_.link(0), f.data(), f.size(), 0)) > 0;) {
            frame ip(f.begin() + ethernet, f.begin() + n);
            if (!is_ours(ip)) continue;
            look_at(ip);
            if (way_.nat) translate(ip, false);
            host_.push(network, {ip});
            for (const frame& came : host_.punted(machine))
                enter(came, ip.size());
            some = true;
        }
        return some;
    }
    /// ESP from the guest's site: not what it says of neighbours.
    static bool is_ours(const frame& ip) {
        if (ip.size() < 40) return false;
        const std::uint8_t protocol = ip[is_v4(ip) ? 9 : 6];
        return protocol == wire::proto_esp || protocol == wire::proto_udp;
    }
    void enter(const frame& ip, std::size_t in_esp) {
        const std::uint32_t number = number_of(ip);
        if (number >= seen_.size()) wrong("number " + std::to_string(number) + " came back");
        if (seen_[number]) wrong("packet " + std::to_string(number) + " came back twice");
        if (in_esp != lengths_[number])
            wrong("an echo of " + std::to_string(in_esp) + " bytes in ESP, asked in " +
                  std::to_string(lengths_[number]));
        const std::size_t l4 = is_v4(ip) ? 20 : 40;
        const frame asked = request(number);
        if (!std::equal(ip.begin() + l4 + 8, ip.end(), asked.begin() + l4 + 8, asked.end()))
            wrong("packet " + std::to_string(number) + " came back changed");
        if (wire::load<wire::be16>(&ip[l4 + 2]).host() != way_.port() || !udp_sums_up(ip))
            wrong("packet " + std::to_string(number) + " came back with a wrong UDP header");
        seen_[number] = true;
        ++count_;
    }
    bool wait() {
        pollfd ready{guest_.link(0), POLLIN, 0};
        return ::poll(&ready, 1, 5000) > 0;
    }

    uml_guest& guest_;
    lab& host_;
    const way& way_;
    std::vector<std::size_t> lengths_; ///< of the requests in ESP, by number
    std::vector<bool> seen_;
    std::size_t sent_ = 0;
    std::uint32_t count_ = 0;
};

// Everything

bool run_ways(uml_guest& guest, lab& host, const std::vector<way>& ways, std::uint32_t packets) {
    for (const way& w : ways) {
        try {
            trial(guest, host, w, packets).run();
            std::cout << "ok " << w.name << std::endl;
        } catch (const std::exception& e) {
            std::cout << "FAILED " << w.name << ": " << e.what() << std::endl;
            return false; // what is still under way would disturb the others
        }
    }
    return true;
}

/// Whether the guest has refused nothing; says what.
bool guest_is_content(uml_guest& guest) {
    guest.tell("");
    std::istringstream errors(guest.wait_for("guest-errors", 20s));
    bool content = true;
    std::string name;
    for (std::uint64_t count; errors >> name >> count;) {
        if (count == 0) continue;
        std::cout << "Linux counted " << name << ' ' << count << '\n';
        content = false;
    }
    return content;
}

/// Whether both have counted the same of one SA.
bool counts_are_equal(uml_guest& guest, lab& host, const way& shown) {
    const ipsec::sa* ours = host.control.get_sa(
        {*ipsec::address::parse(address(shown, 2, 1)), wire::be32(spi_of(shown, 1)), 50});
    const std::string counted = std::to_string(ours->current.bytes) + "(bytes), " +
                                std::to_string(ours->current.packets) + "(packets)";
    const std::string said = guest.wait_for("guest-done", 20s);
    if (said.find(counted) != std::string::npos) return true;
    std::cout << "esplane counted " << counted << ", Linux " << said << '\n';
    return false;
}

int run(bool quick, const std::string& only, const std::string& preload,
        const std::string& kernel) {
    std::vector<way> ways = all_ways();
    std::erase_if(ways, [&](const way& w) {
        return (quick && w.index >= wrappings.size()) || w.name.find(only) == std::string::npos;
    });
    if (ways.empty()) wrong("no way is named like " + only);
    scratch_directory scratch("kernel_transport");
    lab host(1, 1024, 1, 0, lab_kind::host);
    const std::string ours = scratch.write("ours", lines_for(ways, 1));
    if (!run_ip(ours, preload, scratch.path() + "/xfrm", host)) wrong("ip failed against esplane");
    const std::string theirs = scratch.write("theirs", guest_network() + lines_for(ways, 2));
    char self[4096] = {};
    if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0) wrong("/proc/self/exe");
    uml_guest guest(kernel, scratch, 1, guest_script(self, theirs, ways.front()));
    (void)guest.wait_for("guest-ready", 60s);
    const std::uint32_t packets = quick ? quick_packets : full_packets;
    const bool passed = run_ways(guest, host, ways, packets);
    const bool content = guest_is_content(guest);
    if (!counts_are_equal(guest, host, ways.front()) || !content || !passed) return 1;
    std::cout << ways.size() << " ways, " << ways.size() * packets
              << " packets there and back: none missing, none changed\n";
    return 0;
}

} // namespace

int main(int argc, char** argv) {
    bool quick = false;
    std::string only, preload;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--serve") return serve();
        if (word == "--quick")
            quick = true;
        else if (word == "--only" && i + 1 < argc)
            only = argv[++i];
        else
            preload = word;
    }
    if (preload.empty()) {
        std::cerr << "usage: kernel_transport [--quick] [--only TEXT] PRELOAD_LIBRARY\n";
        return 2;
    }
    const auto kernel = uml_guest::find_kernel();
    if (!kernel) {
        std::cout << "skipped: " << kernel.error().text << '\n';
        return 77;
    }
    try {
        return run(quick, only, preload, *kernel);
    } catch (const std::exception& e) {
        std::cout << "FAILED " << e.what() << '\n';
        return 1;
    }
}
