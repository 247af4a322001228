// SPDX-License-Identifier: Apache-2.0
//
// Two machines' host ports and nothing between them: what one sends goes up to the other.
//
//   host_wire [--packet-by-packet] [--lanes N] [--keep] NAMESPACE NAMESPACE
//     --packet-by-packet   do not coalesce
//     --keep               the devices stay
//
// Each namespace (of `ip netns`) gets, or has, a device "ipsec0".  Says "ready" and what the ports
// do when packets flow; runs until SIGTERM, then prints their counters, a line each.
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <memory>
#include <poll.h>
#include <sched.h>
#include <string>
#include <vector>

#include "fastpath/port_host.h"
#include "lib/base/unique_fd.h"

namespace {

using namespace esplane;
using namespace esplane::fastpath;

constexpr unsigned loops_before_sleep = 200;
constexpr std::uint64_t loops_a_tend = 100'000;

volatile std::sig_atomic_t stopped = 0;

[[noreturn]] void give_up(const std::string& why) {
    std::fprintf(stderr, "host_wire: %s\n", why.c_str());
    std::exit(1);
}

struct settings {
    bool coalesce = true;
    bool keep = false;
    unsigned lanes = 1;
    std::vector<std::string> namespaces;
};

settings parse(int argc, char** argv) {
    settings s;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--packet-by-packet")
            s.coalesce = false;
        else if (word == "--keep")
            s.keep = true;
        else if (word == "--lanes" && i + 1 < argc)
            s.lanes = static_cast<unsigned>(std::atoi(argv[++i]));
        else
            s.namespaces.push_back(word);
    }
    if (s.namespaces.size() != 2 || s.lanes == 0 || s.lanes > max_lanes)
        give_up("usage: host_wire [--packet-by-packet] [--lanes N] [--keep] NAMESPACE NAMESPACE");
    return s;
}

void enter(const std::string& name) {
    const unique_fd where(::open(("/run/netns/" + name).c_str(), O_RDONLY | O_CLOEXEC));
    if (!where.valid() || ::setns(where.get(), CLONE_NEWNET) != 0)
        give_up("no namespace " + name + ": " + std::strerror(errno));
}

/// One end: its port, and the namespace that it tends its device in.
struct end {
    std::string where;
    std::unique_ptr<host_port> port;
};

end open_end(const settings& s, const std::string& where, buffer_pool& pool) {
    enter(where);
    auto port = host_port::open(
        {.name = "host", .device = "ipsec0", .mtu = 1420, .coalesce = s.coalesce}, pool, s.lanes);
    if (!port) give_up(port.error().text);
    std::printf("%s: %s, lanes %u\n", where.c_str(), (*port)->mode().c_str(), (*port)->lanes());
    return {where, std::move(*port)};
}

std::size_t carry(host_port& from, host_port& to, unsigned lane) {
    std::array<packet, max_burst> burst;
    std::array<packet*, max_burst> pointers;
    const std::size_t n = from.receive(lane, burst);
    for (std::size_t i = 0; i < n; ++i)
        pointers[i] = &burst[i];
    const std::span arrived(pointers.data(), n);
    if (n != 0) (void)to.punt(lane % to.lanes(), arrived);
    for (packet* p : arrived)
        p->owner->release({&p, 1});
    return n;
}

std::size_t carry_all(const std::array<end, 2>& ends) {
    std::size_t n = 0;
    for (const auto& [from, to] : {std::pair{0, 1}, std::pair{1, 0}})
        for (unsigned lane = 0; lane < ends[from].port->lanes(); ++lane)
            n += carry(*ends[from].port, *ends[to].port, lane);
    return n;
}

void sleep_on(const std::array<end, 2>& ends) {
    std::vector<pollfd> waits;
    for (const end& e : ends)
        for (unsigned lane = 0; lane < e.port->lanes(); ++lane)
            for (const int fd : e.port->descriptors(lane))
                waits.push_back({fd, POLLIN, 0});
    (void)::poll(waits.data(), waits.size(), 100);
}

void tend(const std::array<end, 2>& ends) {
    for (const end& e : ends) {
        enter(e.where);
        const auto changed = e.port->tend();
        if (!changed)
            std::printf("%s: %s\n", e.where.c_str(), changed.error().text.c_str());
        else if (*changed)
            std::printf("%s: %s\n", e.where.c_str(), e.port->up() ? "up" : "down");
    }
    std::fflush(stdout);
}

void run(const std::array<end, 2>& ends) {
    unsigned idle = 0;
    for (std::uint64_t loops = 1; stopped == 0; ++loops) {
        idle = carry_all(ends) != 0 ? 0 : idle + 1;
        if (idle < loops_before_sleep && loops % loops_a_tend != 0) continue;
        tend(ends);
        sleep_on(ends);
    }
}

void report(const end& e) {
    const port_counters c = e.port->counters();
    std::printf("%s: rx_packets %llu punted %llu punt_full %llu", e.where.c_str(),
                static_cast<unsigned long long>(c.rx_packets),
                static_cast<unsigned long long>(c.punted),
                static_cast<unsigned long long>(c.punt_full));
    for (const named_count& one : e.port->extended_counters())
        std::printf(" %s %llu", one.name.c_str(), static_cast<unsigned long long>(one.value));
    std::printf("\n");
}

} // namespace

int main(int argc, char** argv) {
    const settings s = parse(argc, argv);
    struct sigaction stop {};
    stop.sa_handler = [](int) { stopped = 1; };
    ::sigaction(SIGTERM, &stop, nullptr);
    const auto pool = buffer_pool::make(4096);
    if (!pool) give_up(pool.error().text);
    const std::array<end, 2> ends{open_end(s, s.namespaces[0], **pool),
                                  open_end(s, s.namespaces[1], **pool)};
    std::printf("ready\n");
    std::fflush(stdout);
    run(ends);
    for (const end& e : ends) {
        report(e);
        if (!s.keep) e.port->forsake();
    }
    return 0;
}
