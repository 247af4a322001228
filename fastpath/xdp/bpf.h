// SPDX-License-Identifier: Apache-2.0
//
// Small things around libbpf: options that start clear, errors as results.
#pragma once

#include <cstring>
#include <string>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

/// Makes an options struct of libbpf all zero and sets its size.  libbpf looks at the padding too,
/// which a copy need not keep: clear in place, and do not return one by value.
template <typename Options>
void clear(Options& o) noexcept {
    std::memset(&o, 0, sizeof o);
    o.sz = sizeof o;
}

/// libbpf and libxdp write to stderr by themselves; this stops it for the whole process.
void silence_bpf_libraries() noexcept;

/// The failed side of a result from a libbpf return value (-errno), as "what: strerror".
[[nodiscard]] tl::unexpected<error> fail_bpf(int code, const std::string& what);

} // namespace esplane::fastpath
