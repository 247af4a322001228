// SPDX-License-Identifier: Apache-2.0
//
// esplane against the Linux kernel: every algorithm, family, encapsulation, ESN and window, 10,000
// numbered packets each way through each tunnel, none missing, none twice, none changed but for
// what two routers change.  The kernel is a guest in user space: no root.
//
//   hosts of site 1 --- [plain] esplane [secure] ====== vec0 Linux vec1 --- hosts of site 2
//   (this process)       memory ports          ESP       guest              (this process)
//
// Both sides are set up by `ip -batch`: esplane's through the preloaded shim and the XFRM server.
// What the test sees on the wire is compared too: for the same inner packet both gateways must
// write the same outer header.  CE marks on the way must reach the inner packet on both sides, and
// ESP packets that come twice, late or out of order must be taken once or not at all.
//
// With --routes: tunnels by route.  Linux has an xfrm interface for each, esplane an interface by
// hand; all have the same peer, reqid and selector (everything), so that the interface id alone
// says which SA a packet takes and which policy admits it.  A Linux without xfrm interfaces gets
// policies without interface id instead.
//
//   kernel_peer [--quick] [--only TEXT] [--routes] PRELOAD_LIBRARY      77 without a guest kernel
#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fcntl.h>
#include <iostream>
#include <map>
#include <netinet/in.h>
#include <poll.h>
#include <sstream>
#include <stdexcept>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/interop/kernel_peer_tunnels.h"
#include "tests/interop/kernel_peer_wire.h"
#include "tests/interop/lib/ip_batch.h"
#include "tests/interop/lib/uml_guest.h"
#include "tests/support/lab.h"

namespace {

using namespace esplane;
using namespace esplane::tests;
using namespace std::chrono_literals;
using ipsec::family;

constexpr unsigned esplane_site = 1;
constexpr unsigned wire_link = 0;
constexpr unsigned clear_link = 1;
constexpr std::uint32_t full_packets = 10'000;
constexpr std::uint32_t quick_packets = 2'000; ///< more than the largest window
constexpr std::uint32_t under_way = 128;       ///< fits all buffers between: nothing may be lost
constexpr std::uint32_t replayed = 16;         ///< fewer than the smallest window
constexpr unsigned failures_shown = 5;
constexpr std::uint8_t ecn_mask = 3;

volatile std::sig_atomic_t interrupted = 0;

[[noreturn]] void wrong(const std::string& what) {
    throw std::runtime_error(what);
}

// The guest

constexpr const char* wire_mac = "02:00:00:00:01:00"; // the lab's peer
constexpr const char* lab_mac = "02:00:00:00:00:02";  // the lab's secure port
constexpr wire::mac_address clear_mac = {2, 0, 0, 0, 2, 1};
constexpr wire::mac_address host_mac = {2, 0, 0, 0, 2, 2};

std::string guest_network_lines() {
    std::ostringstream out;
    out << "link set lo up\n"
        << "link set vec0 address " << wire_mac << " up\n"
        << "link set vec1 address 02:00:00:00:02:01 up\n"
        << "addr add 192.168.77.2/24 dev vec0\n"
        << "addr add fd77::2/64 dev vec0 nodad\n"
        << "addr add 10.2.0.1/24 dev vec1\n"
        << "addr add fd02::1/120 dev vec1 nodad\n";
    for (const char* gateway : {"192.168.77.1", "fd77::1"})
        out << "neigh replace " << gateway << " lladdr " << lab_mac << " dev vec0 nud permanent\n";
    for (const char* router : {"10.2.0.2", "fd02::2"})
        out << "neigh replace " << router << " lladdr 02:00:00:00:02:02 dev vec1 nud permanent\n";
    out << "route add 10.1.0.0/16 via 192.168.77.1\n"
        << "route add fd01::/32 via fd77::1\n"
        << "route add 10.2.0.0/16 via 10.2.0.2\n"
        << "route add fd02::/32 via fd02::2\n";
    return out.str();
}

/// without_interfaces   the batch for a Linux that has no xfrm interfaces
std::string guest_script(const std::string& self, const std::string& batch,
                         const std::string& without_interfaces) {
    return "cd /proc/sys/net\n"
           "echo 1 >ipv4/ip_forward; echo 1 >ipv6/conf/all/forwarding\n"
           "for i in all default vec0 vec1; do echo 0 >ipv4/conf/$i/rp_filter; done\n"
           "batch=" +
           batch +
           "\n"
           "ip link add probe type xfrm dev vec0 if_id 4000000000 && ip link del probe || {\n"
           "    echo no-xfrm-interfaces; batch=" +
           without_interfaces +
           "\n}\n"
           "ip -batch $batch && " +
           self +
           " --encap-socket || poweroff -f\n"
           "echo guest-ready; read line\n"
           "cat /proc/net/xfrm_stat\n"
           "echo guest-done\n";
}

/// In the guest: a UDP socket by which its kernel takes ESP out of UDP, held by a child until the
/// guest ends.
int hold_encap_socket() {
    const int fd = ::socket(AF_INET6, SOCK_DGRAM, 0); // IPv4's too
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(4500);
    constexpr int udp_encap = 100, esp_in_udp = 2;
    if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&any), sizeof any) != 0 ||
        ::setsockopt(fd, IPPROTO_UDP, udp_encap, &esp_in_udp, sizeof esp_in_udp) != 0) {
        std::perror("UDP encapsulation socket");
        return 1;
    }
    if (::fork() != 0) return 0;
    for (;;)
        ::pause();
}

