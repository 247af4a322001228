// SPDX-License-Identifier: Apache-2.0
//
// A directory for the owner alone that is there as long as this is.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "lib/base/result.h"

namespace esplane::tools {

class scratch_directory {
  public:
    /// Errors: what mkdtemp gives.
    [[nodiscard]] static result<scratch_directory> make() {
        std::string path = std::filesystem::temp_directory_path() / "esplane-XXXXXX";
        if (::mkdtemp(path.data()) == nullptr) return fail_errno(path);
        return scratch_directory(std::move(path));
    }
    scratch_directory(scratch_directory&& other) noexcept
        : path_(std::exchange(other.path_, {})) {}
    scratch_directory& operator=(scratch_directory&&) = delete;
    ~scratch_directory() {
        std::error_code code;
        if (!path_.empty()) std::filesystem::remove_all(path_, code);
    }

    [[nodiscard]] const std::string& path() const noexcept { return path_; }

  private:
    explicit scratch_directory(std::string path)
        : path_(std::move(path)) {}

    std::string path_;
};

} // namespace esplane::tools
