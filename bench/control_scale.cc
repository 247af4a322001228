// SPDX-License-Identifier: Apache-2.0
//
// A million pairs of an SA and a host-pair policy, each of a peer of its own, through the server's
// socket into tables that a worker reads: by a process that has put memory aside for them, and by
// one that has not; there they are dumped, flushed and put in once more, too.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <malloc.h>
#include <optional>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/control.h"
#include "bench/control_server.h"
#include "fastpath/reservation.h"
#include "lib/crypto/schedule_ipsec_mb.h"

namespace esplane::bench {
namespace {

constexpr std::uint32_t pairs = 1'000'000;
constexpr std::uint32_t part = 100'000;                         ///< each is timed by itself
constexpr double schedule_bytes = sizeof(crypto::gcm_schedule); ///< the expanded key
constexpr std::size_t longest_datagram = 3700;

constexpr auto at_least = figure_row::bound::at_least;
constexpr auto at_most = figure_row::bound::at_most;

using clock = std::chrono::steady_clock;

double seconds_since(clock::time_point start) {
    return std::chrono::duration<double>(clock::now() - start).count();
}

/// Resident memory of this process.
double resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    double total = 0, resident = 0;
    statm >> total >> resident;
    return resident * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

/// The SA and the policy of a number, over and over the same objects.
class pair_maker {
  public:
    pair_maker() {
        sa_.source = *ipsec::address::parse("192.168.77.1");
        sa_.replay_window = 32;
        sa_.replay.bitmap.resize(1);
        policy_.sel.fam = ipsec::family::ipv4;
        policy_.sel.source_prefix = policy_.sel.destination_prefix = 32;
        policy_.templates.resize(1);
        policy_.templates[0].fam = ipsec::family::ipv4;
        policy_.templates[0].source = sa_.source;
        ipsec::template_& t = policy_.templates[0];
        t.auth_algs = t.cipher_algs = t.comp_algs = ~std::uint32_t{0};
    }
    const ipsec::sa& sa(std::uint32_t n) {
        sa_.id.destination = ipsec::address::v4(wire::be32(0x14000000 + n));
        sa_.id.spi = wire::be32(0x10000000 + n);
        sa_.reqid = n + 1;
        std::array<std::uint8_t, 20> key{};
        std::memcpy(key.data(), &n, sizeof n);
        sa_.algs.aead = {"rfc4106(gcm(aes))", secret(key), 128};
        return sa_;
    }
    const ipsec::policy& policy(std::uint32_t n) {
        policy_.sel.source = ipsec::address::v4(wire::be32(0x0a000000 + n));
        policy_.sel.destination = ipsec::address::v4(wire::be32(0x1e000000 + n));
        policy_.templates[0].id.destination = ipsec::address::v4(wire::be32(0x14000000 + n));
        policy_.templates[0].reqid = n + 1;
        return policy_;
    }

