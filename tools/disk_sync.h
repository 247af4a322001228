// SPDX-License-Identifier: Apache-2.0
//
// Waits until what was written to a file lies on its disk, in a thread of its own.
//
// Nobody waits for that thread: a disk that hangs holds up it alone, for as long as it likes.  It
// owns all that it needs, so what asked for it may go meanwhile.
// Threads: control.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>

#include "lib/base/result.h"

namespace esplane::tools {

/// As fdatasync().
using sync_function = std::function<int(int fd)>;

class disk_sync {
  public:
    /// file   the thread has a descriptor of its own
    /// Errors: EMFILE; EAGAIN where there are too many threads.
    [[nodiscard]] static result<disk_sync> begin(int file, sync_function sync);

    /// What came of it: an errno, or 0.  nullopt: the disk has not answered.
    [[nodiscard]] std::optional<int> outcome() const noexcept {
        const int code = outcome_->load(std::memory_order_acquire);
        return code < 0 ? std::nullopt : std::optional(code);
    }

  private:
    static constexpr int pending = -1;
    using shared_outcome = std::shared_ptr<std::atomic<int>>;

    explicit disk_sync(shared_outcome outcome) noexcept
        : outcome_(std::move(outcome)) {}

    shared_outcome outcome_; ///< the thread writes it once
};

} // namespace esplane::tools
