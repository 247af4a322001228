// SPDX-License-Identifier: Apache-2.0
//
// What a control-plane call returns: a value, or an error that a user can act on.
//
// Not for the data path: there a verdict enum and a counter say what happened.
#pragma once

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include <tl/expected.hpp>

namespace esplane {

/// Why a call failed.
///
/// code   an errno value (positive), the one the kernel would give where it has a rule
/// text   one line for the user, without a newline; may be empty where the code says it all
/// field  the name of the field or attribute at fault ("XFRMA_MARK", "mode"); may be empty
struct error {
    int code = EINVAL;
    std::string text;
    std::string field;
};

template <typename T>
using result = tl::expected<T, error>;

/// Makes the failed side of a result.
[[nodiscard]] inline tl::unexpected<error> fail(int code, std::string text = {},
                                                std::string field = {}) {
    return tl::unexpected<error>(error{code, std::move(text), std::move(field)});
}

/// The failed side of a result from the current `errno`, as "what: strerror".
[[nodiscard]] inline tl::unexpected<error> fail_errno(const std::string& what) {
    const int code = errno;
    return fail(code, what + ": " + std::generic_category().message(code));
}

} // namespace esplane
