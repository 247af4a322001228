// SPDX-License-Identifier: Apache-2.0
//
// Small things around libbpf: descriptors that close themselves, errors as results.
#pragma once

#include <cstring>
#include <string>
#include <utility>

#include <unistd.h>

#include "lib/base/result.h"

namespace esplane::fastpath {

/// Owns a file descriptor.
class unique_fd {
  public:
    unique_fd() = default;
    explicit unique_fd(int fd) noexcept
        : fd_(fd) {}
    unique_fd(unique_fd&& other) noexcept
        : fd_(std::exchange(other.fd_, -1)) {}
    unique_fd& operator=(unique_fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    unique_fd(const unique_fd&) = delete;
    unique_fd& operator=(const unique_fd&) = delete;
    ~unique_fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    [[nodiscard]] int get() const noexcept { return fd_; }
    [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }

  private:
    int fd_ = -1;
};

/// Makes an options struct of libbpf all zero and sets its size.  libbpf looks at the padding too,
/// which a copy need not keep: clear in place, and do not return one by value.
template <typename Options>
void clear(Options& o) noexcept {
    std::memset(&o, 0, sizeof o);
    o.sz = sizeof o;
}

/// libbpf and libxdp write to stderr by themselves; this stops it for the whole process.
void silence_bpf_libraries() noexcept;

/// The failed side of a result from a libbpf return value (-errno), as "what: strerror".
[[nodiscard]] tl::unexpected<error> fail_bpf(int code, const std::string& what);

} // namespace esplane::fastpath
