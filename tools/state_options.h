// SPDX-License-Identifier: Apache-2.0
//
// What the command line says about the state over restarts.
#pragma once

#include <string>

#include "lib/base/result.h"

namespace esplane::tools {

struct state_options {
    bool on = true;
    bool kept_by_manager = false; ///< "memory"
    std::string log_path;         ///< empty: in memory
    std::string key_path;         ///< empty: the service manager's credential, or none

    /// Nobody said where: in memory, where there is some.
    [[nodiscard]] bool automatic() const { return on && !kept_by_manager && log_path.empty(); }
    /// As parse_state() takes it.
    [[nodiscard]] std::string text() const {
        if (!on) return "off";
        if (kept_by_manager) return "memory";
        return log_path.empty() ? "auto" : log_path;
    }
};

/// "off", "auto", "memory" or a path.  Errors: EINVAL.
[[nodiscard]] inline result<state_options> parse_state(const std::string& text) {
    if (text.empty())
        return fail(EINVAL, "--state: give off, auto, memory or the name of a file", "state");
    state_options o;
    o.on = text != "off";
    o.kept_by_manager = text == "memory";
    if (o.on && !o.kept_by_manager && text != "auto") o.log_path = text;
    return o;
}

} // namespace esplane::tools
