// SPDX-License-Identifier: Apache-2.0
//
// What a packet costs: the whole path as esplaned runs it, from received Ethernet frame to frame
// ready to send (parse, policy, SA, ESP, next hop, MAC, counters), and beside it in the same run
// DPDK's librte_ipsec, bare intel-ipsec-mb and OpenSSL on the same packets under the same keys.
//
//   rows      cuts through directions, sizes, SAs, policies, suites; --rows takes any
//   timing    a chunk is 256 or 512 packets, well under 1 ms, on one core; the best of all counts.
//             Contenders take turns, in another order each time.  Of 1,024 flows a turn is every
//             packet once to warm up, and two chunks that are timed; of 65,536, outside any cache,
//             the caches are emptied first
//   verified  every packet of every contender once, outside the timing, by OpenSSL
//
//   --targets      a line per target, `name measured target ok|short`; exit status 1 if one is
//   short
//   --json F       all figures
//   --compare F    against an earlier --json
//   --plot F       an SVG of the rows that doc/performance.md shows
//   --stages       where the nanoseconds go, stage by stage, and nothing else
//   --rows TEXT    all rows of the full matrix whose name contains TEXT, and no others
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <malloc.h>
#include <random>
#include <string_view>

#include "bench/plot.h"
#include "bench/scoreboard.h"
#include "bench/whole_path.h"

