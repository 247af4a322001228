// SPDX-License-Identifier: Apache-2.0
//
// Which policy a flow falls under: what the lookup alone costs, by rule set and number of rules,
// and what one more rule costs the writer, and whoever looks up meanwhile.
//
//   flows     65,536 that fall under rules taken at random, a burst of 32 at a time, each burst
//   once
//             in 64 chunks
//   timing    a chunk is 1,024 flows; the best of 200
//   uncached  a chunk is 512 flows, after 96 MiB were written and another chunk was looked up; the
//             best of 30
//   checked   the findings of some bursts against a search of all rules, outside the timing
//   slowest   in CPU time of the thread: that others had its CPU is no doing of the table
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "bench/rows.h"
#include "bench/rulesets/rulesets.h"
#include "fastpath/policy_table.h"

namespace esplane::bench {
namespace {

using fastpath::policy_entry;
using fastpath::v4_words;
using key = fastpath::flow_key<v4_words>;
using clock = std::chrono::steady_clock;

constexpr unsigned flow_count = 65'536;
constexpr unsigned burst = 32;
constexpr unsigned chunk = 1024;
constexpr unsigned chunks = 200;
constexpr unsigned checked = 256;
constexpr unsigned added = 200;
constexpr unsigned uncached_chunk = 512;
constexpr unsigned uncached_chunks = 30;

template <typename Work>
double seconds_of(Work work) {
    const auto start = clock::now();
    work();
    return std::chrono::duration<double>(clock::now() - start).count();
}

/// As seconds_of(), but for what the thread did not run.
template <typename Work>
double own_seconds_of(Work work) {
    const auto now = [] {
        timespec t{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
    };
    const double start = now();
    work();
    return now() - start;
}

void empty_caches() {
    static std::vector<std::uint8_t> junk(96U << 20);
    static std::uint8_t value = 0;
    std::ranges::fill(junk, ++value);
}

key key_of_flow(const ipsec::flow& f) {
    const std::uint64_t upper = fastpath::upper_word(f.source_port, f.destination_port, f.protocol);
    return fastpath::key_of_parts<v4_words>(f.source.bytes.data(), f.destination.bytes.data(),
                                            upper);
}

class rule_table {
  public:
    explicit rule_table(std::vector<ipsec::policy> rules)
        : rules_(std::move(rules))
        , entries_(rules_.size()) {}

    /// Seconds it took.
    double insert(std::size_t n) {
        entries_[n].run.rank = std::uint64_t{rules_[n].priority} << 32 | n;
        return own_seconds_of([&] { table_.insert(&entries_[n], rules_[n].sel); });
    }
    void insert_first(std::size_t count) {
        while (there_ < count)
            insert(there_++);
    }
    [[nodiscard]] std::span<const ipsec::policy> there() const {
        return std::span(rules_).first(there_);
    }
    void look_up(const std::vector<key>& keys, unsigned first, unsigned count) const {
        std::array<const policy_entry*, burst> found;
        for (unsigned i = 0; i < count; i += burst)
            table_.find(std::span(&keys[(first + i) % flow_count], burst), found.data());
    }
    /// Best ns a flow.
    [[nodiscard]] double search(const std::vector<key>& keys) const {
        double best = 1;
        for (unsigned n = 0; n < chunks; ++n)
            best = std::min(best, seconds_of([&] { look_up(keys, n * chunk, chunk); }));
        return best / chunk * 1e9;
    }
    /// The same outside any cache.
    [[nodiscard]] double search_uncached(const std::vector<key>& keys) const {
        double best = 1;
        for (unsigned n = 0; n < 2 * uncached_chunks; n += 2) {
            empty_caches();
            look_up(keys, n * uncached_chunk, uncached_chunk);
            best = std::min(
                best, seconds_of([&] { look_up(keys, (n + 1) * uncached_chunk, uncached_chunk); }));
        }
        return best / uncached_chunk * 1e9;
    }
    [[nodiscard]] bool finds_the_best(const ipsec::flow& f) const {
        const policy_entry* best = nullptr;
        for (std::size_t n = 0; n < there_; ++n)
            if (rules_[n].sel.matches(f) && (best == nullptr || entries_[n].run.rank < best->rank))
                best = &entries_[n].run;
        return table_.find(key_of_flow(f)) == best;
    }

  private:
    std::vector<ipsec::policy> rules_;
    std::vector<fastpath::keyed_policy<v4_words>> entries_;
    std::size_t there_ = 0;
    fastpath::retired graveyard_;
    fastpath::policy_table<v4_words> table_{graveyard_};
};

std::vector<key> keys_of(std::span<const ipsec::flow> flows) {
    std::vector<key> keys;
    for (const ipsec::flow& f : flows)
        keys.push_back(key_of_flow(f));
    return keys;
}

/// Two: in the caches as far as it fits, and outside them.
figure_rows lookup_rows(rule_kind k, unsigned count) {
    const bool acl = k == rule_kind::acl;
    rule_table t(make_rules(k, count, {}));
    t.insert_first(count);
    const auto flows = make_flows(t.there(), flow_count);
    const auto keys = keys_of(flows);
    const std::string name = std::string(name_of(k)) + "_" + std::to_string(count);
    const bool right = std::all_of(flows.begin(), flows.begin() + checked,
                                   [&](const ipsec::flow& f) { return t.finds_the_best(f); });
    if (!right) return {not_measured("lookup_" + name, "a flow was found under the wrong rule")};
    figure_row r;
    r.name = "lookup_" + name;
    r.measured = t.search(keys);
    r.unit = "ns";
    r.limit = acl ? 110 : 20;
    r.note = std::to_string(count_shapes(t.there())) + " shapes";
    figure_row u = r;
    u.name = "uncached_" + name;
    u.measured = t.search_uncached(keys);
    u.limit = acl ? 150 : 50;
    return {r, u};
}

/// The median of some, and the slowest.
figure_row addition_row() {
    constexpr unsigned there = 100'000;
    rule_table t(make_rules(rule_kind::acl, there + added, {}));
    t.insert_first(there);
    std::vector<double> us;
    for (unsigned n = 0; n < added; ++n)
        us.push_back(t.insert(there + n) * 1e6);
    std::ranges::sort(us);
    figure_row r;
    r.name = "addition_acl_100000";
    r.measured = us[added / 2];
    r.unit = "us";
    r.limit = 50;
    r.note = "the slowest of " + std::to_string(added) + ": " + std::to_string(us.back()) + " us";
    return r;
}

/// How long, at most, a burst of a worker takes while 1,000 rules come to 100,000; the best of some
/// rounds, since a host of virtual machines pauses them, too.
figure_row pause_row() {
    constexpr unsigned there = 100'000, more = 1000, rounds = 5;
    rule_table t(make_rules(rule_kind::acl, there + rounds * more, {}));
    t.insert_first(there);
    const auto keys = keys_of(make_flows(t.there(), flow_count));
    figure_row r;
    r.name = "pause_acl_100000";
    r.measured = 1e9;
    r.unit = "us";
    r.limit = 50;
    r.note = "rounds:";
    for (unsigned round = 0; round < rounds; ++round) {
        std::atomic<bool> begun{false}, ended{false};
        double longest = 0;
        std::thread worker([&] {
            for (unsigned n = 0; !ended; n += burst) {
                const double took = own_seconds_of([&] { t.look_up(keys, n, burst); });
                if (begun) longest = std::max(longest, took);
                begun = true;
            }
        });
        while (!begun)
            std::this_thread::yield();
        t.insert_first(there + (round + 1) * more);
        ended = true;
        worker.join();
        r.measured = std::min(r.measured, longest * 1e6);
        r.note += " " + std::to_string(static_cast<unsigned>(longest * 1e6));
    }
    return r;
}

/// The slowest addition on the way to a million pairs of hosts, all of one shape, so that one table
/// does all the growing.
figure_row growth_row() {
    constexpr unsigned count = 1'000'000;
    fastpath::retired graveyard;
    fastpath::policy_table<v4_words> table(graveyard);
    std::vector<fastpath::keyed_policy<v4_words>> entries(count);
    ipsec::selector s;
    s.fam = ipsec::family::ipv4;
    s.source_prefix = s.destination_prefix = 32;
    double slowest = 0;
    for (unsigned n = 0; n < count; ++n) {
        s.source = ipsec::address::v4(wire::be32(0x14000000 | n));
        s.destination = ipsec::address::v4(wire::be32(0x1e000000 | n));
        entries[n].run.rank = n;
        slowest = std::max(slowest, own_seconds_of([&] { table.insert(&entries[n], s); }));
        if (n % 1024 == 0) graveyard.reclaim();
    }
    figure_row r;
    r.name = "growth_1000000";
    r.measured = slowest * 1e6;
    r.unit = "us";
    r.limit = 2000;
    r.note = "the slowest of all additions";
    return r;
}

figure_rows measure_lookup() {
    figure_rows rows;
    for (const rule_kind k : {rule_kind::hub, rule_kind::acl, rule_kind::host_pairs})
        for (const unsigned count : {1u, 100u, 10'000u, 100'000u})
            std::ranges::copy(lookup_rows(k, count), std::back_inserter(rows));
    rows.push_back(addition_row());
    rows.push_back(pause_row());
    rows.push_back(growth_row());
    return rows;
}

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    using namespace esplane::bench;
    constexpr std::array groups{row_group{"lookup", measure_lookup}};
    return run_rows("lookup", groups, argc, argv);
}
