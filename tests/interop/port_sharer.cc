// SPDX-License-Identifier: Apache-2.0
//
// A socket_port that shares its UDP port, for tests/interop/port_share: says what each lane gets.
//
//   port_sharer PORT LANES
//
// Payloads of the test begin, behind SPI and sequence number, with "ESP" and the number of the
// packet.  A line to stdout five times a second: what came, what was none of ours, IKE that went
// back, and the daemons that share the port.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>

#include "fastpath/port_socket.h"
#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/port_share.h"

using namespace esplane;
using namespace esplane::fastpath;

namespace {

constexpr auto look_every = std::chrono::milliseconds(200);

struct seen {
    unsigned long esp = 0, wrong = 0;
};

/// Of a frame that begins with the outer IP header.
bool is_esp(const packet& p) {
    const std::size_t at = (p.data[0] >> 4 == 4 ? 28 : 48) + sizeof(wire::esp_header);
    return p.length >= at + 3 && std::memcmp(p.data + at, "ESP", 3) == 0;
}

void receive(socket_port& port, seen& so_far) {
    std::array<packet, max_burst> burst;
    for (unsigned lane = 0; lane < port.lanes(); ++lane) {
        const std::size_t n = port.receive(lane, burst);
        for (packet& p : std::span(burst).first(n)) {
            ++(is_esp(p) ? so_far.esp : so_far.wrong);
            packet* const back = &p;
            p.owner->release({&back, 1});
        }
    }
}

std::uint64_t returned(const socket_port& port) {
    for (const named_count& c : port.extended_counters())
        if (c.name == "ike_returned") return c.value;
    return 0;
}

int complain(const error& e) {
    std::fprintf(stderr, "%s\n", e.text.c_str());
    return 1;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 3) return 2;
    const auto number = static_cast<std::uint16_t>(std::atoi(argv[1]));
    const auto lanes = static_cast<unsigned>(std::atoi(argv[2]));
    silence_bpf_libraries();
    auto pool = buffer_pool::make(1024);
    net_socket_options options;
    options.port = number;
    auto port = socket_port::open({"net", port_role::secure, options}, **pool, lanes,
                                  std::make_unique<port_share>(number, lanes));
    if (!port) return complain(port.error());
    seen so_far;
    auto look_at = std::chrono::steady_clock::now();
    std::vector<pollfd> sleep;
    for (unsigned lane = 0; lane < lanes; ++lane)
        sleep.push_back({(*port)->descriptors(lane)[0], POLLIN, 0});
    for (;;) {
        receive(**port, so_far);
        if (const auto now = std::chrono::steady_clock::now(); now >= look_at) {
            look_at = now + look_every;
            if (auto tended = (*port)->tend(); !tended) (void)complain(tended.error());
            std::printf("%lu %lu %lu %d %d\n", so_far.esp, so_far.wrong,
                        static_cast<unsigned long>(returned(**port)),
                        (*port)->daemon(ipsec::family::ipv4), (*port)->daemon(ipsec::family::ipv6));
            std::fflush(stdout);
        }
        (void)::poll(sleep.data(), sleep.size(), 20);
    }
}
