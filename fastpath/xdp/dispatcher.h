// SPDX-License-Identifier: Apache-2.0
//
// Beside other XDP programs: through libxdp's dispatcher, where one is on the device.
//
// The dispatcher calls its programs in order of their priority, each as long as those before let
// the packet pass.  Ours has the first: what it takes or drops no other sees, and what it passes
// goes on to the others.  Its place is pinned by libxdp, so it outlives the process as well.
//
// Needs freplace, which some kernels and virtual machines refuse: then the device is refused.
// Threads: control.
#pragma once

#include <string>

#include "fastpath/xdp/binding.h"
#include "lib/base/result.h"

struct bpf_object;

namespace esplane::fastpath {

inline constexpr char dispatcher_name[] = "xdp_dispatcher";

/// Loads `object`, which is open and has the ingress program, into the dispatcher on the device, in
/// the place of earlier ones of ours: those go after it has come.
///
/// Errors: EBUSY, naming the other programs, where that cannot be.
[[nodiscard]] result<xdp_mode> attach_beside(const std::string& device, int ifindex,
                                             bpf_object* object);

/// Whether ours is among the dispatcher's programs.
[[nodiscard]] bool is_beside(int ifindex) noexcept;

/// Takes ours out; false where it was not there.  Errors: what libxdp says.
[[nodiscard]] result<bool> detach_beside(const std::string& device, int ifindex);

} // namespace esplane::fastpath