bool is_marked(std::uint32_t number) {
    return number % 97 == 11;
}

frame with_header(const frame& ip_packet, const wire::mac_address& to,
                  const wire::mac_address& from) {
    frame f = with_ethernet(ip_packet);
    std::memcpy(f.data(), to.data(), to.size());
    std::memcpy(f.data() + to.size(), from.data(), from.size());
    return f;
}

// The two gateways

/// What goes from one site to the other: feed() at the sender's hosts, wire() between the
/// gateways, arrived() at the receiver's hosts.
class gateways {
  public:
    gateways(uml_guest& linux_guest, lab& esplane_lab)
        : guest_(linux_guest)
        , lab_(esplane_lab) {}

    void feed(unsigned from, const frame& ip_packet) {
        if (from == esplane_site)
            inject(lab::plain, with_ethernet(ip_packet));
        else
            send(clear_link, with_header(ip_packet, clear_mac, host_mac));
    }
    /// ESP that the sender's gateway has made.
    [[nodiscard]] std::vector<frame> on_wire(unsigned from) {
        if (from != esplane_site) return receive(receiving_link(from), is_esp);
        run();
        return lab_.ports[lab::secure]->take_sent();
    }
    /// Hands ESP to the receiver's gateway.
    void deliver(unsigned from, const frame& esp) {
        if (from == esplane_site)
            send(wire_link, esp);
        else
            inject(lab::secure, esp);
    }
    [[nodiscard]] std::vector<frame> arrived(unsigned from) {
        if (from == esplane_site)
            return receive(receiving_link(from),
                           [](const frame& f) { return is_packet(f, wire::proto_udp, 2000); });
        run();
        return lab_.ports[lab::plain]->take_sent();
    }
    /// Until the guest's end of the way has something.  False where nothing comes.
    [[nodiscard]] bool wait(unsigned from) { return wait_for_link(receiving_link(from), 3000); }
    /// Forgets what is still under way, after a failure.
    void settle() {
        for (const unsigned link : {wire_link, clear_link})
            while (!interrupted && wait_for_link(link, 200))
                (void)receive(link, [](const frame&) { return false; });
        for (const unsigned from : {esplane_site, 3 - esplane_site})
            (void)arrived(from), (void)on_wire(from);
    }
    [[nodiscard]] std::uint64_t drops(fastpath::drop_reason r) const { return lab_.drops(r); }

