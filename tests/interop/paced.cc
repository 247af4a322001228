// SPDX-License-Identifier: Apache-2.0
//
// UDP at a steady rate with numbers and times in it, to say when packets were lost; and a way to
// stop one thread of a process for a while.
//
//   paced send ADDRESS PORT RATE SECONDS      RATE packets a second
//   paced receive ADDRESS PORT SECONDS        a line of JSON when none has come for 1.5 s after
//   that:
//         {"received": N, "highest": N, "lost": N, "twice": N, "reordered": N,
//          "gaps": [[FROM_NS, TO_NS, COUNT], ...]}
//     FROM_NS and TO_NS: when the packets around the lost ones were sent (CLOCK_MONOTONIC)
//   paced now                                 CLOCK_MONOTONIC in ns
//   paced pause PID MILLISECONDS              stops the busiest thread of PID beside its first
//   paced watch SECONDS PID...                a line `starved FROM_NS TO_NS` where the machine let
//   a
//         thread of theirs, or this watch, wait for a CPU for more than 3 ms
//
// Memory is constant however long it runs.
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fstream>
#include <map>
#include <netinet/in.h>
#include <string>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

constexpr std::size_t payload_size = 128;
constexpr unsigned batch = 32;
constexpr std::uint64_t second = 1'000'000'000;

struct payload {
    std::uint64_t number;
    std::uint64_t sent_ns;
    std::array<char, payload_size - 16> rest;
};
static_assert(sizeof(payload) == payload_size);

std::uint64_t now_ns() {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * second + static_cast<std::uint64_t>(t.tv_nsec);
}

[[noreturn]] void fail(const std::string& what) {
    std::fprintf(stderr, "paced: %s: %s\n", what.c_str(), std::strerror(errno));
    std::exit(1);
}

struct endpoint {
    sockaddr_storage address{};
    socklen_t length = 0;
};

endpoint parse(const char* text, unsigned port) {
    endpoint e;
    auto* v4 = reinterpret_cast<sockaddr_in*>(&e.address);
    auto* v6 = reinterpret_cast<sockaddr_in6*>(&e.address);
    if (::inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(static_cast<std::uint16_t>(port));
        e.length = sizeof *v4;
    } else if (::inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(static_cast<std::uint16_t>(port));
        e.length = sizeof *v6;
    } else {
        errno = EINVAL;
        fail(text);
    }
    return e;
}

