// SPDX-License-Identifier: Apache-2.0
//
// A steady load, or more of it than sockets can send.
//
//   flood DEVICE RATE MILLISECONDS SOURCE DESTINATION MAC
//
// RATE: UDP packets a second (64 bytes of IPv4 from SOURCE to DESTINATION, 256 source ports) from a
// packet socket; 0: as many as go, as XDP live frames, into a device whose peer takes them in XDP.
// MAC: where the frames go to.  Prints how many were offered and in how many ns.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <net/if.h>

#include <linux/if_packet.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace {

using namespace esplane;

constexpr std::uint64_t second = 1'000'000'000;
constexpr unsigned flows = 256;
constexpr std::uint32_t packet_length = 64;

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

/// One frame, `count` times.  A call waits some 20 ms for the kernel's housekeeping, whatever the
/// count.
void offer_live(int program, frame& f, std::uint32_t count) {
    xdp_md context{};
    context.data_end = static_cast<std::uint32_t>(f.size());
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = f.data();
    options.data_size_in = static_cast<std::uint32_t>(f.size());
    options.ctx_in = &context;
    options.ctx_size_in = sizeof context;
    options.repeat = static_cast<int>(count);
    options.batch_size = 64;
    options.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    if (::bpf_prog_test_run_opts(program, &options) != 0) fail("live frames");
}

int open_packet_socket(unsigned ifindex) {
    const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    const int on = 1;
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_ifindex = static_cast<int>(ifindex);
    if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
        fail("packet socket");
    ::setsockopt(fd, SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on);
    return fd;
}

using frames = std::array<frame, flows>;

/// Offers until `duration` ns are over.  Returns how many.
std::uint64_t flood(unsigned ifindex, frames& all, std::uint64_t duration) {
    constexpr std::uint32_t at_once = 1u << 16;
    const int program = load_redirect(ifindex);
    std::uint64_t offered = 0;
    for (const std::uint64_t start = now_ns(); now_ns() - start < duration; offered += at_once)
        offer_live(program, all[offered / at_once % flows], at_once);
    return offered;
}

std::uint64_t pace(unsigned ifindex, frames& all, std::uint64_t rate, std::uint64_t duration) {
    const int fd = open_packet_socket(ifindex);
    std::array<iovec, flows> vectors;
    std::array<mmsghdr, flows> headers{};
    for (std::size_t i = 0; i < flows; ++i) {
        vectors[i] = {all[i].data(), all[i].size()};
        headers[i].msg_hdr.msg_iov = &vectors[i];
        headers[i].msg_hdr.msg_iovlen = 1;
    }
    std::uint64_t offered = 0;
    const std::uint64_t start = now_ns();
    for (std::uint64_t t = start; t - start < duration; t = now_ns()) {
        const std::uint64_t due = (t - start) * rate / second;
        if (due < offered + 16) {
            const timespec nap{0, 20'000};
            ::nanosleep(&nap, nullptr);
            continue;
        }
        const std::size_t first = offered % flows;
        const auto n = std::min<std::size_t>({due - offered, flows - first, 64});
        const int sent = ::sendmmsg(fd, &headers[first], static_cast<unsigned>(n), 0);
        offered += sent > 0 ? static_cast<unsigned>(sent) : 0;
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
    const std::uint64_t start = now_ns();
    const std::uint64_t offered =
        rate == 0 ? flood(ifindex, all, duration) : pace(ifindex, all, rate, duration);
    std::printf("{\"offered\": %llu, \"ns\": %llu}\n", static_cast<unsigned long long>(offered),
                static_cast<unsigned long long>(now_ns() - start));
    return 0;
}
