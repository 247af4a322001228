// SPDX-License-Identifier: Apache-2.0
//
// How frames get between a device and its AF_XDP sockets, the best way first.
//
//   zero-copy   the device reads and writes the packet buffers itself
//   copy        the program runs in the driver; the kernel copies
//   generic     the program runs behind the driver, on the kernel's own buffers
//
// What a driver can do shows in what the kernel answers: each way is tried in turn.
// Threads: any.  Does not: make a system call.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/result.h"

namespace esplane::fastpath {

/// How the ingress program runs: in the driver, or (slower) in the generic path behind it.
enum class xdp_mode : std::uint8_t { native, generic };

/// What the user asked for.
enum class xdp_wish : std::uint8_t { automatic, zero_copy, copy, generic };

/// "auto", "zero-copy", "copy" or "generic".  Errors: EINVAL.
[[nodiscard]] result<xdp_wish> parse_xdp_wish(std::string_view text);

/// What a socket is bound with.
struct binding {
    bool zero_copy = false;
    bool multi_buffer = false; ///< a frame may take several buffers

    friend bool operator==(const binding&, const binding&) = default;
};

[[nodiscard]] std::string name_of(xdp_mode program, const binding& b);

/// In which order the program is to be attached.
///
/// bond   its program would run on the members, whose frames its sockets do not get: generic alone
[[nodiscard]] std::vector<xdp_mode> modes_to_try(xdp_wish wish, bool bond);

/// In which order sockets are to be bound; empty where the wish cannot be met.
///
/// large_frames   the device has frames that do not fit one buffer
[[nodiscard]] std::vector<binding> bindings_to_try(xdp_wish wish, xdp_mode program,
                                                   bool large_frames);

/// Whether another binding may do after this one was refused with `code`, or nothing will.
[[nodiscard]] bool another_may_do(int code) noexcept;

/// The first of the bindings that `attempt` takes.  Errors: the last attempt's.
template <typename Attempt>
[[nodiscard]] result<binding> bind_first(std::span<const binding> ways, Attempt attempt) {
    error last{EOPNOTSUPP, "zero-copy needs the XDP program in the driver", {}};
    for (const binding& b : ways) {
        auto done = attempt(b);
        if (done) return b;
        last = std::move(done.error());
        if (!another_may_do(last.code)) break;
    }
    return tl::unexpected(std::move(last));
}

} // namespace esplane::fastpath
