// SPDX-License-Identifier: Apache-2.0
//
// Files of test vectors as NIST writes them: "NAME = value" lines, a blank line between vectors,
// "[NAME = value]" lines that hold until the next such block, "FAIL" for a vector that must be
// refused, "#" comments.  Names are compared in lower case.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace esplane::test {

/// One vector.
struct vector_record {
    std::string id; ///< "file.rsp:123", the line it starts at: for the failure
    std::map<std::string, std::string> values;
    bool must_fail = false;

    [[nodiscard]] bool has(const std::string& name) const { return values.contains(name); }
    [[nodiscard]] const std::string& text(const std::string& name) const { return values.at(name); }
    /// The value as hexadecimal.
    [[nodiscard]] std::vector<std::uint8_t> bytes(const std::string& name) const;
};

[[nodiscard]] std::vector<std::uint8_t> from_hex(const std::string& hex);

/// Throws where the file cannot be read.
[[nodiscard]] std::vector<vector_record> read_vectors(const std::filesystem::path& file);

} // namespace esplane::test
