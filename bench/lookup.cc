// SPDX-License-Identifier: Apache-2.0
//
// Which policy a flow falls under: what the lookup alone costs, by rule set and number of rules,
// and what one more rule costs the writer.
//
//   flows    65,536 that fall under rules taken at random, a burst of 32 at a time, each burst once
//            in 64 chunks: outside any cache where there are more rules than fit
//   timing   a chunk is 1,024 flows; the best of 200
//   checked  the findings of some bursts against a search of all rules, outside the timing
#include <algorithm>
#include <array>
#include <chrono>
#include <memory>
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

template <typename Work>
double seconds_of(Work work) {
    const auto start = clock::now();
    work();
    return std::chrono::duration<double>(clock::now() - start).count();
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
        return seconds_of([&] { table_.insert(&entries_[n], rules_[n].sel); });
    }
    void insert_first(std::size_t count) {
        while (there_ < count)
            insert(there_++);
    }
    [[nodiscard]] std::span<const ipsec::policy> there() const {
        return std::span(rules_).first(there_);
    }
    /// Best ns a flow.
    [[nodiscard]] double search(const std::vector<key>& keys) const {
        std::array<const policy_entry*, burst> found;
        double best = 1;
        for (unsigned n = 0; n < chunks; ++n) {
            const key* const first = &keys[n * chunk % flow_count];
            best = std::min(best, seconds_of([&] {
                                for (unsigned i = 0; i < chunk; i += burst)
                                    table_.find(std::span(first + i, burst), found.data());
                            }));
        }
        return best / chunk * 1e9;
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

figure_row lookup_row(rule_kind k, unsigned count, double limit_ns) {
    rule_table t(make_rules(k, count, {}));
    t.insert_first(count);
    const auto flows = make_flows(t.there(), flow_count);
    std::vector<key> keys;
    for (const ipsec::flow& f : flows)
        keys.push_back(key_of_flow(f));
    figure_row r;
    r.name = "lookup_" + std::string(name_of(k)) + "_" + std::to_string(count);
    r.there = std::all_of(flows.begin(), flows.begin() + checked,
                          [&](const ipsec::flow& f) { return t.finds_the_best(f); });
    if (!r.there) r.note = "a flow was found under the wrong rule";
    r.measured = t.search(keys);
    r.unit = "ns";
    r.limit = limit_ns;
    if (r.there) r.note = std::to_string(count_shapes(t.there())) + " shapes";
    return r;
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

figure_rows measure_lookup() {
    constexpr double most_ns = 25, most_ns_of_acl = 150;
    figure_rows rows;
    for (const rule_kind k : {rule_kind::hub, rule_kind::acl, rule_kind::host_pairs})
        for (const unsigned count : {1u, 100u, 10'000u, 100'000u})
            rows.push_back(lookup_row(k, count, k == rule_kind::acl ? most_ns_of_acl : most_ns));
    rows.push_back(addition_row());
    return rows;
}

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    using namespace esplane::bench;
    constexpr std::array groups{row_group{"lookup", measure_lookup}};
    return run_rows("lookup", groups, argc, argv);
}
