// SPDX-License-Identifier: Apache-2.0
//
// Somebody on the wire between two hosts who means harm: he hears the ESP packets of the one and
// sends the other what looks like them.  IPv4.
//
//   forger DEVICE KIND RATE MILLISECONDS
//     DEVICE   the one's: what leaves by it is heard
//     KIND     replay     what was heard, as it was
//              forge      with a number that is still to come, and another ICV
//              stranger   with SPIs that nobody has
//              noise      what has the port or the protocol of ESP, and nothing else of it
//              fragment   beginnings of packets whose rest never comes
//     RATE     packets a second
//
// Prints a line of JSON: {"offered": N, "ns": N}.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <random>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

#include "fastpath/offload.h"
#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace {

using namespace esplane;
using fastpath::offload_header;

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::size_t most_heard = 64;
constexpr std::size_t forgeries = 256; ///< different packets, in turn
constexpr std::size_t batch = 32;      ///< of a system call
constexpr std::uint32_t ahead = 5000;  ///< of the number that was heard last

using frame = std::vector<std::uint8_t>;

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "forger: %s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

std::uint64_t now_ns() {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * second + static_cast<std::uint64_t>(t.tv_nsec);
}

// Frames

constexpr std::size_t ip_at = sizeof(wire::ethernet_header);
constexpr std::size_t udp_at = ip_at + sizeof(wire::ipv4_header);

wire::ipv4_header ip_of(const frame& f) {
    return wire::load<wire::ipv4_header>(f.data() + ip_at);
}

bool is_udp(const frame& f) {
    return ip_of(f).protocol == wire::proto_udp;
}

std::size_t esp_at(const frame& f) {
    return udp_at + (is_udp(f) ? sizeof(wire::udp_header) : 0);
}

bool is_esp(const frame& f) {
    constexpr std::size_t shortest = udp_at + sizeof(wire::udp_header) + 32;
    if (f.size() < shortest || ip_of(f).version_ihl != 0x45 ||
        wire::load<wire::ethernet_header>(f.data()).type.host() != wire::ethertype_ipv4)
        return false;
    if (ip_of(f).protocol == wire::proto_esp) return true;
    return is_udp(f) &&
           wire::load<wire::udp_header>(f.data() + udp_at).destination.host() == 4500 &&
           wire::load<std::uint32_t>(f.data() + esp_at(f)) != 0;
}

void seal_ip(frame& f, wire::ipv4_header ip) {
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(f.data() + ip_at, ip);
}

/// Lengths and checksums that follow from the rest.
void seal(frame& f) {
    wire::ipv4_header ip = ip_of(f);
    const auto length = static_cast<std::uint16_t>(f.size() - ip_at);
    ip.total_length.set(length);
    seal_ip(f, ip);
    if (!is_udp(f)) return;
    auto udp = wire::load<wire::udp_header>(f.data() + udp_at);
    const std::size_t udp_length = f.size() - udp_at;
    udp.length.set(static_cast<std::uint16_t>(udp_length));
    udp.checksum = {};
    wire::store(f.data() + udp_at, udp);
    const std::uint64_t sum = wire::checksum_pseudo(&ip.source, &ip.destination, 4, wire::proto_udp,
                                                    static_cast<std::uint32_t>(udp_length));
    udp.checksum = wire::checksum_finish(wire::checksum_add(sum, f.data() + udp_at, udp_length));
    wire::store(f.data() + udp_at, udp);
}

// Kinds

using forgery = frame (*)(const frame& heard, std::mt19937& random);

frame replay(const frame& heard, std::mt19937&) {
    return heard;
}

frame forge(const frame& heard, std::mt19937& random) {
    frame f = heard;
    std::uint8_t* number = f.data() + esp_at(f) + 4;
    wire::store(number, wire::be32(wire::load<wire::be32>(number).host() + ahead +
                                   static_cast<std::uint32_t>(random() % ahead)));
    f.back() = static_cast<std::uint8_t>(f.back() ^ 1);
    return f;
}

frame stranger(const frame& heard, std::mt19937& random) {
    frame f = heard;
    wire::store(f.data() + esp_at(f),
                wire::be32(0x80000000u | static_cast<std::uint32_t>(random())));
    return f;
}

frame noise(const frame& heard, std::mt19937& random) {
    frame f = heard;
    f.resize(esp_at(f) + 1 + random() % 24);
    std::generate(f.begin() + static_cast<std::ptrdiff_t>(esp_at(f)), f.end(),
                  [&] { return static_cast<std::uint8_t>(random() | 1); });
    return f;
}

frame fragment(const frame& heard, std::mt19937&) {
    frame f = heard;
    f.resize(std::max(f.size() - ip_at - sizeof(wire::ipv4_header), std::size_t{64}) / 8 * 8 +
             udp_at);
    return f;
}