  private:
    ipsec::sa sa_;
    ipsec::policy policy_;
};

/// Pairs a second of each part.
std::vector<double> fill(raw_client& client) {
    pair_maker make;
    std::vector<double> rates;
    for (std::uint32_t first = 0; first < pairs; first += part) {
        const auto start = clock::now();
        for (std::uint32_t n = first; n < first + part; ++n) {
            client.add(make.sa(n));
            client.add(make.policy(n));
        }
        client.finish();
        rates.push_back(part / seconds_since(start));
    }
    return rates;
}

struct dumped {
    double seconds = 0;
    bool each_once = true;
    std::size_t longest = 0;
};

/// Reads all SAs, as fast as they come.
dumped dump(raw_client& client) {
    dumped d;
    std::vector<bool> seen(pairs);
    std::uint32_t count = 0;
    const auto start = clock::now();
    client.send(dump_of(XFRM_MSG_GETSA));
    for (bool done = false; !done;) {
        xfrm::bytes rest = client.receive();
        d.longest = std::max(d.longest, rest.size());
        while (const auto m = xfrm::next_message(rest)) {
            done = m->header.nlmsg_type == NLMSG_DONE;
            if (m->header.nlmsg_type != XFRM_MSG_NEWSA) continue;
            const auto info = xfrm::read_fixed<xfrm_usersa_info>(m->payload());
            const std::uint32_t n = wire::be32::from_network(info->id.spi).host() - 0x10000000;
            d.each_once = d.each_once && n < pairs && !seen[n];
            if (n < pairs) seen[n] = true;
            ++count;
        }
    }
    d.seconds = seconds_since(start);
    d.each_once = d.each_once && count == pairs;
    return d;
}

double flush(raw_client& client, std::uint16_t type) {
    const auto start = clock::now();
    client.call(flush_of(type));
    return seconds_since(start);
}

template <typename... Arguments>
std::string text(const char* format, Arguments... arguments) {
    std::array<char, 200> line;
    std::snprintf(line.data(), line.size(), format, arguments...);
    return line.data();
}

/// What was refused was not done, so nothing that was measured is what it says.
void fail_where_refused(figure_rows& rows, std::uint64_t refused) {
    if (refused == 0) return;
    for (figure_row& row : rows)
        row = not_measured(
            row.name, text("%llu requests were refused", static_cast<unsigned long long>(refused)));
}

/// A `#` for each 20,000 pairs a second of each part: flat where nothing grows with their number.
void plot(const char* title, const std::vector<double>& rates) {
    std::printf("%s\n", title);
    for (std::size_t i = 0; i < rates.size(); ++i)
        std::printf("%7zu pairs %8.0f/s  %s\n", (i + 1) * part, rates[i],
                    std::string(static_cast<std::size_t>(rates[i] / 20'000 * 4), '#').c_str());
}

/// What a process with memory for all pairs says of them.
struct reserved_fill {
    std::array<double, pairs / part> rates;
    double faults; ///< of pages, while they came
};

double page_faults() {
    rusage used{};
    ::getrusage(RUSAGE_SELF, &used);
    return static_cast<double>(used.ru_minflt);
}

std::optional<reserved_fill> fill_reserved() {
    tests::lab gateway(1);
    if (!fastpath::reserve_memory(pairs, fastpath::lasting_memory::of_this_process()) ||
        !gateway.worker->start())
        return std::nullopt;
    const served_lab served(gateway);
    raw_client client(served.socket());
    reserved_fill f{};
    const double before = page_faults();
    std::ranges::copy(fill(client), f.rates.begin());
    f.faults = page_faults() - before;
    if (client.errors() != 0) return std::nullopt;
    return f;
}

/// Where memory was put aside it stays so, so another process does it.
figure_rows measure_reserved() {
    int pipe[2];
    if (::pipe(pipe) != 0) return {not_measured("pairs_rate", "no pipe")};
    const pid_t child = ::fork();
    if (child == 0) {
        const std::optional<reserved_fill> f = fill_reserved();
        ::_exit(f && ::write(pipe[1], &*f, sizeof *f) == sizeof *f ? 0 : 1);
    }
    ::close(pipe[1]);
    reserved_fill f;
    const bool whole = ::read(pipe[0], &f, sizeof f) == sizeof f;
    ::close(pipe[0]);
    ::waitpid(child, nullptr, 0);
    if (!whole) return {not_measured("pairs_rate", "no memory, or requests were refused")};
    const std::vector<double> rates(f.rates.begin(), f.rates.end());
    plot("with memory put aside:", rates);
    return {{"pairs_rate", std::ranges::min(rates) / 1000, "k/s", at_least, 100,
             text("the slowest 100,000, with memory put aside (--reserve); %.0f page faults",
                  f.faults)},
            {"pairs_last_to_first", rates.back() / rates.front(), "x", at_least, 0.8,
             text("%.0f and %.0f pairs/s", rates.back(), rates.front())}};
}

} // namespace

figure_rows measure_scale() {
    std::ofstream("/proc/self/autogroup") << "-15"; // other work of the machine is not measured
    ::mallopt(M_ARENA_MAX, 1); // the server's thread allocates as the daemon's first one does
    figure_rows rows = measure_reserved();
    tests::lab gateway(1);
    if (!gateway.worker->start()) return {not_measured("pairs_rate", "no worker")};
    {
        const served_lab served(gateway);
        raw_client client(served.socket());
        const double empty = resident_bytes();
        const std::vector<double> rates = fill(client);
        const double full = resident_bytes();
        const dumped all = dump(client);
        const double flush_sas_s = flush(client, XFRM_MSG_FLUSHSA);
        const double flush_policies_s = flush(client, XFRM_MSG_FLUSHPOLICY);
        const double flushed = resident_bytes();
        const std::vector<double> again = fill(client);
        const double refilled = resident_bytes();
        plot("into memory that nobody has touched:", rates);
        const double slowest = *std::min_element(rates.begin(), rates.end());
        const double each = (full - empty) / pairs;
        const figure_rows others = {
            {"pairs_rate_unreserved", slowest / 1000, "k/s", at_least, 0,
             text("the slowest 100,000; last to first %.2f x", rates.back() / rates.front())},
            {"pair_bytes", each - schedule_bytes, "B", at_most, 2048,
             text("beside a key schedule of %.0f", schedule_bytes)},
            {"dump", all.each_once && all.longest <= longest_datagram ? all.seconds : 1e9, "s",
             at_most, 6, text("1,000,000 SAs, each once, datagrams of at most %zu B", all.longest)},
            {"flush_sas", flush_sas_s, "s", at_most, 10, "1,000,000; a client's send waits for it"},
            {"flush_policies", flush_policies_s, "s", at_most, 10, "1,000,000"},
            {"refilled_memory", (refilled - empty) / (full - empty), "x", at_most, 1.05,
             text("of what it took first; %.0f MiB when flushed, again at %.0f pairs/s",
                  (flushed - empty) / (1 << 20), *std::min_element(again.begin(), again.end()))},
        };
        rows.insert(rows.end(), others.begin(), others.end());
        client.call(flush_of(XFRM_MSG_FLUSHSA));
        client.call(flush_of(XFRM_MSG_FLUSHPOLICY));
        fail_where_refused(rows, client.errors());
    }
    gateway.worker->stop();
    return rows;
}

} // namespace esplane::bench
