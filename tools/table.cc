// SPDX-License-Identifier: Apache-2.0
#include "tools/table.h"

#include <algorithm>
#include <cassert>

namespace esplane::tools {

void table::add(std::vector<std::string> cells) {
    assert(cells.size() == columns_.size());
    rows_.push_back(std::move(cells));
}

std::string table::to_string() const {
    std::vector<std::size_t> width;
    for (std::size_t c = 0; c < columns_.size(); ++c) {
        width.push_back(columns_[c].heading.size());
        for (const auto& row : rows_)
            width[c] = std::max(width[c], row[c].size());
    }
    std::string text;
    const auto put_line = [&](auto&& cell_at) {
        for (std::size_t c = 0; c < columns_.size(); ++c) {
            const std::string& cell = cell_at(c);
            const std::string pad(width[c] - cell.size(), ' ');
            if (c != 0) text += "  ";
            text += columns_[c].side == align::left ? cell + pad : pad + cell;
        }
        text.erase(text.find_last_not_of(' ') + 1);
        text += '\n';
    };
    put_line([&](std::size_t c) -> const std::string& { return columns_[c].heading; });
    for (const auto& row : rows_)
        put_line([&](std::size_t c) -> const std::string& { return row[c]; });
    return text;
}

} // namespace esplane::tools
