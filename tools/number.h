// SPDX-License-Identifier: Apache-2.0
//
// Numbers as users write them in options.
#pragma once

#include <charconv>
#include <string_view>

#include "lib/ipsec/mark.h"

namespace esplane::tools {

/// All of `text`, decimal or, after "0x", hexadecimal.  False: it is no number, or does not fit.
template <typename T>
[[nodiscard]] bool read_number(std::string_view text, T& into) {
    const bool hexadecimal = text.starts_with("0x");
    if (hexadecimal) text.remove_prefix(2);
    const char* const end = text.data() + text.size();
    const auto read = std::from_chars(text.data(), end, into, hexadecimal ? 16 : 10);
    return read.ec == std::errc() && read.ptr == end;
}

/// VALUE[/MASK]; without a mask all of it.  False: it is none, or has bits outside the mask.
[[nodiscard]] inline bool read_mark(std::string_view text, ipsec::mark_mask& into) {
    const auto slash = text.find('/');
    into.mask = ~0u;
    const bool read =
        read_number(text.substr(0, slash), into.value) &&
        (slash == std::string_view::npos || read_number(text.substr(slash + 1), into.mask));
    return read && (into.value & ~into.mask) == 0;
}

} // namespace esplane::tools
