// SPDX-License-Identifier: Apache-2.0
//
// Numbers as users write them in options.
#pragma once

#include <charconv>
#include <string_view>

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

} // namespace esplane::tools
