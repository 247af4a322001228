// SPDX-License-Identifier: Apache-2.0
//
// What a lookup costs in a table of BGP size, beside reading a random line of memory that was
// prefetched, from a table as large.
//
//   routes        1,000,000, lengths as in the Internet's table, 256 next hops; spread evenly over
//                 the unicast range, which fills more nodes than the Internet's clusters do
//   destinations  random, in bursts of 32, each burst looked up as the path does it
//   timing        a chunk is 4,096 lookups, well under 1 ms; chunks of both interleaved; the best
//                 of all counts
//   verified      20,000 lookups against a search of the prefixes, outside the timing
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <random>
#include <sys/mman.h>

#include "bench/gateway.h"
#include "fastpath/fib.h"
#include "fastpath/prefix_map.h"

namespace esplane::bench {
namespace {

using fastpath::route_target;

constexpr unsigned routes = 1'000'000;
constexpr unsigned next_hops = 256;
constexpr unsigned burst = 32;
constexpr unsigned chunk = 4096;
constexpr unsigned chunks = 200;
constexpr unsigned checked = 20'000;
constexpr std::size_t line = 64;

/// Of 1,000 prefixes, how many have each length from /8 on.
constexpr std::array<unsigned, 17> shares{1, 1,  1,  1,  1,  1,   2,   4,  14,
                                          9, 14, 26, 43, 50, 115, 104, 613};

unsigned random_length(std::mt19937& random) {
    auto rest = static_cast<unsigned>(random() % 1000);
    for (unsigned i = 0; i < shares.size(); ++i) {
        if (rest < shares[i]) return 8 + i;
        rest -= shares[i];
    }
    return 24;
}

/// In 1.0.0.0 to 223.255.255.255.
wire::be32 random_address(std::mt19937& random) {
    return wire::be32(0x01000000 + static_cast<std::uint32_t>(random()) % 0xdf000000u);
}

double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// CPU time: loading takes too long for a moment that nobody else wants.
double thread_seconds() {
    timespec t;
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// The routes, in a fib and by themselves.
class full_table {
  public:
    full_table() {
        control::network n;
        n.links = {{1, "lan", {2, 0, 0, 0, 0, 1}, 1500, true}};
        control::network_change all;
        all.interfaces = all.routes_afresh = true;
        std::mt19937 random(1);
        while (prefixes_.size() < routes) {
            const unsigned length = random_length(random);
            const auto to = ipsec::masked(ipsec::address::v4(random_address(random)), length);
            const auto hop = static_cast<std::uint32_t>(random() % next_hops);
            if (prefixes_.find(to.bytes.data(), length)) continue;
            prefixes_.set(to.bytes.data(), length, hop);
            control::route r;
            r.destination = to;
            r.prefix = static_cast<std::uint8_t>(length);
            r.ifindex = 1;
            r.gateway = gateway(hop);
            all.routes.push_back({std::move(r), false});
        }
        fastpath::retired graveyard;
        const double start = thread_seconds();
        fib_.apply(all, n, {{{1, 0}}, {}}, graveyard);
        load_s_ = thread_seconds() - start;
    }

    [[nodiscard]] bool verify() const {
        std::mt19937 random(2);
        for (unsigned i = 0; i < checked; ++i) {
            const auto to = ipsec::address::v4(random_address(random));
            const auto want = prefixes_.cover(to.bytes.data(), 33);
            const fastpath::adjacency& have = fib_.lookup(to);
            if (want ? have.gateway != gateway(want->value)
                     : have.kind != fastpath::adjacency_kind::missing)
                return false;
        }
        return true;
    }

    [[nodiscard]] const fastpath::fib& table() const noexcept { return fib_; }
    [[nodiscard]] double load_s() const noexcept { return load_s_; }

  private:
    static ipsec::address gateway(std::uint32_t hop) {
        return ipsec::address::v4(wire::be32(0x0a000001 + hop));
    }
    fastpath::prefix_map<4> prefixes_;
    fastpath::fib fib_;
    double load_s_ = 0;
};

/// As much memory as the table has, in huge pages as it is.
class plain_lines {
  public:
    explicit plain_lines(std::size_t bytes)
        : count_(bytes / line)
        , size_((bytes | ((2 << 20) - 1)) + 1) {
        void* p =
            ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) std::abort();
        (void)::madvise(p, size_, MADV_HUGEPAGE);
        base_ = static_cast<std::uint8_t*>(p);
        std::memset(base_, 1, size_);
    }
    ~plain_lines() { ::munmap(base_, size_); }
    plain_lines(const plain_lines&) = delete;
    plain_lines& operator=(const plain_lines&) = delete;

    /// The one that a random number stands for.
    [[nodiscard]] const std::uint8_t* at(std::uint32_t random) const noexcept {
        return base_ + (std::uint64_t{random} * count_ >> 32) * line;
    }

  private:
    std::size_t count_, size_;
    std::uint8_t* base_ = nullptr;
};

/// What the results are added to, so that they are computed.
volatile std::uint64_t sink;

double look_up(const fastpath::fib& table, std::span<const wire::be32> to) {
    std::array<const std::uint8_t*, burst> destinations;
    std::array<route_target, burst> targets;
    std::uint64_t sum = 0;
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t at = 0; at < to.size(); at += burst) {
        for (unsigned i = 0; i < burst; ++i)
            destinations[i] = reinterpret_cast<const std::uint8_t*>(&to[at + i]);
        table.find_v4(0, destinations, targets.data());
        for (const route_target& t : targets)
            sum += t.only().mtu;
    }
    const double s = seconds_since(start);
    sink = sum;
    return s / static_cast<double>(to.size());
}

double read_lines(const plain_lines& memory, std::span<const std::uint32_t> random) {
    std::uint64_t sum = 0;
    const auto start = std::chrono::steady_clock::now();
    for (std::size_t at = 0; at < random.size(); at += burst) {
        for (unsigned i = 0; i < burst; ++i)
            __builtin_prefetch(memory.at(random[at + i]));
        for (unsigned i = 0; i < burst; ++i)
            sum += *memory.at(random[at + i]);
    }
    const double s = seconds_since(start);
    sink = sum;
    return s / static_cast<double>(random.size());
}

} // namespace

gateway_rows measure_fib() {
    const full_table full;
    if (!full.verify())
        return {not_measured("fib_lookup", "the table finds other routes than it was given")};
    const std::size_t bytes = full.table().usage().bytes;
    const plain_lines memory(bytes);
    std::mt19937 random(3);
    double lookup = 1, read = 1;
    for (unsigned n = 0; n < chunks; ++n) {
        std::array<wire::be32, chunk> to;
        std::array<std::uint32_t, chunk> numbers;
        for (wire::be32& one : to)
            one = random_address(random);
        for (std::uint32_t& one : numbers)
            one = static_cast<std::uint32_t>(random());
        lookup = std::min(lookup, look_up(full.table(), to));
        read = std::min(read, read_lines(memory, numbers));
    }
    std::array<char, 160> note;
    std::snprintf(note.data(), note.size(),
                  "%.1f ns a lookup, %.1f ns a prefetched random line of %.0f MiB; "
                  "1,000,000 routes taken in in %.2f s of CPU",
                  lookup * 1e9, read * 1e9, static_cast<double>(bytes) / (1 << 20), full.load_s());
    gateway_row r;
    r.name = "fib_lookup";
    r.measured = lookup / read;
    r.unit = "x";
    r.limit = 3;
    r.note = note.data();
    return {r};
}

} // namespace esplane::bench
