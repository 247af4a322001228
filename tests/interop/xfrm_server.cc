// SPDX-License-Identifier: Apache-2.0
//
// The XFRM server and the control layer on a backend that moves no packet: what a client of XFRM
// sees of esplane, without ports and without root.
//
//   xfrm_server SOCKET MARK      until SIGTERM; "ready" on stdout.  MARK   of sockets that bypass
#include <poll.h>
#include <sys/random.h>
#include <sys/signalfd.h>

#include <csignal>
#include <ctime>
#include <iostream>

#include "lib/control/layer.h"
#include "tests/unit/lib/fake_backend.h"
#include "xfrm/server.h"

namespace {

std::uint64_t read_clock(clockid_t which, std::uint64_t per_second) {
    timespec t{};
    ::clock_gettime(which, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * per_second +
           (per_second > 1 ? static_cast<std::uint64_t>(t.tv_nsec) : 0);
}

esplane::moment now() {
    return {read_clock(CLOCK_MONOTONIC, 1'000'000'000), read_clock(CLOCK_REALTIME, 1)};
}

void random_bytes(std::span<std::uint8_t> into) {
    if (::getrandom(into.data(), into.size(), 0) != static_cast<ssize_t>(into.size())) std::abort();
}

int termination_descriptor() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    return ::signalfd(-1, &set, SFD_CLOEXEC);
}

int milliseconds_until(std::optional<std::uint64_t> deadline_ns) {
    if (!deadline_ns) return -1;
    const std::uint64_t at = now().monotonic_ns;
    return *deadline_ns <= at ? 0 : static_cast<int>((*deadline_ns - at) / 1'000'000) + 1;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: xfrm_server SOCKET MARK\n";
        return 2;
    }
    esplane::control::fake_backend backend;
    esplane::control::layer layer(backend, random_bytes);
    auto server = esplane::xfrm::server::open(layer, argv[1], now);
    if (!server) {
        std::cerr << "xfrm_server: " << server.error().text << '\n';
        return 1;
    }
    (*server)->set_exempt_mark(static_cast<std::uint32_t>(std::strtoul(argv[2], nullptr, 0)));
    pollfd waits[] = {{termination_descriptor(), POLLIN, 0}, {(*server)->descriptor(), POLLIN, 0}};
    std::cout << "ready" << std::endl;
    while ((waits[0].revents & POLLIN) == 0) {
        ::poll(waits, 2, milliseconds_until(layer.next_deadline_ns()));
        (*server)->serve();
        layer.tick(now());
    }
    return 0;
}