  private:
    static unsigned receiving_link(unsigned from) {
        return from == esplane_site ? clear_link : wire_link;
    }
    bool wait_for_link(unsigned link, int milliseconds) {
        pollfd wait{guest_.link(link), POLLIN, 0};
        const int n = ::poll(&wait, 1, milliseconds);
        if (interrupted) wrong("interrupted");
        return n > 0;
    }
    void inject(std::uint16_t port, const frame& f) {
        if (!lab_.ports[port]->inject(f)) wrong("a frame longer than a buffer");
    }
    void run() {
        lab_.clock = fastpath::now();
        while (lab_.worker->run_once(lab_.clock) != 0) {
        }
        lab_.poll_events();
    }
    void send(unsigned link, const frame& f) {
        if (::send(guest_.link(link), f.data(), f.size(), 0) != static_cast<ssize_t>(f.size()))
            wrong(std::string("the link to the guest: ") + std::strerror(errno));
    }
    template <typename Filter>
    std::vector<frame> receive(unsigned link, Filter&& wanted) {
        std::vector<frame> out;
        frame f(2048);
        for (ssize_t n; (n = ::recv(guest_.link(link), f.data(), f.size(), 0)) > 0;) {
            frame got(f.begin(), f.begin() + n);
            if (wanted(got)) out.push_back(std::move(got));
        }
        return out;
    }

    uml_guest& guest_;
    lab& lab_;
};

// One tunnel

/// What has arrived of the numbers of one tunnel and direction.
class ledger {
  public:
    ledger(const tunnel& t, unsigned from, std::uint32_t numbers)
        : tunnel_(t)
        , from_(from)
        , seen_(numbers) {}

    void enter(const frame& f) {
        const frame packet = without_ethernet(f);
        const std::uint32_t number = number_of(packet);
        if (number >= seen_.size() || packet != expected(number))
            wrong("packet " + std::to_string(number) + " arrived changed");
        if (seen_[number]) wrong("packet " + std::to_string(number) + " arrived twice");
        seen_[number] = true;
        ++count_;
    }
    [[nodiscard]] bool has(std::uint32_t number) const { return seen_[number]; }
    [[nodiscard]] std::uint32_t count() const { return count_; }
    /// What is missing of the first `wanted` numbers.
    [[nodiscard]] std::string missing(std::uint32_t wanted) const {
        std::uint32_t first = 0;
        while (first < wanted && seen_[first])
            ++first;
        return std::to_string(wanted - count_) + " packets missing, the first is number " +
               std::to_string(first);
    }

  private:
    /// After two routers and what the wire did to it.
    frame expected(std::uint32_t number) const {
        packet_spec s = spec_of(tunnel_, from_, number);
        s.ttl = static_cast<std::uint8_t>(s.ttl - 2);
        if (is_marked(number) && (s.tos & ecn_mask) != 0) s.tos |= ecn_ce;
        return make_labelled(s);
    }

    const tunnel& tunnel_;
    unsigned from_;
    std::vector<bool> seen_;
    std::uint32_t count_ = 0;
};

class tunnel_trial {
  public:
    tunnel_trial(gateways& g, const tunnel& t, std::uint32_t packets)
        : gateways_(g)
        , tunnel_(t)
        , packets_(packets)
        , outer_(packets) {}

    void run() {
        for (const unsigned from : {esplane_site, 3 - esplane_site}) {
            ledger book(tunnel_, from, packets_ + replayed + 1);
            send_numbered(from, book);
            replay(from, book);
        }
    }

  private:
    void feed(unsigned from, std::uint32_t number) {
        gateways_.feed(from, make_labelled(spec_of(tunnel_, from, number)));
    }

