// SPDX-License-Identifier: Apache-2.0
//
// UDP loads that iperf3 cannot make, and round trips.
//
//   datagrams send ADDRESS PORT BYTES RATE MILLISECONDS RUN
//         RATE datagrams a second, 0: as fast as they go; in batches (sendmmsg), where RATE is
//         behind, no further than one.  Prints {"sent": N, "ns": N}.
//   datagrams receive ADDRESS PORT MILLISECONDS RUN
//         counts those of RUN that come within MILLISECONDS of its first: what has been waiting in
//         somebody's queue for longer is not delivered.  Prints "ready" when it listens, then
//         {"received": N}.
//   datagrams echo ADDRESS PORT              sends all back, until it is killed
//   datagrams ping ADDRESS PORT COUNT PAUSE_US
//         one after the other with a pause between; prints {"lost": N, "median_us": N}
//
// A datagram has at least 8 bytes: RUN, which tells them from those of an earlier run, and a
// number.
#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <poll.h>
#include <string_view>
#include <sys/socket.h>
#include <sys/uio.h>
#include <vector>

namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::size_t longest = 9000;
constexpr std::size_t batch = 64;
constexpr int patience_ms = 10'000; ///< for the first of a run
constexpr int reply_ms = 1000;

struct stamp {
    std::uint32_t run = 0;
    std::uint32_t number = 0;
};

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "datagrams: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
}

std::uint64_t now_ns() {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * second + static_cast<std::uint64_t>(t.tv_nsec);
}

void pause_ns(std::uint64_t ns) {
    const timespec t{static_cast<time_t>(ns / second), static_cast<long>(ns % second)};
    ::nanosleep(&t, nullptr);
}

/// A socket that `ready`, bind or connect, has been given that address.
int open_socket(const char* address, const char* port,
                int (*ready)(int, const sockaddr*, socklen_t)) {
    sockaddr_storage at{};
    auto* v4 = reinterpret_cast<sockaddr_in*>(&at);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&at);
    const std::uint16_t number = htons(static_cast<std::uint16_t>(std::atoi(port)));
    socklen_t length = sizeof *v4;
    if (::inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = number;
    } else if (::inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = number;
        length = sizeof *v6;
    } else {
        errno = EINVAL;
        fail(address);
    }
    const int fd = ::socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int room = 4 << 20; // for a scheduler's pauses
    if (fd < 0 || ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room) != 0 ||
        ready(fd, reinterpret_cast<const sockaddr*>(&at), length) != 0)
        fail(address);
    return fd;
}