namespace esplane::bench {
namespace {

constexpr unsigned turns = 24;
constexpr unsigned timed_a_turn = 2;

struct options {
    bool targets = false;
    bool stages = false;
    std::string json, baseline, plot, rows;
};

bool parse(int argc, char** argv, options& o) {
    for (int i = 1; i < argc; ++i) {
        const std::string_view a = argv[i];
        if (a == "--targets" || a == "--stages") {
            (a == "--targets" ? o.targets : o.stages) = true;
            continue;
        }
        std::string* const value = a == "--json"      ? &o.json
                                   : a == "--compare" ? &o.baseline
                                   : a == "--plot"    ? &o.plot
                                   : a == "--rows"    ? &o.rows
                                                      : nullptr;
        if (value == nullptr || i + 1 == argc) return false;
        *value = argv[++i];
    }
    return true;
}

constexpr std::array all_sizes{64u, 128u, 256u, 512u, 1024u, 1420u, imix};
constexpr std::array all_sas{1u, 1000u, 100'000u, 1'000'000u};
constexpr std::array all_policies{1u, 100u, 10'000u, 100'000u};
constexpr std::array all_rules{rule_kind::hub, rule_kind::acl, rule_kind::host_pairs};
constexpr std::array all_suites{&aes128_gcm, &aes256_gcm, &cbc_sha1, &cbc_sha256,
                                &chacha20_poly1305};
constexpr unsigned usual_policies = 10'000;
constexpr unsigned most_hub_rules = 262'144;

/// Every shape there is, those that can share a gateway behind each other.
std::vector<shape> full_matrix() {
    std::vector<shape> all;
    for (const unsigned sas : all_sas)
        for (const bool outbound : {true, false})
            for (const suite_choice* suite : all_suites)
                for (const rule_kind rules : all_rules)
                    for (const unsigned policies : all_policies) {
                        if (sas > policies && policies != all_policies.back()) continue;
                        if (sas > most_hub_rules && rules != rule_kind::host_pairs) continue;
                        for (const std::uint32_t length : all_sizes)
                            all.push_back({outbound, length, sas, policies, rules, suite});
                    }
    return all;
}

bool is_one_of(std::uint32_t length, std::initializer_list<std::uint32_t> lengths) {
    return std::ranges::find(lengths, length) != lengths.end();
}

/// The cuts that are measured unless others are asked for.
bool is_usual(const shape& s) {
    const bool gcm = s.suite == &aes128_gcm, hub = s.rules == rule_kind::hub;
    const bool usual_hub = hub && s.policies == usual_policies;
    if (!gcm) return usual_hub && s.sas == 1000 && is_one_of(s.length, {64, 512, 1420});
    if (s.sas == 1 && usual_hub) return true;
    if (s.sas == 1) return s.length == 64 && (s.outbound || s.rules == rule_kind::acl);
    if (s.sas == 1000) return usual_hub && is_one_of(s.length, {64, 512, 1420, imix});
    if (s.sas == 100'000) return hub && is_one_of(s.length, {64, 1420, imix});
    return is_one_of(s.length, {64, 1420});
}

/// Rows about lookup have no peer: librte_ipsec and the library look nothing up.
bool has_peers(const shape& s) {
    return s.rules == rule_kind::hub || s.sas > 1;
}

struct seat {
    std::string name;
    std::string row;
    std::unique_ptr<contender> who;
};

using seats = std::vector<seat>;

void seat_peers(seats& all, const std::string& row, const std::shared_ptr<const traffic>& packets) {
    const shape& s = packets->of();
    all.push_back({who::bare, row, bare_library(packets)});
    if (s.sas == 1 || (s.sas == 1000 && s.suite != &aes128_gcm))
        all.push_back({who::openssl, row, openssl(packets)});
    for (const rte_device d : {rte_device::aesni_gcm, rte_device::aesni_mb})
        for (const rte_manner m : {rte_manner::lookaside, rte_manner::synchronous}) {
            const bool gcm_device = d == rte_device::aesni_gcm, sync = m == rte_manner::synchronous;
            // The slower driver for GCM is left out where sessions are many; and single packets
            // through synchronous lanes, which take up to 10 us each.
            if (!gcm_device && s.suite->is_gcm() && s.sas > 1000) continue;
            if (sync && !s.suite->is_aead() && s.sas > 1) continue;
            if (auto made = librte_ipsec(packets, d, m))
                all.push_back({std::string(who::rte) + (gcm_device ? "-gcm" : "-mb") +
                                   (sync ? "-synchronous" : "-lookaside"),
                               row, std::move(made)});
        }
}

bool share_gateway(const shape& a, const shape& b) {
    return a.outbound == b.outbound && a.sas == b.sas && a.rule_count() == b.rule_count() &&
           a.rules == b.rules && a.suite == b.suite;
}

/// Contenders of shapes, in their order, of which those behind each other share what they can.
seats seat_all(std::span<const shape> shapes) {
    seats all;
    const shape* last = nullptr;
    std::shared_ptr<gateway> g;
    std::vector<ipsec::policy> rules;
    for (const shape& s : shapes) {
        if (last == nullptr || !share_gateway(*last, s)) {
            rules = rules_of(s);
            g = gateway::make(s, rules);
            last = &s;
        }
        if (g == nullptr) continue; // esplane does not have the suite
        const auto packets = std::make_shared<const traffic>(s, rules);
        all.push_back({who::path, s.name(), std::make_unique<path_contender>(packets, g)});
        if (has_peers(s)) seat_peers(all, s.name(), packets);
    }
    return all;
}

/// False: what a contender made is wrong.
bool measure(seats all, scoreboard& into) {
    for (const seat& one : all)
        if (!one.who->verify()) {
            std::fprintf(stderr, "bench engine: %s/%s: the output is wrong\n", one.name.c_str(),
                         one.row.c_str());
            return false;
        }
    for (const seat& one : all) // in the order of the table
        into.note(one.name, one.row, one.who->chunk());
    std::mt19937 order(1);
    for (unsigned turn = 0; turn < turns; ++turn) {
        std::ranges::shuffle(all, order);
        for (const seat& one : all) {
            one.who->warm_up();
            for (unsigned i = 0; i < timed_a_turn; ++i)
                into.note(one.name, one.row, one.who->chunk());
        }
    }
    return true;
}

/// What is in memory together: all of few SAs, of many one direction.
bool same_group(const shape& a, const shape& b) {
    return a.sas == b.sas && (a.sas <= 1000 || a.outbound == b.outbound);
}

bool measure_all(const std::vector<shape>& shapes, scoreboard& into) {
    for (std::size_t from = 0, to; from < shapes.size(); from = to) {
        to = from + 1;
        while (to < shapes.size() && same_group(shapes[from], shapes[to]))
            ++to;
        if (!measure(seat_all(std::span(shapes).subspan(from, to - from)), into)) return false;
        ::malloc_trim(0); // a million SAs that are gone leave room for the next
    }
    return true;
}

/// Microseconds to add one more policy of the ACL set to 100,000: the median of 200.
double policy_addition() {
    constexpr unsigned there = 100'000, more = 200;
    const shape s{.policies = there, .rules = rule_kind::acl};
    const auto rules = make_rules(s.rules, there + more, {near_gateway(), far_gateway(), 1});
    const auto g = gateway::make(s, std::span(rules).first(there));
    std::vector<double> took;
    for (unsigned n = 0; n < more; ++n) {
        const auto start = std::chrono::steady_clock::now();
        g->whole().add_policy(rules[there + n]);
        const auto end = std::chrono::steady_clock::now();
        took.push_back(std::chrono::duration<double, std::micro>(end - start).count());
    }
    std::ranges::nth_element(took, took.begin() + more / 2);
    return took[more / 2];
}

std::string name_of(bool outbound, std::uint32_t length, unsigned sas,
                    unsigned policies = usual_policies, rule_kind rules = rule_kind::hub,
                    const suite_choice* suite = &aes128_gcm) {
    return shape{outbound, length, sas, policies, rules, suite}.name();
}

std::vector<target> targets_of(const scoreboard& b) {
    std::vector<target> all;
    const auto against = [&](const char* peer, const std::string& row, double limit) {
        all.push_back({row + "/" + peer, b.of(who::path, row), b.of(peer, row), limit});
    };
    for (const bool out : {true, false}) {
        against(who::rte, name_of(out, 64, 1), 0.85);
        against(who::rte, name_of(out, 64, 1000), 0.65);
        against(who::rte, name_of(out, 64, 100'000), 0.5);
        against(who::bare, name_of(out, 1420, 1), 1.18);
        against(who::bare, name_of(out, imix, 1000), 1.6);
        const std::string one = name_of(out, 64, 1, 1, rule_kind::acl);
        for (const unsigned policies : {10'000u, 100'000u}) {
            const std::string row = name_of(out, 64, 1, policies, rule_kind::acl);
            all.push_back(
                {row, b.of(who::path, row), b.of(who::path, one), policies == 10'000 ? 2.0 : 3.0});
        }
        for (const suite_choice* suite : {&cbc_sha1, &cbc_sha256})
            for (const std::uint32_t length : {64u, 512u, 1420u})
                against(who::rte, name_of(out, length, 1000, usual_policies, rule_kind::hub, suite),
                        length == 64 ? 0.75 : 0.85);
    }
    all.push_back({"acl_addition", policy_addition(), 1, 50, "us"});
    return all;
}

/// Three pictures: by size, by SAs, by policies.
std::vector<chart> charts_of(const scoreboard& b) {
    std::vector<chart> all;
    for (const bool out : {true, false}) {
        chart sizes{std::string(out ? "out" : "in") + ": 1 SA, 10,000 policies, AES-128-GCM", {}};
        for (const std::uint32_t length : all_sizes) {
            const std::string row = name_of(out, length, 1);
            sizes.groups.push_back({length == imix ? "IMIX" : std::to_string(length) + " B",
                                    b.of(who::path, row), b.of(who::rte, row),
                                    b.of(who::bare, row)});
        }
        chart sas{std::string(out ? "out" : "in") + ": 64 B, by SAs", {}};
        for (const unsigned n : all_sas) {
            const std::string row =
                name_of(out, 64, n, usual_policies,
                        n > most_hub_rules ? rule_kind::host_pairs : rule_kind::hub);
            sas.groups.push_back({std::to_string(n), b.of(who::path, row), b.of(who::rte, row),
                                  b.of(who::bare, row)});
        }
        all.push_back(std::move(sizes));
        all.push_back(std::move(sas));
    }
    chart policies{"out: 64 B, 1 SA, by policies", {}};
    for (const rule_kind rules : all_rules)
        for (const unsigned n : all_policies)
            policies.groups.push_back({std::string(bench::name_of(rules)) + " " + std::to_string(n),
                                       b.of(who::path, name_of(true, 64, 1, n, rules)), 0, 0});
    all.push_back(std::move(policies));
    return all;
}

void print_stages() {
    for (const unsigned sas : {1u, 1000u, 100'000u})
        for (const std::uint32_t length : {64u, 1420u})
            for (const bool out : {true, false}) {
                const shape s{out, length, sas, usual_policies};
                const auto rules = rules_of(s);
                const auto packets = std::make_shared<const traffic>(s, rules);
                path_contender path(packets, gateway::make(s, rules));
                std::printf("%-24s", s.name().c_str());
                double whole = 0;
                for (const auto& [name, ns] : path.stages(turns * timed_a_turn)) {
                    std::printf("  %s %.1f", name, ns);
                    whole += ns;
                }
                std::printf("  = %.1f ns\n", whole);
            }
}

int run(const options& o) {
    if (o.stages) {
        print_stages();
        return EXIT_SUCCESS;
    }
    std::vector<shape> shapes = full_matrix();
    std::erase_if(shapes, [&](const shape& s) {
        return o.rows.empty() ? !is_usual(s) : s.name().find(o.rows) == std::string::npos;
    });
    scoreboard board;
    if (!measure_all(shapes, board)) return EXIT_FAILURE;
    board.print_table();
    bool good = true;
    if (!o.json.empty()) good = board.write_json(o.json) && good;
    if (!o.plot.empty()) good = write_svg(charts_of(board), o.plot) && good;
    if (!o.baseline.empty()) good = board.print_comparison(o.baseline) && good;
    if (o.targets) good = print_targets(targets_of(board)) && good;
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    esplane::bench::options o;
    if (!esplane::bench::parse(argc, argv, o)) {
        std::fprintf(stderr, "usage: engine [--targets] [--json F] [--compare F] [--plot F] "
                             "[--stages] [--rows TEXT]\n");
        return 2;
    }
    try {
        return esplane::bench::run(o);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "bench engine: %s\n", e.what());
        return EXIT_FAILURE;
    }
}