    /// All numbers with a bounded count of them under way.
    void send_numbered(unsigned from, ledger& book) {
        std::uint32_t next = 0;
        while (book.count() < packets_) {
            for (; next < packets_ && next - book.count() < under_way; ++next)
                feed(from, next);
            std::vector<frame> esp = gateways_.on_wire(from);
            for (frame& f : esp) {
                look_at(from, f);
                gateways_.deliver(from, f);
            }
            const std::vector<frame> arrived = gateways_.arrived(from);
            for (const frame& f : arrived)
                book.enter(f);
            if (esp.empty() && arrived.empty() && !gateways_.wait(from))
                wrong(book.missing(packets_));
        }
    }

    /// The first to come (esplane's) is noted, the other's compared; some are marked on the way.
    void look_at(unsigned from, frame& f) {
        const esp_view v = view_of(f);
        const std::uint32_t number = v.sequence - sequence_before(tunnel_, packets_) - 1;
        if (number >= packets_) wrong("sequence number " + std::to_string(v.sequence) + " on wire");
        if (from == esplane_site)
            outer_[number] = v.outer;
        else if (outer_[number] != v.outer)
            wrong("packet " + std::to_string(number) + " has outer headers\n    of esplane: " +
                  text_of(outer_[number]) + "\n    of Linux:   " + text_of(v.outer));
        if (number == 0) first_ = f;
        if (is_marked(number)) mark_ce(f);
    }

    /// Replays what is to be refused and checks that the receiver has counted it: Linux's counts
    /// are read at the end.
    void replay(unsigned from, ledger& book) {
        const auto count = [&](fastpath::drop_reason r) { return gateways_.drops(r); };
        const std::uint64_t duplicates = count(fastpath::drop_reason::replay_duplicate);
        const std::uint64_t stale = count(stale_reason());
        deliver_again(from, book);
        if (from == esplane_site) return;
        if (count(fastpath::drop_reason::replay_duplicate) != duplicates + replayed)
            wrong("not every replay was counted");
        if (count(stale_reason()) != stale + 1) wrong("the stale packet was not counted");
    }

    /// Some in reverse, each of them again, and the very first: what is new is taken once.
    void deliver_again(unsigned from, ledger& book) {
        std::vector<frame> esp = collect(from, packets_, replayed);
        std::reverse(esp.begin(), esp.end());
        for (unsigned times = 0; times < 2; ++times)
            for (const frame& f : esp)
                gateways_.deliver(from, f);
        gateways_.deliver(from, first_);
        const std::uint32_t last = packets_ + replayed;
        gateways_.deliver(from, collect(from, last, 1).front()); // the way keeps the order
        while (!book.has(last)) {
            const std::vector<frame> arrived = gateways_.arrived(from);
            for (const frame& f : arrived)
                book.enter(f);
            if (arrived.empty() && !gateways_.wait(from)) break;
        }
        if (book.count() != last + 1) wrong("reordered: " + book.missing(last + 1));
    }

    /// With ESN a low half above the window's is taken for one of the same high half, far ahead:
    /// that fails the ICV.
    fastpath::drop_reason stale_reason() const {
        return tunnel_.options.esn ? fastpath::drop_reason::icv_mismatch
                                   : fastpath::drop_reason::replay_too_old;
    }

    std::vector<frame> collect(unsigned from, std::uint32_t first, std::uint32_t count) {
        for (std::uint32_t i = 0; i < count; ++i)
            feed(from, first + i);
        std::vector<frame> all;
        for (;;) {
            for (frame& f : gateways_.on_wire(from)) {
                if (is_marked(first + static_cast<std::uint32_t>(all.size()))) mark_ce(f);
                all.push_back(std::move(f));
            }
            if (all.size() >= count) return all;
            if (!gateways_.wait(from)) wrong("the gateway stopped sending");
        }
    }

    gateways& gateways_;
    const tunnel& tunnel_;
    std::uint32_t packets_;
    std::vector<outer_header> outer_;
    frame first_;
};

