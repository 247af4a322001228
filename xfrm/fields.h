// SPDX-License-Identifier: Apache-2.0
//
// Fields that messages about SAs and messages about policies have in common, both ways.
#pragma once

#include <cstdint>

#include "lib/base/result.h"
#include "lib/ipsec/address.h"
#include "lib/ipsec/lifetime.h"
#include "lib/ipsec/sa.h"
#include "lib/ipsec/selector.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

[[nodiscard]] ipsec::family family_from(std::uint16_t address_family) noexcept;
[[nodiscard]] std::uint16_t address_family(ipsec::family f) noexcept;
/// All 16 bytes are kept where the family is unspecified.
[[nodiscard]] ipsec::address address_from(const xfrm_address_t& a, ipsec::family f) noexcept;
[[nodiscard]] xfrm_address_t address_to(const ipsec::address& a) noexcept;

[[nodiscard]] ipsec::selector selector_from(const xfrm_selector& s) noexcept;
[[nodiscard]] xfrm_selector selector_to(const ipsec::selector& s) noexcept;
/// Errors: EINVAL where a prefix is longer than an address of `f`, or than any where `f` is none.
[[nodiscard]] result<void> check_prefixes(const xfrm_selector& s, ipsec::family f);
/// Refuses by name what the data path does not look at: a device, a user.  Errors: EOPNOTSUPP.
[[nodiscard]] result<void> check_carried(const xfrm_selector& s);

/// Of a mode that check_mode() has let pass.
[[nodiscard]] ipsec::mode mode_from(std::uint8_t mode) noexcept;

/// One that XFRM has, if not one that is carried.  Errors: EINVAL with the text `unknown`.
[[nodiscard]] result<void> check_protocol_known(std::uint8_t protocol, const char* unknown);
/// Only ESP, only tunnel and transport mode.
///
/// Errors: EINVAL with the text `unknown` for what is no protocol or mode of XFRM; EPROTONOSUPPORT
/// or EOPNOTSUPP with its name and `field` for what is not carried.
[[nodiscard]] result<void> check_protocol(std::uint8_t protocol, const char* unknown,
                                          const char* field);
[[nodiscard]] result<void> check_mode(std::uint8_t mode, const char* unknown, const char* field);

[[nodiscard]] ipsec::lifetime_limits limits_from(const xfrm_lifetime_cfg& l) noexcept;
[[nodiscard]] xfrm_lifetime_cfg limits_to(const ipsec::lifetime_limits& l) noexcept;
[[nodiscard]] ipsec::lifetime_current current_from(const xfrm_lifetime_cur& l) noexcept;
[[nodiscard]] xfrm_lifetime_cur current_to(const ipsec::lifetime_current& l) noexcept;

} // namespace esplane::xfrm
