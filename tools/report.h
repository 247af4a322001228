// SPDX-License-Identifier: Apache-2.0
//
// What `esplane` shows, as JSON: one shape for the control socket and for --json.
//
// Keys are stable names; numbers are numbers; what does not apply is null.  No report holds a key
// or a salt.
#pragma once

#include <span>

#include <nlohmann/json.hpp>

#include "fastpath/counters.h"
#include "fastpath/filter.h"
#include "fastpath/port.h"
#include "fastpath/worker.h"
#include "lib/control/layer.h"

namespace esplane::tools {

class worker_care;

/// SAs or policies in one reply: with the longest of them it stays within a socket buffer.
inline constexpr unsigned page_size = 64;

[[nodiscard]] nlohmann::json report_sa(const ipsec::sa& s);
[[nodiscard]] nlohmann::json report_policy(const ipsec::policy& p);
[[nodiscard]] nlohmann::json report_port(const fastpath::port& p);

/// {"sas": [up to page_size], "next": where the next page starts, or null}
[[nodiscard]] nlohmann::json report_sas(control::layer& l, control::cursor from);
/// {"policies": [...], "next": ...}
[[nodiscard]] nlohmann::json report_policies(control::layer& l, control::cursor from);

/// {"received", "created", "sent", "punted", "dropped", "held", "absorbed", "encrypted",
/// "decrypted", "bypassed", "fragmented", "reassembled", "clamped", "handed_out", "handed_in"}: the
/// accounts of a worker, or of all: then what is handed out and not in lies between them.
[[nodiscard]] nlohmann::json report_packets(const fastpath::worker_counters& c);
/// [{"reason", "packets", "text"}]: every reason, also those with no packets.
[[nodiscard]] nlohmann::json report_drops(const fastpath::worker_counters& c);

/// {"worker", "cpu", "state", "busy", "stuck", "handed_out", "handed_in", ...}: `cpu` is null where
/// it is not pinned, `busy` the share of the last second, null where nobody measures; `stuck` how
/// often it was; the rest as report_packets().
[[nodiscard]] nlohmann::json report_worker(const fastpath::worker& w, std::size_t index,
                                           const worker_care* care);

/// {"rules": [{"rule", "packets", "bytes"}]}: in order, with what each decided.  f   may be nullptr
[[nodiscard]] nlohmann::json report_filter(const fastpath::rule_filter* f);

} // namespace esplane::tools