// Everything

struct options {
    bool quick = false;
    bool routes = false;
    std::string only;
    std::string preload;
};

/// An interface for each tunnel, and the routes of Linux's hosts into it.
void add_interfaces(lab& gateway, const std::vector<tunnel>& tunnels) {
    for (const tunnel& t : tunnels)
        (void)gateway.add_interface(t.options.if_id, network_of(t, 3 - esplane_site));
}

/// The same tunnels without interfaces: the selectors tell them apart.
std::vector<tunnel> by_policy(std::vector<tunnel> tunnels) {
    for (tunnel& t : tunnels) {
        t.options.if_id = 0;
        t.options.reqid = t.index + 1;
    }
    return tunnels;
}

std::vector<tunnel> chosen_tunnels(const options& o) {
    std::vector<tunnel> all = o.routes ? routed_tunnels() : all_tunnels();
    std::erase_if(all, [&](const tunnel& t) {
        return (o.quick && !o.routes && t.index % 5 != 0) ||
               t.name.find(o.only) == std::string::npos;
    });
    return all;
}

/// The guest's error counters; those that are zero are left out.
std::map<std::string, std::uint64_t> xfrm_errors(uml_guest& guest) {
    guest.tell("");
    std::istringstream text(guest.wait_for("guest-done", 20s));
    std::map<std::string, std::uint64_t> errors;
    std::string name;
    for (std::uint64_t count; text >> name >> count;)
        if (count != 0) errors[name] = count;
    return errors;
}

/// The kernel refused what was replayed to it and nothing else.
bool check_guest_errors(uml_guest& guest, const std::vector<tunnel>& tunnels) {
    std::map<std::string, std::uint64_t> expected;
    for (const tunnel& t : tunnels) {
        expected["XfrmInStateSeqError"] += replayed + (t.options.esn ? 0 : 1);
        if (t.options.esn) ++expected["XfrmInStateProtoError"];
    }
    const auto found = xfrm_errors(guest);
    if (found == expected) return true;
    for (const auto& [name, count] : found)
        std::cout << "Linux counted " << name << ' ' << count << '\n';
    for (const auto& [name, count] : expected)
        std::cout << "  expected    " << name << ' ' << count << '\n';
    return false;
}

bool check_esplane_errors(const lab& gateway, const std::vector<tunnel>& tunnels) {
    const std::uint64_t expected = tunnels.size() * (replayed + 1);
    const auto& counters = gateway.worker->counters();
    if (counters.dropped_total() == expected && counters.balanced()) return true;
    std::cout << "esplane dropped " << counters.dropped_total() << " packets, expected " << expected
              << (counters.balanced() ? "" : "; its account does not balance") << '\n';
    return false;
}

/// All tunnels of one suite; returns how many failed.
unsigned run_suite(gateways& g, std::span<const tunnel> tunnels, std::uint32_t packets) {
    unsigned failed = 0;
    const auto start = std::chrono::steady_clock::now();
    for (const tunnel& t : tunnels) {
        try {
            tunnel_trial(g, t, packets).run();
            std::cout << "ok " << t.name << '\n';
        } catch (const std::exception& e) {
            std::cout << "FAILED " << t.name << ": " << e.what() << std::endl;
            if (++failed == failures_shown || interrupted) return failed;
            g.settle();
        }
    }
    if (failed != 0) return failed;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    std::cout << name_of(tunnels.front().options.run) << ": " << tunnels.size() << " tunnels, "
              << 2 * tunnels.size() * packets << " packets, none missing, none twice; "
              << 2 * tunnels.size() * (replayed + 1) << " replays refused; " << took.count() << " s"
              << std::endl;
    return 0;
}

