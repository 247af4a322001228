// SPDX-License-Identifier: Apache-2.0
//
// A directory for one test, removed with all that is in it.
#pragma once

#include <fstream>
#include <string>

#include "tools/scratch_directory.h"

namespace esplane::tools {

class temporary_directory {
  public:
    [[nodiscard]] const std::string& path() const noexcept { return directory_.path(); }
    /// Returns the path of the file.
    std::string write(const std::string& name, const std::string& text) const {
        std::string path = directory_.path() + "/" + name;
        std::ofstream(path) << text;
        return path;
    }

  private:
    scratch_directory directory_ = scratch_directory::make().value();
};

} // namespace esplane::tools
