// SPDX-License-Identifier: Apache-2.0
//
// A steady load, up to much more than sockets can send.
//
//   flood DEVICE RATE MILLISECONDS SOURCE DESTINATION MAC
//
// RATE: UDP packets a second (64 bytes of IPv4 from SOURCE to DESTINATION, 256 source ports) as XDP
// live frames, into a device whose peer takes them in XDP.  MAC: where the frames go to.  Prints
// how many were offered and in how many ns.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <net/if.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/if_link.h>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace {

using namespace esplane;

constexpr std::uint64_t second = 1'000'000'000;
constexpr unsigned flows = 256;
constexpr std::uint32_t packet_length = 64;
constexpr std::uint32_t frames_a_call = 256;
constexpr std::uint32_t frames_a_batch = 64; ///< that the kernel makes before it sends them

using frame = std::array<std::uint8_t, sizeof(wire::ethernet_header) + packet_length>;

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "flood: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

std::uint64_t now_ns() {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * second + static_cast<std::uint64_t>(t.tv_nsec);
}

/// return bpf_redirect(ifindex, 0);
int load_redirect(unsigned ifindex) {
    const bpf_insn program[] = {
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, static_cast<__s32>(ifindex)},
        {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 0},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
    };
    const int fd = ::bpf_prog_load(BPF_PROG_TYPE_XDP, "flood", "Apache-2.0", program,
                                   std::size(program), nullptr);
    if (fd < 0) fail("loading the program");
    return fd;
}

frame make_frame(const char* source, const char* destination, const char* mac, unsigned flow) {
    wire::ethernet_header ethernet{};
    std::array<unsigned, 6> m{};
    if (std::sscanf(mac, "%x:%x:%x:%x:%x:%x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 6)
        fail("MAC");
    for (std::size_t i = 0; i < m.size(); ++i)
        ethernet.destination[i] = static_cast<std::uint8_t>(m[i]);
    ethernet.source = {2, 0, 0, 0, 0, 1};
    ethernet.type.set(wire::ethertype_ipv4);
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.total_length.set(packet_length);
    ip.ttl = 64;
    ip.protocol = wire::proto_udp;
    if (::inet_pton(AF_INET, source, &ip.source) != 1 ||
        ::inet_pton(AF_INET, destination, &ip.destination) != 1)
        fail("address");
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::udp_header udp{};
    udp.source.set(static_cast<std::uint16_t>(1024 + flow));
    udp.destination.set(7);
    udp.length.set(packet_length - sizeof ip); // no checksum: IPv4 allows it

    frame f{};
    wire::store(f.data(), ethernet);
    wire::store(f.data() + sizeof ethernet, ip);
    wire::store(f.data() + sizeof ethernet + sizeof ip, udp);
    return f;
}

/// Keeps the kernel from preparing the program for every call anew, which takes some 20 ms in which
/// nothing is offered: while it stands on a device it is prepared.  Ends with the process.
void keep_prepared(int program) {
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = XDP_FLAGS_SKB_MODE;
    const auto loopback = static_cast<int>(::if_nametoindex("lo"));
    if (::bpf_link_create(program, loopback, BPF_XDP, &options) < 0)
        fail("putting the program on lo");
}

/// One frame, frames_a_call times.
void offer(int program, frame& f) {
    xdp_md context{};
    context.data_end = static_cast<std::uint32_t>(f.size());
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = f.data();
    options.data_size_in = static_cast<std::uint32_t>(f.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof context;
    options.repeat = static_cast<int>(frames_a_call);
    options.batch_size = frames_a_batch;
    options.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    if (::bpf_prog_test_run_opts(program, &options) != 0) fail("live frames");
}

using frames = std::array<frame, flows>;

/// Offers until `duration` ns are over.  Returns how many.
std::uint64_t flood(int program, frames& all, std::uint64_t rate, std::uint64_t duration) {
    std::uint64_t offered = 0;
    const std::uint64_t start = now_ns();
    for (std::uint64_t t = start; t - start < duration; t = now_ns()) {
        if ((t - start) * rate / second < offered + frames_a_call) {
            const timespec nap{0, 20'000};
            ::nanosleep(&nap, nullptr);
            continue;
        }
        offer(program, all[offered / frames_a_call % flows]);
        offered += frames_a_call;
    }
    return offered;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 7) {
        std::fprintf(stderr, "usage: flood DEVICE RATE MILLISECONDS SOURCE DESTINATION MAC\n");
        return 2;
    }
    const unsigned ifindex = ::if_nametoindex(argv[1]);
    if (ifindex == 0) fail(argv[1]);
    const std::uint64_t rate = std::strtoull(argv[2], nullptr, 10);
    const std::uint64_t duration = std::strtoull(argv[3], nullptr, 10) * (second / 1000);
    frames all;
    for (unsigned i = 0; i < flows; ++i)
        all[i] = make_frame(argv[4], argv[5], argv[6], i);
    const int program = load_redirect(ifindex);
    keep_prepared(program);
    const std::uint64_t start = now_ns();
    const std::uint64_t offered = flood(program, all, rate, duration);
    std::printf("{\"offered\": %llu, \"ns\": %llu}\n", static_cast<unsigned long long>(offered),
                static_cast<unsigned long long>(now_ns() - start));
    return 0;
}
