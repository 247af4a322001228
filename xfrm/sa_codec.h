// SPDX-License-Identifier: Apache-2.0
//
// SAs as XFRM messages carry them, both ways.
//
// Decoding applies the rules of the kernel's xfrm_user (verify_newsa_info, verify_replay) with
// their error codes and texts, then refuses what esplane does not carry.  Encoding yields the
// kernel's attributes in the kernel's order.
#pragma once

#include "lib/base/result.h"
#include "lib/control/layer.h"
#include "lib/ipsec/sa.h"
#include "xfrm/attributes.h"
#include "xfrm/fields.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// From NEWSA and UPDSA.  Algorithms are as given, not resolved.
///
/// Errors: EINVAL with the kernel's text; EPROTONOSUPPORT and EOPNOTSUPP with `field`.
[[nodiscard]] result<ipsec::sa> decode_sa(const xfrm_usersa_info& info, const attributes& a);
/// Of an SA, or an SPI, for one CPU: the machine must have it.  Errors: `too_big`, which the
/// kernel's messages differ in.
[[nodiscard]] result<void> check_cpu(std::optional<std::uint32_t> cpu, int too_big);
/// What the kernel's __xfrm_init_state says of an SA whose algorithms it knows, before it makes its
/// transform.  Errors: EPROTONOSUPPORT.
[[nodiscard]] result<void> check_family_change(const ipsec::sa& s);
/// And what it says afterwards, of encapsulation, NAT keepalives and the window; `a` is what `s`
/// was decoded from.  Errors: EINVAL; EOPNOTSUPP with `field`.
[[nodiscard]] result<void> check_use(const ipsec::sa& s, const attributes& a);
/// The fixed part of NEWSA, UPDSA and EXPIRE.
[[nodiscard]] xfrm_usersa_info sa_info(const ipsec::sa& s) noexcept;
/// What follows it in NEWSA and UPDSA.
void encode_sa_attributes(message_writer& w, const ipsec::sa& s);

/// From GETSA and DELSA.
[[nodiscard]] ipsec::sa_id decode_sa_id(const xfrm_usersa_id& id) noexcept;
/// The same with the mark that a request names it by.
[[nodiscard]] ipsec::sa_id decode_sa_id(const xfrm_usersa_id& id, const attributes& a) noexcept;
[[nodiscard]] xfrm_usersa_id sa_id_to(const ipsec::sa_id& id) noexcept;

/// From ALLOCSPI.  Errors: as decode_sa.
[[nodiscard]] result<control::spi_request> decode_spi_request(const xfrm_userspi_info& info,
                                                              const attributes& a);

/// Writes XFRMA_IF_ID where `if_id` is one.
void encode_if_id(message_writer& w, std::uint32_t if_id);
/// 0 where the message has none.
[[nodiscard]] std::uint32_t decode_if_id(const attributes& a) noexcept;

/// XFRMA_ENCAP, of an SA whose outer header is of that family; nullopt where the message has none.
/// Errors: EINVAL for another encapsulation than in UDP.
[[nodiscard]] result<std::optional<ipsec::udp_encapsulation>> decode_encap(const attributes& a,
                                                                           ipsec::family f);
void encode_encap(message_writer& w, const ipsec::udp_encapsulation& e);
/// Writes XFRMA_SA_DIR where the SA has a direction.
void encode_direction(message_writer& w, const ipsec::sa& s);
void encode_pcpu(message_writer& w, const ipsec::sa& s);

/// Which SAs a dump shows: XFRMA_ADDRESS_FILTER and XFRMA_PROTO.
struct sa_filter {
    std::uint8_t protocol = 0; ///< 0: any
    ipsec::family fam = ipsec::family::unspecified;
    xfrm_address_t source{};
    xfrm_address_t destination{};
    std::uint8_t source_prefix = 0;
    std::uint8_t destination_prefix = 0;

    [[nodiscard]] bool matches(const ipsec::sa& s) const noexcept;
};
/// Errors: EINVAL for a prefix of more than 128 bits.
[[nodiscard]] result<sa_filter> decode_sa_filter(const attributes& a);

} // namespace esplane::xfrm
