// SPDX-License-Identifier: Apache-2.0
//
// Control's side of fat SAs: begins to spread them and sees them off.
//
// What is spread is found by workers through the tables, and goes when the last of its packets has
// come through: until then it waits here, whatever has become of its SA.
// Threads: control.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "fastpath/spread.h"
#include "fastpath/tables.h"

namespace esplane::fastpath {

class spread_keeper {
  public:
    explicit spread_keeper(tables& shared)
        : shared_(shared) {}

    /// From the owner's next packet on all workers carry `sa`; shares   one for each worker.
    /// nullptr: 64 SAs are spread already.
    [[nodiscard]] std::shared_ptr<spread_out> begin(sa_out& sa,
                                                    std::vector<std::unique_ptr<sa_out>> shares);
    /// From the owner's next packet on all workers decrypt for it.
    [[nodiscard]] std::shared_ptr<spread_in> begin(sa_in& sa, unsigned workers);

    /// The SA is abandoned, or deleted: no more tickets once the workers were quiescent.
    void end(std::shared_ptr<spread_out> all);
    void end(std::shared_ptr<spread_in> all);

    /// Frees what is over.  Now and then.
    void tend();
    /// How many wait to be freed.
    [[nodiscard]] std::size_t ending() const noexcept { return out_.size() + in_.size(); }

  private:
    template <typename Spread>
    struct ended {
        std::shared_ptr<Spread> all;
        std::shared_ptr<std::atomic<bool>> quiet; ///< no worker can take a ticket any more
    };
    template <typename Spread>
    void end(std::vector<ended<Spread>>& list, std::shared_ptr<Spread> all);
    template <typename Spread>
    void tend(std::vector<ended<Spread>>& list, spread_table<Spread>& table);

    tables& shared_;
    std::vector<ended<spread_out>> out_;
    std::vector<ended<spread_in>> in_;
};

} // namespace esplane::fastpath
