// SPDX-License-Identifier: Apache-2.0
//
// The kernel's netlink and XFRM definitions, and those that linux/xfrm.h of Debian 12 (it ends at
// XFRMA_MTIMER_THRESH) does not have yet.
#pragma once

#include <cstdint>

#include <linux/netlink.h>
#include <linux/xfrm.h>

namespace esplane::xfrm {

// Numbers of the kernel's enum xfrm_attr_type_t, by the names that clients know.
inline constexpr std::uint16_t xfrma_sa_dir = 33;
inline constexpr std::uint16_t xfrma_nat_keepalive_interval = 34;
inline constexpr std::uint16_t xfrma_sa_pcpu = 35;
inline constexpr std::uint16_t xfrma_iptfs_drop_time = 36;
inline constexpr std::uint16_t xfrma_iptfs_reorder_window = 37;
inline constexpr std::uint16_t xfrma_iptfs_dont_frag = 38;
inline constexpr std::uint16_t xfrma_iptfs_init_delay = 39;
inline constexpr std::uint16_t xfrma_iptfs_max_qsize = 40;
inline constexpr std::uint16_t xfrma_iptfs_pkt_size = 41;

// Values of XFRMA_SA_DIR.
inline constexpr std::uint8_t xfrm_sa_dir_in = 1;
inline constexpr std::uint8_t xfrm_sa_dir_out = 2;

// IP-TFS, RFC 9347.
inline constexpr std::uint8_t xfrm_mode_iptfs = 5;
/// One more than the largest XFRM_MODE_*.
inline constexpr std::uint8_t xfrm_mode_max = 6;

/// A flag of policies: ACQUIRE for each CPU, RFC 9611.
inline constexpr std::uint8_t xfrm_policy_cpu_acquire = 4;

// What every client and the kernel agree on, whatever the compiler.
static_assert(sizeof(xfrm_selector) == 56);
static_assert(sizeof(xfrm_id) == 24);
static_assert(sizeof(xfrm_usersa_info) == 224);
static_assert(sizeof(xfrm_usersa_id) == 24);
static_assert(sizeof(xfrm_userspi_info) == 232);
static_assert(sizeof(xfrm_userpolicy_info) == 168);
static_assert(sizeof(xfrm_userpolicy_id) == 64);
static_assert(sizeof(xfrm_user_tmpl) == 64);
static_assert(sizeof(xfrm_user_expire) == 232);
static_assert(sizeof(xfrm_user_polexpire) == 176);
static_assert(sizeof(xfrm_aevent_id) == 48);
static_assert(sizeof(xfrm_encap_tmpl) == 24);
static_assert(sizeof(xfrm_userpolicy_type) == 6);
static_assert(sizeof(xfrm_address_filter) == 36);

} // namespace esplane::xfrm
