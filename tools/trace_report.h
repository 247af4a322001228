// SPDX-License-Identifier: Apache-2.0
//
// A message to or from an XFRM client, and an event, as JSON: one shape for the control socket and
// for `esplane trace --json`, `esplane monitor --json`.
//
// Fields stand in the order of the message.  No report holds a key.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "lib/ipsec/event.h"
#include "xfrm/print.h"

namespace esplane::tools {

using ordered_json = nlohmann::ordered_json;

/// {"type", "seq", "length", "sender", "flags": [...], "fixed": {...},
/// "attributes": [{"name", "value"}], "request": {...}, "unknown_bytes"}: the last two where there
/// are any.
[[nodiscard]] ordered_json report_message(const xfrm::printed_message& m);

/// {"event": "sa_added", "sa": {...}, "by": {"port", "seq"}}: what it is about as report_sa() and
/// report_policy() have it; `by` is null where no client asked.
[[nodiscard]] nlohmann::json report_event(const ipsec::event& e);

} // namespace esplane::tools
