// SPDX-License-Identifier: Apache-2.0
//
// Events of the control layer as the messages that XFRM sends to multicast groups.
#pragma once

#include <cstdint>

#include "lib/ipsec/event.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// Writes the event at the end of `into` and returns its group (XFRMNLGRP_*).
std::uint32_t encode_event(const ipsec::event& e, datagram& into);

} // namespace esplane::xfrm
