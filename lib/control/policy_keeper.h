// SPDX-License-Identifier: Apache-2.0
//
// The rules for policies: net/xfrm/xfrm_policy.c over the SPD and a backend.
//
// Effects go to the backend first, then the database, then the listeners: where the backend
// refuses, nothing has changed.  Contracts of the calls that layer.h has too stand there.
#pragma once

#include <optional>
#include <set>
#include <vector>

#include "lib/control/announcer.h"
#include "lib/control/layer.h"
#include "lib/control/timer_queue.h"
#include "lib/ipsec/spd.h"

namespace esplane::control {

class policy_keeper {
  public:
    policy_keeper(backend& b, const announcer& out);

    [[nodiscard]] result<void> add(ipsec::policy p, ipsec::originator by, moment now);
    [[nodiscard]] result<void> restore(ipsec::policy p, moment now);
    [[nodiscard]] result<void> update(ipsec::policy p, ipsec::originator by, moment now);
    [[nodiscard]] result<void> remove(const ipsec::policy_key& k, ipsec::originator by);
    void flush(ipsec::policy_type type, ipsec::originator by);
    [[nodiscard]] const ipsec::policy* get(const ipsec::policy_key& k);
    [[nodiscard]] const ipsec::policy* next(cursor& c);
    /// Of any interface id; nullopt where there is none.
    [[nodiscard]] std::optional<ipsec::policy> find_index(std::uint32_t index);
    [[nodiscard]] spd_counts counts() const noexcept;
    [[nodiscard]] result<void> expire(const ipsec::policy_key& k, bool hard, ipsec::originator by);
    /// xfrm_migrate_policy_find(): the policy of that direction, type and interface id that a
    /// packet from the selector's source to its destination falls under; nullopt where there is
    /// none. Looks at all policies.
    [[nodiscard]] std::optional<ipsec::policy> find_covering(const ipsec::policy_key& k);
    /// Puts other templates into the policy of that index, which it returns; it keeps its place
    /// among the others.  Errors: what the backend says.
    [[nodiscard]] result<ipsec::policy> set_templates(std::uint32_t index,
                                                      std::vector<ipsec::template_> templates);

    void tick(moment now);
    [[nodiscard]] std::optional<std::int64_t> next_deadline_ns() const { return timers_.next_ns(); }

  private:
    using entry = ipsec::spd::entry;

    [[nodiscard]] result<void> check_beside(const ipsec::policy& p);
    void note(const ipsec::policy& p);
    [[nodiscard]] result<void> put_new(ipsec::policy& p, moment now);
    [[nodiscard]] result<void> put_over(entry& e, ipsec::policy& p, moment now);
    void start_timer(const entry& e, const ipsec::policy& p, moment now);
    /// With counters as of now.
    [[nodiscard]] ipsec::policy as_it_is(const entry& e) const;
    /// `p` for whoever asked, until the next who does.
    const ipsec::policy* show(ipsec::policy p);
    /// Out of the backend and the database.
    void drop(entry& e);
    /// The same; what it was, with final counters.
    ipsec::policy take(entry& e);
    void expire(entry& e, bool hard, ipsec::originator by);
    void check_time(entry& e, moment now);

    backend& backend_;
    const announcer& out_;
    ipsec::spd spd_;
    ipsec::policy shown_;
    std::set<std::uint32_t> protecting_subs_; ///< indices of sub-policies with templates
    timer_queue timers_;                      ///< by serial
};

} // namespace esplane::control
