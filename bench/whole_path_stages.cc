// SPDX-License-Identifier: Apache-2.0
//
// Where the nanoseconds go: the path is run up to a stage, again and again, and what one stage more
// takes is that stage's.  The engine is timed alone, over the very jobs that the path has just
// made; what it waited for keys falls to the stage that fetches them.
#include <algorithm>
#include <chrono>
#include <functional>

#include "bench/whole_path.h"
#include "fastpath/classify.h"
#include "fastpath/inbound.h"
#include "fastpath/next_hop.h"
#include "fastpath/outbound.h"
#include "fastpath/parse.h"

namespace esplane::bench {

namespace {

using fastpath::packet;
using fastpath::packet_list;
using fastpath::stage;
using tests::lab;

/// What a stage needs beside its packets, as a pipeline has it.
struct surroundings {
    fastpath::worker_counters counters;
    fastpath::event_ring events;
    fastpath::creation_budget budget;
    fastpath::burst_scratch scratch;
};

/// The last stage that runs.
enum class upto : std::uint8_t { parse, esp_or_policy, policy_or_esp };

class partial_path {
  public:
    partial_path(gateway& g, fastpath::buffer_owner& buffers)
        : gateway_(g)
        , buffers_(buffers)
        , own_(std::make_unique<surroundings>()) {}

    void outbound(std::span<packet> frames, upto last) noexcept {
        stage s = begin();
        packet_list esp, clear, bypass, local, leaving;
        for (packet& p : frames)
            p.port = lab::plain;
        fastpath::parse(s, frames, true, esp, clear);
        if (last == upto::parse) return;
        fastpath::verdicts to{bypass, local, own_->scratch.protect};
        fastpath::classify(s, clear, to);
        if (last == upto::esp_or_policy) return;
        auto items = to.protect.first(to.protect_count);
        for (const fastpath::protect_item& item : items)
            (void)fastpath::age(s, *item.p);
        items = items.first(fastpath::keep_own(s, items));
        fastpath::outbound(s, items, leaving);
    }
    void inbound(std::span<packet> frames, upto last) noexcept {
        stage s = begin();
        packet_list esp, clear, bypass, local;
        for (packet& p : frames)
            p.port = lab::secure;
        fastpath::parse(s, frames, true, esp, clear);
        if (last == upto::parse) return;
        fastpath::inbound(s, esp, clear);
        if (last == upto::esp_or_policy) return;
        fastpath::verdicts to{bypass, local, own_->scratch.protect};
        fastpath::classify(s, clear, to);
    }
    [[nodiscard]] std::span<const crypto::job> jobs(std::size_t n) const noexcept {
        return std::span(own_->scratch.jobs).first(n);
    }

  private:
    stage begin() noexcept {
        const lab& l = gateway_.whole();
        stage s{l.tables, l.tables.routes(), gateway_.engine(), own_->counters, own_->events,
                buffers_, own_->budget,      own_->scratch,     l.clock,        0,
                nullptr};
        s.may_split = true;
        return s;
    }

    gateway& gateway_;
    fastpath::buffer_owner& buffers_;
    std::unique_ptr<surroundings> own_;
};

double nanoseconds(const std::function<void()>& work) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const auto end = std::chrono::steady_clock::now();
    return std::chrono::duration<double, std::nano>(end - start).count();
}

} // namespace

std::vector<path_contender::stage_time> path_contender::stages(unsigned rounds) {
    partial_path part(*gateway_, buffers_);
    const bool out = of().outbound;
    const auto burst_at = [&](std::size_t at) { return std::span(frames_).subspan(at, burst); };
    const auto run_upto = [&](upto last) {
        for (std::size_t at = 0; at < frames_.size(); at += burst)
            out ? part.outbound(burst_at(at), last) : part.inbound(burst_at(at), last);
    };
    // The same, and the jobs of each burst once more.
    const auto engine_alone = [&] {
        double ns = 0;
        std::vector<crypto::job> again(burst);
        for (std::size_t at = 0; at < frames_.size(); at += burst) {
            out ? part.outbound(burst_at(at), upto::policy_or_esp)
                : part.inbound(burst_at(at), upto::esp_or_policy);
            std::ranges::copy(part.jobs(burst), again.begin());
            ns += nanoseconds([&] {
                out ? gateway_->engine().encrypt(again) : gateway_->engine().decrypt(again);
            });
        }
        return ns;
    };
    const std::function<double()> measures[] = {
        [&] { return nanoseconds([&] { run_upto(upto::parse); }); },
        [&] { return nanoseconds([&] { run_upto(upto::esp_or_policy); }); },
        [&] { return nanoseconds([&] { run_upto(upto::policy_or_esp); }); },
        [&] { return nanoseconds([&] { run(); }); },
        engine_alone,
    };
    double best[std::size(measures)];
    std::ranges::fill(best, 1e9);
    for (unsigned round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < std::size(measures); ++i) {
            warm_up();
            prepare();
            best[i] = std::min(best[i], measures[i]() / of().pool());
            reopen();
            next();
        }
    const auto [parse, second, third, whole, crypto] = best;
    if (out)
        return {{"parse", parse},
                {"policy", second - parse},
                {"SA+header", third - second - crypto},
                {"crypto", crypto},
                {"next hop+tx", whole - third}};
    return {{"parse", parse},
            {"SA+window+strip", second - parse - crypto},
            {"crypto", crypto},
            {"policy", third - second},
            {"next hop+tx", whole - third}};
}

} // namespace esplane::bench
