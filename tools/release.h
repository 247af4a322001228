// SPDX-License-Identifier: Apache-2.0
//
// `esplane release`: takes the programs off the devices that a daemon guarded and left guarded.
#pragma once

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "lib/base/result.h"
#include "tools/run_dir.h"

namespace esplane::tools {

struct released_device {
    guarded_device what;
    std::vector<std::string> removed; ///< "XDP program", "egress program", "clsact qdisc"
    bool gone = false;                ///< there is no such device any more
    std::string failure;              ///< empty: it is as it was before esplane
};

/// Releases every device that `run_dir` records and forgets those that are free; first of all the
/// rules and routes that lead into them, of which each table is in the list as if it were one.
/// Errors: EBUSY where a daemon runs there; ENOENT without such a directory; EINVAL, a broken list.
[[nodiscard]] result<std::vector<released_device>> release_devices(const std::string& run_dir);

[[nodiscard]] nlohmann::json report_release(const std::vector<released_device>& devices);
[[nodiscard]] std::string text_of_release(const std::vector<released_device>& devices);

} // namespace esplane::tools