/// Messages of one system call, and their bytes.
struct messages {
    explicit messages(std::size_t bytes)
        : length(bytes)
        , data(batch * bytes) {
        for (std::size_t i = 0; i < batch; ++i) {
            pieces[i] = {at(i), bytes};
            headers[i].msg_hdr.msg_iov = &pieces[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
    }
    [[nodiscard]] char* at(std::size_t i) { return data.data() + i * length; }
    void write(std::size_t i, stamp s) { std::memcpy(at(i), &s, sizeof s); }
    [[nodiscard]] stamp read(std::size_t i) {
        stamp s;
        std::memcpy(&s, at(i), sizeof s);
        return s;
    }

    std::size_t length;
    std::vector<char> data;
    std::array<iovec, batch> pieces{};
    std::array<mmsghdr, batch> headers{};
};

int send(int fd, std::size_t bytes, std::uint64_t rate, std::uint64_t duration, std::uint32_t run) {
    messages m(std::clamp(bytes, sizeof(stamp), longest));
    const std::uint64_t start = now_ns();
    std::uint64_t sent = 0, missed = 0;
    for (std::uint64_t t = start; t - start < duration; t = now_ns()) {
        const std::uint64_t due = rate == 0 ? sent + batch : (t - start) * rate / second - missed;
        if (due <= sent) {
            pause_ns(50'000);
            continue;
        }
        const std::size_t n = std::min<std::uint64_t>(batch, due - sent);
        missed += due - sent - n;
        for (std::size_t i = 0; i < n; ++i)
            m.write(i, {run, static_cast<std::uint32_t>(sent + i)});
        // What cannot be sent is lost like any other; a refusal by ICMP is an earlier one's.
        for (std::size_t done = 0; done < n;) {
            const int k = ::sendmmsg(fd, &m.headers[done], static_cast<unsigned>(n - done), 0);
            done += k > 0 ? static_cast<std::size_t>(k) : 1;
        }
        sent += n;
    }
    std::printf("{\"sent\": %llu, \"ns\": %llu}\n", static_cast<unsigned long long>(sent),
                static_cast<unsigned long long>(now_ns() - start));
    return 0;
}

/// Whether something came within that time.
bool readable(int fd, int milliseconds) {
    pollfd p{fd, POLLIN, 0};
    return ::poll(&p, 1, milliseconds) > 0;
}

int receive(int fd, std::uint64_t duration, std::uint32_t run) {
    messages m(longest);
    std::puts("ready");
    std::fflush(stdout);
    std::uint64_t received = 0;
    std::uint64_t end = now_ns() + patience_ms * (second / 1000);
    for (std::uint64_t t = now_ns(); t < end; t = now_ns()) {
        if (!readable(fd, static_cast<int>((end - t) / (second / 1000)) + 1)) continue;
        const int n = ::recvmmsg(fd, m.headers.data(), batch, MSG_DONTWAIT, nullptr);
        for (int i = 0; i < n; ++i) {
            if (m.read(static_cast<std::size_t>(i)).run != run) continue;
            if (received++ == 0) end = now_ns() + duration;
        }
    }
    std::printf("{\"received\": %llu}\n", static_cast<unsigned long long>(received));
    return 0;
}

int echo(int fd) {
    std::array<char, longest> data;
    for (;;) {
        sockaddr_storage from;
        socklen_t length = sizeof from;
        const ssize_t n = ::recvfrom(fd, data.data(), data.size(), 0,
                                     reinterpret_cast<sockaddr*>(&from), &length);
        if (n >= 0)
            ::sendto(fd, data.data(), static_cast<std::size_t>(n), 0,
                     reinterpret_cast<sockaddr*>(&from), length);
    }
}

/// Whether the reply with that number comes; others are late.
bool answered(int fd, std::uint32_t number) {
    while (readable(fd, reply_ms)) {
        std::array<char, longest> data;
        stamp s;
        if (::recv(fd, data.data(), data.size(), 0) < static_cast<ssize_t>(sizeof s)) continue;
        std::memcpy(&s, data.data(), sizeof s);
        if (s.number == number) return true;
    }
    return false;
}

int ping(int fd, std::uint32_t count, std::uint64_t pause) {
    std::vector<std::uint64_t> trips;
    for (std::uint32_t i = 0; i < count; ++i) {
        pause_ns(pause);
        std::array<char, 64> data{};
        const stamp s{0, i};
        std::memcpy(data.data(), &s, sizeof s);
        const std::uint64_t start = now_ns();
        if (::send(fd, data.data(), data.size(), 0) >= 0 && answered(fd, i))
            trips.push_back(now_ns() - start);
    }
    if (trips.empty()) {
        errno = ETIMEDOUT;
        fail("no reply");
    }
    std::nth_element(trips.begin(), trips.begin() + static_cast<long>(trips.size() / 2),
                     trips.end());
    std::printf("{\"lost\": %zu, \"median_us\": %.1f}\n", count - trips.size(),
                static_cast<double>(trips[trips.size() / 2]) / 1000);
    return 0;
}

int usage() {
    std::fputs("usage: datagrams send ADDRESS PORT BYTES RATE MILLISECONDS RUN\n"
               "       datagrams receive ADDRESS PORT MILLISECONDS RUN\n"
               "       datagrams echo ADDRESS PORT\n"
               "       datagrams ping ADDRESS PORT COUNT PAUSE_US\n",
               stderr);
    return 2;
}

} // namespace

int main(int argc, char** argv) {
    if (argc < 4) return usage();
    const std::string_view what = argv[1];
    const auto number = [argv](int i) { return std::strtoull(argv[i], nullptr, 10); };
    if (what == "send" && argc == 8)
        return send(open_socket(argv[2], argv[3], ::connect), number(4), number(5),
                    number(6) * (second / 1000), static_cast<std::uint32_t>(number(7)));
    if (what == "receive" && argc == 6)
        return receive(open_socket(argv[2], argv[3], ::bind), number(4) * (second / 1000),
                       static_cast<std::uint32_t>(number(5)));
    if (what == "echo" && argc == 4) return echo(open_socket(argv[2], argv[3], ::bind));
    if (what == "ping" && argc == 6)
        return ping(open_socket(argv[2], argv[3], ::connect), static_cast<std::uint32_t>(number(4)),
                    number(5) * 1000);
    return usage();
}
