// SPDX-License-Identifier: Apache-2.0
//
// A directory for one test, removed with all that is in it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace esplane::tools {

class temporary_directory {
  public:
    temporary_directory()
        : path_((std::filesystem::temp_directory_path() / "esplane-XXXXXX")) {
        if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
    }
    ~temporary_directory() {
        std::error_code code;
        std::filesystem::remove_all(path_, code);
    }
    temporary_directory(const temporary_directory&) = delete;
    temporary_directory& operator=(const temporary_directory&) = delete;

    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    std::string write(const std::string& name, const std::string& text) const {
        const std::string path = path_ + "/" + name;
        std::ofstream(path) << text;
        return path;
    }

  private:
    std::string path_;
};

} // namespace esplane::tools