unsigned run_suites(gateways& g, const std::vector<tunnel>& tunnels, std::uint32_t packets) {
    unsigned failed = 0;
    for (std::size_t i = 0; i < tunnels.size() && failed < failures_shown && !interrupted;) {
        std::size_t end = i;
        while (end < tunnels.size() && tunnels[end].options.run == tunnels[i].options.run)
            ++end;
        failed += run_suite(g, std::span(tunnels).subspan(i, end - i), packets);
        i = end;
    }
    return failed;
}

int run(const options& o, const std::string& kernel) {
    const std::uint32_t packets = o.quick ? quick_packets : full_packets;
    const std::vector<tunnel> tunnels = chosen_tunnels(o);
    if (tunnels.empty()) wrong("no tunnel is named like " + o.only);
    scratch_directory scratch("kernel_peer");
    lab gateway(esplane_site);
    const std::string ours = scratch.write("ours", xfrm_lines(tunnels, esplane_site, packets));
    if (!run_ip(ours, o.preload, scratch.path() + "/xfrm", gateway))
        wrong("ip failed against esplane");
    if (gateway.control.sa_count() != 2 * tunnels.size()) wrong("esplane lacks SAs");
    if (o.routes) add_interfaces(gateway, tunnels);

    const auto their_lines = [&](const std::vector<tunnel>& all, const std::string& interfaces) {
        return guest_network_lines() + interfaces + xfrm_lines(all, 3 - esplane_site, packets);
    };
    const std::string theirs = scratch.write(
        "theirs",
        their_lines(tunnels, o.routes ? interface_lines(tunnels, 3 - esplane_site, "vec0") : ""));
    const std::string plain = scratch.write("plain", their_lines(by_policy(tunnels), ""));
    char self[4096] = {};
    if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0) wrong("/proc/self/exe");
    uml_guest guest(kernel, scratch, 2, guest_script(self, theirs, plain));
    const std::string said = guest.wait_for("guest-ready", 60s);
    if (o.routes && said.find("no-xfrm-interfaces") != std::string::npos)
        std::cout << "Linux has no xfrm interfaces: on its side policies alone decide\n";

    gateways both(guest, gateway);
    const unsigned failed = run_suites(both, tunnels, packets);
    if (failed == 0 && check_guest_errors(guest, tunnels) &&
        check_esplane_errors(gateway, tunnels)) {
        std::cout << tunnels.size() << " tunnels, " << 2 * tunnels.size() * packets
                  << " packets: none missing, none twice\n";
        return 0;
    }
    if (failed != 0)
        for (const auto& [name, count] : xfrm_errors(guest))
            std::cout << "Linux counted " << name << ' ' << count << '\n';
    for (unsigned r = 1; r < fastpath::drop_reason_count; ++r)
        if (const auto n = gateway.drops(static_cast<fastpath::drop_reason>(r)); n != 0)
            std::cout << "esplane dropped " << n << ": "
                      << fastpath::describe(static_cast<fastpath::drop_reason>(r)).text << '\n';
    return 1;
}

} // namespace

int main(int argc, char** argv) {
    options o;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--encap-socket") return hold_encap_socket();
        if (word == "--quick")
            o.quick = true;
        else if (word == "--routes")
            o.routes = true;
        else if (word == "--only" && i + 1 < argc)
            o.only = argv[++i];
        else
            o.preload = word;
    }
    if (o.preload.empty()) {
        std::cerr << "usage: kernel_peer [--quick] [--only TEXT] [--routes] PRELOAD_LIBRARY\n";
        return 2;
    }
    const auto kernel = uml_guest::find_kernel();
    if (!kernel) {
        std::cout << "skipped: " << kernel.error().text << '\n';
        return 77;
    }
    for (const int signal : {SIGINT, SIGTERM, SIGHUP})
        std::signal(signal, [](int) { interrupted = 1; });
    try {
        return run(o, *kernel);
    } catch (const std::exception& e) {
        std::cout << "FAILED " << e.what() << '\n';
        return 1;
    }
}