/// Messages of one system call and the payloads they carry.
struct messages {
    std::array<payload, batch> payloads{};
    std::array<iovec, batch> vectors{};
    std::array<mmsghdr, batch> headers{};
    messages() {
        for (unsigned i = 0; i < batch; ++i) {
            vectors[i] = {&payloads[i], payload_size};
            headers[i].msg_hdr.msg_iov = &vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
    }
};

int send(const endpoint& to, std::uint64_t rate, std::uint64_t seconds) {
    const int fd = ::socket(to.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ::connect(fd, reinterpret_cast<const sockaddr*>(&to.address), to.length) != 0)
        fail("socket");
    messages m;
    const std::uint64_t start = now_ns();
    std::uint64_t number = 0;
    for (std::uint64_t t = start; t < start + seconds * second; t = now_ns()) {
        const std::uint64_t due = (t - start) * rate / second;
        unsigned n = 0;
        for (; n < batch && number < due; ++n)
            m.payloads[n] = {number++, t, {}};
        if (n == 0) {
            const timespec pause{0, 500'000};
            ::nanosleep(&pause, nullptr);
            continue;
        }
        // What cannot be sent is lost like any other; refusals by ICMP are an earlier packet's.
        for (unsigned done = 0; done < n;) {
            const int k = ::sendmmsg(fd, &m.headers[done], n - done, 0);
            done += k > 0 ? static_cast<unsigned>(k) : 1;
        }
    }
    std::printf("{\"sent\": %llu}\n", static_cast<unsigned long long>(number));
    return 0;
}

/// Which of the newest numbers have come.  What falls out of it without having come is lost.
class arrivals {
  public:
    void take(const payload& p) {
        ++received;
        if (any_ && p.number + seen_.size() <= highest) {
            ++late; // counted as lost already
            return;
        }
        if (any_ && p.number <= highest) {
            if (seen_[p.number % seen_.size()])
                ++twice;
            else
                ++reordered;
            seen_[p.number % seen_.size()] = true;
            sent_ns_[p.number % seen_.size()] = p.sent_ns;
            return;
        }
        for (std::uint64_t n = any_ ? highest + 1 : 0; n <= p.number; ++n)
            enter(n);
        seen_[p.number % seen_.size()] = true;
        sent_ns_[p.number % seen_.size()] = p.sent_ns;
        highest = p.number;
        any_ = true;
    }
    void finish() {
        if (!any_) return;
        const std::uint64_t end = highest;
        for (std::uint64_t n = end + 1; n <= end + seen_.size(); ++n)
            enter(n);
    }
    void print() const {
        std::printf("{\"received\": %llu, \"highest\": %llu, \"lost\": %llu, \"twice\": %llu, "
                    "\"reordered\": %llu, \"late\": %llu, \"gaps\": [",
                    u(received), u(highest), u(lost), u(twice), u(reordered), u(late));
        for (std::size_t i = 0; i < gaps_.size(); ++i)
            std::printf("%s[%llu, %llu, %llu]", i == 0 ? "" : ", ", u(gaps_[i].from),
                        u(gaps_[i].to), u(gaps_[i].count));
        std::printf("]}\n");
    }

    std::uint64_t received = 0, highest = 0, lost = 0, twice = 0, reordered = 0, late = 0;

  private:
    struct gap {
        std::uint64_t from, to, count;
    };
    static unsigned long long u(std::uint64_t n) { return n; }

    /// Makes room for number n; the one that leaves for it is judged.
    void enter(std::uint64_t n) {
        const std::size_t at = n % seen_.size();
        if (n >= seen_.size()) judge(at);
        seen_[at] = false;
        sent_ns_[at] = 0;
    }
    void judge(std::size_t at) {
        if (seen_[at]) {
            if (open_) {
                gaps_.back().to = sent_ns_[at];
                open_ = false;
            }
            if (sent_ns_[at] != 0) last_ns_ = sent_ns_[at];
            return;
        }
        ++lost;
        if (!open_ && gaps_.size() < 100'000) {
            gaps_.push_back({last_ns_, ~std::uint64_t{0} >> 1, 0});
            open_ = true;
        }
        ++gaps_.back().count;
    }

    bool any_ = false;
    bool open_ = false;
    std::uint64_t last_ns_ = 0;
    std::vector<bool> seen_ = std::vector<bool>(65536);
    std::vector<std::uint64_t> sent_ns_ = std::vector<std::uint64_t>(65536);
    std::vector<gap> gaps_;
};

int receive(const endpoint& at, std::uint64_t seconds) {
    constexpr std::uint64_t quiet = second + second / 2;
    const int fd = ::socket(at.address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int room = 16 << 20;
    const timeval wait{0, 200'000};
    if (fd < 0) fail("socket");
    ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&at.address), at.length) != 0) fail("bind");
    messages m;
    arrivals all;
    const std::uint64_t end = now_ns() + seconds * second;
    for (std::uint64_t last = now_ns(), t = last; t < end || t < last + quiet; t = now_ns()) {
        const int n = ::recvmmsg(fd, m.headers.data(), batch, MSG_WAITFORONE, nullptr);
        if (n <= 0) continue;
        last = t;
        for (int i = 0; i < n; ++i)
            if (m.headers[static_cast<std::size_t>(i)].msg_len == payload_size)
                all.take(m.payloads[static_cast<std::size_t>(i)]);
    }
    all.finish();
    all.print();
    return 0;
}

/// User and system time of a thread, in clock ticks.
std::uint64_t cpu_ticks(const std::string& stat_file) {
    std::ifstream in(stat_file);
    std::string line;
    std::getline(in, line);
    const auto after_name = line.rfind(')');
    if (after_name == std::string::npos) return 0;
    std::uint64_t user = 0, system = 0;
    if (std::sscanf(line.c_str() + after_name + 1,
                    " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
        return 0;
    return user + system;
}

pid_t busiest_thread(pid_t process) {
    const std::string tasks = "/proc/" + std::to_string(process) + "/task";
    DIR* directory = ::opendir(tasks.c_str());
    if (directory == nullptr) fail(tasks);
    pid_t found = 0;
    std::uint64_t most = 0;
    while (const dirent* entry = ::readdir(directory)) {
        const pid_t thread = std::atoi(entry->d_name);
        if (thread == 0 || thread == process) continue;
        const std::uint64_t ticks = cpu_ticks(tasks + "/" + entry->d_name + "/stat");
        if (found != 0 && ticks <= most) continue;
        found = thread;
        most = ticks;
    }
    ::closedir(directory);
    return found;
}

int pause(pid_t process, long milliseconds) {
    const pid_t thread = busiest_thread(process);
    if (thread == 0 || ::ptrace(PTRACE_SEIZE, thread, nullptr, nullptr) != 0) fail("seize");
    if (::ptrace(PTRACE_INTERRUPT, thread, nullptr, nullptr) != 0) fail("interrupt");
    if (::waitpid(thread, nullptr, __WALL) != thread) fail("wait");
    const timespec nap{milliseconds / 1000, milliseconds % 1000 * 1'000'000};
    ::nanosleep(&nap, nullptr);
    if (::ptrace(PTRACE_DETACH, thread, nullptr, nullptr) != 0) fail("detach");
    return 0;
}

/// How long a thread has waited for a CPU so far.
std::uint64_t waited_ns(const std::string& schedstat_file) {
    std::ifstream in(schedstat_file);
    std::uint64_t ran = 0, waited = 0;
    in >> ran >> waited;
    return waited;
}

/// Of all threads of a process, by thread.
void read_waits(const std::string& process, std::map<std::string, std::uint64_t>& into) {
    const std::string tasks = "/proc/" + process + "/task";
    DIR* directory = ::opendir(tasks.c_str());
    if (directory == nullptr) return;
    while (const dirent* entry = ::readdir(directory))
        if (entry->d_name[0] != '.')
            into[entry->d_name] = waited_ns(tasks + "/" + entry->d_name + "/schedstat");
    ::closedir(directory);
}

int watch(std::uint64_t seconds, const std::vector<std::string>& processes) {
    constexpr std::uint64_t look_ns = 10'000'000, too_long_ns = 3'000'000;
    std::map<std::string, std::uint64_t> before;
    std::uint64_t last = now_ns();
    for (const std::uint64_t end = last + seconds * second; last < end;) {
        const timespec nap{0, look_ns};
        ::nanosleep(&nap, nullptr);
        std::map<std::string, std::uint64_t> now;
        for (const std::string& p : processes)
            read_waits(p, now);
        const std::uint64_t t = now_ns();
        bool starved = t - last > look_ns + too_long_ns;
        for (const auto& [thread, waited] : now) {
            const auto known = before.find(thread);
            starved = starved || (known != before.end() && waited - known->second > too_long_ns);
        }
        if (starved)
            std::printf("starved %llu %llu\n", static_cast<unsigned long long>(last),
                        static_cast<unsigned long long>(t));
        before.swap(now);
        last = t;
    }
    return 0;
}

std::uint64_t number(const char* text) {
    return std::strtoull(text, nullptr, 10);
}

} // namespace

int main(int argc, char** argv) {
    const std::string what = argc > 1 ? argv[1] : "";
    if (what == "send" && argc == 6)
        return send(parse(argv[2], static_cast<unsigned>(number(argv[3]))), number(argv[4]),
                    number(argv[5]));
    if (what == "receive" && argc == 5)
        return receive(parse(argv[2], static_cast<unsigned>(number(argv[3]))), number(argv[4]));
    if (what == "pause" && argc == 4)
        return pause(static_cast<pid_t>(number(argv[2])), static_cast<long>(number(argv[3])));
    if (what == "watch" && argc > 3) return watch(number(argv[2]), {argv + 3, argv + argc});
    if (what == "now" && argc == 2) {
        std::printf("%llu\n", static_cast<unsigned long long>(now_ns()));
        return 0;
    }
    std::fprintf(stderr, "usage: paced send ADDRESS PORT RATE SECONDS | receive ADDRESS PORT "
                         "SECONDS | now | pause PID MILLISECONDS | watch SECONDS PID...\n");
    return 2;
}
