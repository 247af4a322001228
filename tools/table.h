// SPDX-License-Identifier: Apache-2.0
//
// Rows of text under a heading, in columns as wide as their widest cell.
#pragma once

#include <string>
#include <vector>

namespace esplane::tools {

enum class align : unsigned char { left, right };

class table {
  public:
    struct column {
        std::string heading;
        align side = align::left;
    };
    explicit table(std::vector<column> columns)
        : columns_(std::move(columns)) {}

    /// One cell for each column; bytes are taken for columns of the terminal.
    void add(std::vector<std::string> cells);
    [[nodiscard]] bool empty() const noexcept { return rows_.empty(); }
    /// Two spaces between columns, none at the end of a line, each line with its newline.
    [[nodiscard]] std::string to_string() const;

  private:
    std::vector<column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

} // namespace esplane::tools
