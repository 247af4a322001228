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
    const auto found = sas_.find(before);
    if (found == sas_.end()) return fail(ESRCH);
    if (s.id != before && sas_.contains(s.id)) return fail(EEXIST);
    if (auto ok = check_transport(s); !ok) return ok;
    if (auto room = check_memory(); !room) return room;
    sa_record& r = *found->second;
    if (r.spread_out_now || r.spread_in_now) unspread(r);

    const endpoint from = r.where();
    r.end_force();
    if (r.in) r.in->owner.abandon();
    const bool was_sending = r.out && r.out->owner.abandon() != sa_owner::nobody;
    barrier_on_all_threads();

    file(r, -1);
    auto named = sas_.extract(found);
    named.key() = s.id;
    sas_.insert(std::move(named));
    r.serial = ++serial_;
    r.described.id = s.id;
    r.described.source = s.source;
    r.described.encap = s.encap;
    r.described.dying = s.dying;
    r.path_mtu = no_path_limit;
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
    count_encap(r, by);
    count_transport(r, by);
    if (by < 0) return leave_endpoint(r);
    auto& there = sas_by_endpoint_[r.where()];
    r.at_endpoint = there.size();
    there.push_back(&r);
}

/// The last takes its place: whoever looks for the best ranks them anew.
void user_backend::leave_endpoint(sa_record& r) {
    const auto found = sas_by_endpoint_.find(r.where());
    auto& there = found->second;
    there.back()->at_endpoint = r.at_endpoint;
    there[r.at_endpoint] = there.back();
    there.pop_back();
    if (there.empty()) sas_by_endpoint_.erase(found);
}

} // namespace esplane::fastpath
