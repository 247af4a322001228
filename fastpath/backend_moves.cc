// SPDX-License-Identifier: Apache-2.0
//
// SAs of the backend that go on between other addresses (XFRM_MSG_MIGRATE).
#include <algorithm>

#include "fastpath/backend_records.h"
#include "fastpath/barrier.h"

namespace esplane::fastpath {

// 1. Its objects are taken from their workers: nobody changes them, what comes for them is dropped.
// 2. It gets its new name and is filed under its new ends.
// 3. New objects go on in their place with what the old ones had counted, sent and seen.
// 4. Templates take it, or do not any more.
result<void> user_backend::move_sa(const ipsec::sa_id& before, const ipsec::sa& s) {
    sa_record* const found = find(before);
    if (found == nullptr) return fail(ESRCH);
    if (s.id != before && find(s.id) != nullptr) return fail(EEXIST);
    if (auto ok = check_transport(s); !ok) return ok;
    if (auto room = check_memory(); !room) return room;
    sa_record& r = *found;
    if (r.seldom().is_spread()) unspread(r);

    const endpoint from = r.where();
    r.end_force();
    if (r.in) r.in->owner.abandon();
    const bool was_sending = r.out && r.out->owner.abandon() != sa_owner::nobody;
    barrier_on_all_threads();

    file(r, -1);
    sas_.erase(&r);
    ipsec::sa now = r.describe();
    r.id = s.id;
    now.source = s.source;
    now.encap = s.encap;
    now.dying = s.dying;
    r.keep(now);
    r.serial = ++serial_;
    r.path_mtu = no_path_limit;
    sas_.insert(&r);
    file(r, 1);

    if (r.in) replace_in(r);
    if (r.out) replace_out(r, was_sending ? sequence_margin : 0);
    resolve_all(from);
    if (from != r.where()) resolve_all(r.where());
    settle();
    return {};
}

/// Puts it among those of its ends and ports, or takes it out.
void user_backend::file(sa_record& r, int by) {
    count_encap(r, r.describe().encap, by);
    count_transport(r, by);
    if (by > 0)
        join_endpoint(r);
    else
        leave_endpoint(r);
}

auto user_backend::first_at(const endpoint& e) const -> sa_record* {
    return sas_by_endpoint_.find(endpoint_hash{}(e),
                                 [&](const sa_record& r) { return r.where() == e; });
}

void user_backend::join_endpoint(sa_record& r) {
    sa_record* const other = first_at(r.where());
    if (other == nullptr) {
        r.next_there = r.previous_there = &r;
        sas_by_endpoint_.insert(&r);
        return;
    }
    r.next_there = other->next_there;
    r.previous_there = other;
    other->next_there->previous_there = &r;
    other->next_there = &r;
}

void user_backend::leave_endpoint(sa_record& r) {
    sa_record* const next = r.next_there;
    next->previous_there = r.previous_there;
    r.previous_there->next_there = next;
    if (first_at(r.where()) != &r) return;
    if (next == &r)
        sas_by_endpoint_.erase(&r);
    else
        sas_by_endpoint_.replace(&r, next);
}

} // namespace esplane::fastpath
