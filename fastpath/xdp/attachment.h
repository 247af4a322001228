// SPDX-License-Identifier: Apache-2.0
//
// Puts the two programs on a device, finds them again and takes them off.
//
// Both are attached over netlink, not by a descriptor: they outlive the process.  They are
// recognised by their names; a restart replaces them without a gap, and a foreign XDP program is
// never touched.  Beside other programs: dispatcher.h.
// Threads: control.
#pragma once

#include <optional>
#include <string>

#include "fastpath/xdp/binding.h"
#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

inline constexpr char ingress_program_name[] = "esplane_ingress";
inline constexpr char egress_program_name[] = "esplane_egress";

/// Attaches the program to the device, or puts it in the place of an earlier one of ours.
///
/// Errors: EBUSY where a foreign program is there; what the kernel says otherwise.
[[nodiscard]] result<xdp_mode> attach_ingress(const std::string& device, int ifindex, int program,
                                              xdp_wish wish);

/// Whether libxdp's dispatcher is on the device: then attach_beside() is the way.
[[nodiscard]] bool has_dispatcher(int ifindex) noexcept;

/// The same for clsact egress.
[[nodiscard]] result<void> attach_egress(const std::string& device, int ifindex, int program);

/// What is on a device, or was taken off it.
struct attachments {
    bool ingress = false;
    bool egress = false;
    bool qdisc = false; ///< the clsact qdisc that attach_egress made
};

/// Our programs on the device; `qdisc` stays false.
[[nodiscard]] attachments find_attachments(int ifindex) noexcept;

/// Where both stand on the device and the ingress program alone takes what arrives: how it runs.
[[nodiscard]] std::optional<xdp_mode> find_cover(int ifindex) noexcept;

/// The map of sockets of our ingress program there; invalid where there is none.
[[nodiscard]] unique_fd find_sockets(int ifindex) noexcept;

/// Takes our programs off, and the clsact qdisc if attach_egress made it and it is empty.
[[nodiscard]] result<attachments> detach(const std::string& device, int ifindex);

} // namespace esplane::fastpath
