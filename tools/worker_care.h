// SPDX-License-Identifier: Apache-2.0
//
// Looks after the workers: names one that is stuck, takes its SAs from it, names it again when it
// goes on; moves SAs from a busy worker to an idle one; measures how busy each is.
//
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "fastpath/balance.h"
#include "fastpath/worker_watch.h"
#include "tools/engine.h"

namespace esplane::tools {

class worker_care {
  public:
    using log = std::function<void(const std::string& line)>;

    /// `e` outlives this.
    worker_care(engine& e, log l);

    /// Where it is time; see next_ns().
    void tend(std::uint64_t now_ns);
    [[nodiscard]] std::uint64_t next_ns() const noexcept { return next_ns_; }

    /// Share of its time in the last second that a worker worked on packets.
    [[nodiscard]] double busy_share(std::size_t worker) const noexcept { return busy_[worker]; }
    [[nodiscard]] const fastpath::worker_watch& watch() const noexcept { return watch_; }

  private:
    static constexpr std::uint64_t second_ns = 1'000'000'000;

    void look(std::size_t worker, std::uint64_t now_ns);
    void measure(std::uint64_t now_ns);
    void balance();
    void spread(const ipsec::sa_id& id);

    engine& engine_;
    log log_;
    fastpath::worker_watch watch_;
    fastpath::balancer balancer_;
    std::vector<std::uint64_t> busy_ns_; ///< as last measured
    std::vector<double> busy_;
    std::uint64_t measured_ns_ = 0;
    std::uint64_t next_ns_ = 0;
};

} // namespace esplane::tools
