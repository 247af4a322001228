// SPDX-License-Identifier: Apache-2.0
//
// While one lives, this process gets no new file descriptor.
#pragma once

#include <fcntl.h>
#include <sys/resource.h>

#include "lib/base/unique_fd.h"

namespace esplane {

class no_descriptors {
  public:
    no_descriptors() {
        ::getrlimit(RLIMIT_NOFILE, &before_);
        const unique_fd lowest_free(::open("/dev/null", O_RDONLY | O_CLOEXEC));
        const rlimit used{static_cast<rlim_t>(lowest_free.get()), before_.rlim_max};
        ::setrlimit(RLIMIT_NOFILE, &used);
    }
    ~no_descriptors() { ::setrlimit(RLIMIT_NOFILE, &before_); }
    no_descriptors(const no_descriptors&) = delete;
    no_descriptors& operator=(const no_descriptors&) = delete;

  private:
    rlimit before_{};
};

} // namespace esplane
