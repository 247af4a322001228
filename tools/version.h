// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace esplane::tools {

/// "esplaned 0.1.0": the program's name and the version meson.build gives.
[[nodiscard]] inline std::string version_line(const std::string& program) {
    return program + " " + ESPLANE_VERSION;
}

} // namespace esplane::tools