forgery forgery_of(const std::string& kind) {
    static constexpr std::pair<const char*, forgery> kinds[] = {{"replay", replay},
                                                                {"forge", forge},
                                                                {"stranger", stranger},
                                                                {"noise", noise},
                                                                {"fragment", fragment}};
    for (const auto& [name, function] : kinds)
        if (kind == name) return function;
    errno = EINVAL;
    fail(kind);
}

// The wire

int open_wire(const char* device, int protocol) {
    const int fd = ::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(static_cast<std::uint16_t>(protocol));
    at.sll_ifindex = static_cast<int>(::if_nametoindex(device));
    const timeval patience{5, 0};
    if (fd < 0 || at.sll_ifindex == 0 ||
        ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
        fail(device);
    const int on = 1;
    ::setsockopt(fd, SOL_PACKET, protocol == 0 ? PACKET_QDISC_BYPASS : PACKET_VNET_HDR, &on,
                 sizeof on);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0) fail(device);
    return fd;
}

/// ESP packets as they go by; of a super-packet the first.
std::vector<frame> hear(const char* device) {
    const int fd = open_wire(device, ETH_P_ALL); // of all that leaves only these sockets hear
    std::vector<frame> heard;
    std::vector<std::uint8_t> room(1 << 17);
    while (heard.size() < most_heard) {
        const ssize_t n = ::recv(fd, room.data(), room.size(), 0);
        if (n < 0) break;
        offload_header header{};
        if (static_cast<std::size_t>(n) <= sizeof header) continue;
        std::memcpy(&header, room.data(), sizeof header);
        frame f(room.begin() + sizeof header, room.begin() + n);
        if (!is_esp(f)) continue;
        if (header.kind != offload_header::not_merged)
            f.resize(std::min(f.size(), esp_at(f) + header.segment_size));
        heard.push_back(std::move(f));
    }
    ::close(fd);
    if (heard.empty()) fail("no ESP packet was heard");
    return heard;
}

std::vector<frame> make_forgeries(const std::vector<frame>& heard, forgery how) {
    std::mt19937 random(4303);
    std::vector<frame> made;
    for (std::size_t i = 0; i < forgeries; ++i) {
        made.push_back(how(heard[i % heard.size()], random));
        seal(made.back());
    }
    return made;
}

/// Each the beginning of another packet: by its identification.
void begin_another(frame& f, std::uint16_t identification) {
    wire::ipv4_header ip = ip_of(f);
    ip.id.set(identification);
    ip.fragment.set(wire::ipv4_mf);
    seal_ip(f, ip);
}

struct sender {
    int fd;
    std::vector<frame> frames;
    bool fragments;
    std::uint64_t sent = 0;

    /// Until the kernel has taken them: a queue that is full is not for long.
    void send(std::size_t count) {
        std::array<mmsghdr, batch> messages{};
        std::array<iovec, batch> pieces{};
        for (std::size_t i = 0; i < count; ++i) {
            frame& f = frames[(sent + i) % frames.size()];
            if (fragments) begin_another(f, static_cast<std::uint16_t>(sent + i));
            pieces[i] = {f.data(), f.size()};
            messages[i].msg_hdr.msg_iov = &pieces[i];
            messages[i].msg_hdr.msg_iovlen = 1;
        }
        for (std::size_t done = 0; done < count;) {
            const int n =
                ::sendmmsg(fd, messages.data() + done, static_cast<unsigned>(count - done), 0);
            if (n < 0 && errno != ENOBUFS && errno != EAGAIN) fail("send");
            done += n > 0 ? static_cast<std::size_t>(n) : 0;
        }
        sent += count;
    }
};

/// Evenly: what it could not send in time is not made up for in one burst.
void flood(sender& s, std::uint64_t rate, std::uint64_t duration) {
    const std::uint64_t pause = batch * second / rate, start = now_ns();
    std::uint64_t due = start;
    for (std::uint64_t t = start; t - start < duration; t = now_ns()) {
        if (t >= due) {
            s.send(batch);
            due = std::max(due + pause, t - std::min(t, 16 * pause));
        } else {
            const timespec nap{0, 50'000};
            ::nanosleep(&nap, nullptr);
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 5) {
        std::fputs("usage: forger DEVICE KIND RATE MILLISECONDS\n", stderr);
        return 2;
    }
    const std::string kind = argv[2];
    const forgery how = forgery_of(kind);
    sender s{open_wire(argv[1], 0), make_forgeries(hear(argv[1]), how), kind == "fragment"};
    const std::uint64_t start = now_ns();
    flood(s, std::strtoull(argv[3], nullptr, 10),
          std::strtoull(argv[4], nullptr, 10) * (second / 1000));
    std::printf("{\"offered\": %llu, \"ns\": %llu}\n", static_cast<unsigned long long>(s.sent),
                static_cast<unsigned long long>(now_ns() - start));
    return 0;
}
