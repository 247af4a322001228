// SPDX-License-Identifier: Apache-2.0
#include "tools/worker_care.h"

#include <algorithm>

namespace esplane::tools {

namespace {

std::string name_of(std::size_t worker) {
    return "worker " + std::to_string(worker);
}

std::string count_of(std::size_t sas) {
    return std::to_string(sas) + (sas == 1 ? " SA" : " SAs");
}

} // namespace

worker_care::worker_care(engine& e, log l)
    : engine_(e)
    , log_(std::move(l))
    , watch_(e.workers().size())
    , busy_ns_(e.workers().size())
    , busy_(e.workers().size()) {}

void worker_care::tend(std::uint64_t now_ns) {
    if (now_ns < next_ns_) return;
    next_ns_ = now_ns + fastpath::worker_watch::interval_ns;
    for (std::size_t i = 0; i < engine_.workers().size(); ++i)
        look(i, now_ns);
    engine_.backend().tend_spread();
    if (engine_.tables().graveyard().held() != 0) (void)engine_.tables().graveyard().reclaim();
    if (now_ns - measured_ns_ < second_ns) return;
    measure(now_ns);
    balance();
}

void worker_care::look(std::size_t worker, std::uint64_t now_ns) {
    using change = fastpath::worker_watch::change;
    switch (watch_.look(worker, engine_.workers()[worker]->vitals(), now_ns)) {
    case change::none:
        break;
    case change::stuck: {
        const std::size_t taken = engine_.backend().take_from(static_cast<unsigned>(worker));
        log_(name_of(worker) + " is stuck: its " + count_of(taken) +
             " are taken from it (`esplane workers`)");
        break;
    }
    case change::recovered:
        log_(name_of(worker) + " goes on");
    }
}

void worker_care::measure(std::uint64_t now_ns) {
    const auto elapsed = static_cast<double>(now_ns - measured_ns_);
    measured_ns_ = now_ns;
    for (std::size_t i = 0; i < busy_.size(); ++i) {
        const std::uint64_t busy_ns = engine_.workers()[i]->vitals().busy_ns.get();
        busy_[i] = std::min(1.0, static_cast<double>(busy_ns - busy_ns_[i]) / elapsed);
        busy_ns_[i] = busy_ns;
    }
}

void worker_care::balance() {
    std::vector<double> shares = busy_;
    for (std::size_t i = 0; i < shares.size(); ++i)
        if (watch_.stuck(i)) shares[i] = -1;
    const auto found = balancer_.look(shares);
    if (!found) return;
    auto loads = engine_.backend().loads_of(found->from);
    if (!found->now) return; // counted from here
    const auto chosen = fastpath::balancer::choose(*found, busy_[found->from], loads);
    for (const ipsec::sa_id& id : chosen)
        (void)engine_.backend().ask_to_move(id, found->to);
    if (!chosen.empty())
        log_(count_of(chosen.size()) + " of " + name_of(found->from) + " go to " +
             name_of(found->to) + ", which has less to do");
    else if (const auto fat = fastpath::balancer::fat_one(loads))
        spread(*fat);
}

void worker_care::spread(const ipsec::sa_id& id) {
    const auto workers = static_cast<unsigned>(engine_.workers().size());
    if (!engine_.backend().spread_sa(id, workers)) return; // looked at again in a while
    log_("an SA to " + id.destination.to_string() + " is more than a worker can do: all " +
         std::to_string(workers) + " carry it");
}

} // namespace esplane::tools
