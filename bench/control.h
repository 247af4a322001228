// SPDX-License-Identifier: Apache-2.0
//
// What `tools/bench control` measures: how fast, how large and how undisturbed the control plane
// is; see rows.h.
#pragma once

#include "bench/rows.h"

namespace esplane::bench {

/// control_shim.cc.  `policy_batch`, `policy_batch_hosts`, ...: NEWPOLICY by `ip -batch` under the
/// shim over the kernel's own rate; `round_trip`: GETSPDINFO under the shim over the kernel's.
/// bench/control_bed sets up both and needs root.
figure_rows measure_shim();
/// control_scale.cc.  A million SAs and policies through the server's socket: how fast they come,
/// what they take, how fast they are dumped and flushed.
figure_rows measure_scale();
/// control_path.cc.  `churn`: the data path's rate while other SAs come and go over that at rest;
/// `accepted`: packets accepted of those sent when the SA's NEWSA was acknowledged.
figure_rows measure_churn();
figure_rows measure_accepted();
/// control_takeover.cc.  `takeover`, `takeover_many`: the time without traffic of an upgrade in
/// place, with few SAs and with 100,000; needs root.
figure_rows measure_takeover();

/// `control round-trip COUNT`: a client that asks GETSPDINFO, under the shim or not; prints the
/// median in ns.  The program's exit status.
[[nodiscard]] int ask_round_trips(int count);

} // namespace esplane::bench
