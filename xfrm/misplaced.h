// SPDX-License-Identifier: Apache-2.0
//
// Attributes that a message has no use for: the kernel passes over them.
#pragma once

#include <cstdint>
#include <optional>

#include "xfrm/attributes.h"

namespace esplane::xfrm {

/// The first of the attributes that are of SAs, of policies, of migration or of dumps alone, in a
/// message about something else; nullopt where there is none.
[[nodiscard]] std::optional<std::uint16_t> misplaced(const attributes& a, std::uint16_t message);

} // namespace esplane::xfrm
