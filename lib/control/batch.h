// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "lib/control/backend.h"

namespace esplane::control {

/// Lets a backend make the deletions of a scope good together, at its end.
class batch {
  public:
    explicit batch(backend& b)
        : backend_(b) {
        backend_.begin_batch();
    }
    ~batch() { backend_.end_batch(); }
    batch(const batch&) = delete;
    batch& operator=(const batch&) = delete;

  private:
    backend& backend_;
};

} // namespace esplane::control
