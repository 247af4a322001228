// SPDX-License-Identifier: Apache-2.0
//
// Bars in an SVG file: esplane's figure beside its peers', in groups.
#pragma once

#include <string>
#include <vector>

namespace esplane::bench {

struct bar_group {
    std::string name;
    double path, rte, bare; ///< ns; 0: none
};

struct chart {
    std::string title;
    std::vector<bar_group> groups;
};

/// The charts above each other.  False, and said so: the file cannot be written.
[[nodiscard]] bool write_svg(const std::vector<chart>& charts, const std::string& file);

} // namespace esplane::bench
