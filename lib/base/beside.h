// SPDX-License-Identifier: Apache-2.0
//
// Several pieces of work that each wait for the kernel, at the same time.
#pragma once

#include <memory>
#include <pthread.h>
#include <vector>

namespace esplane {

/// Joins its threads when it ends.  Not std::thread: that says by an exception that there is none,
/// and most rooms have no exceptions.
class beside {
  public:
    beside() = default;
    ~beside() {
        for (const pthread_t t : threads_)
            ::pthread_join(t, nullptr);
    }
    beside(const beside&) = delete;
    beside& operator=(const beside&) = delete;

    /// `work` does not throw.  It runs here and now where no thread can be had.
    template <typename Work>
    void run(Work work) {
        auto theirs = std::make_unique<Work>(work);
        pthread_t thread;
        if (::pthread_create(&thread, nullptr, start<Work>, theirs.get()) != 0) return work();
        (void)theirs.release();
        threads_.push_back(thread);
    }

  private:
    template <typename Work>
    static void* start(void* work) {
        const std::unique_ptr<Work> mine(static_cast<Work*>(work));
        (*mine)();
        return nullptr;
    }

    std::vector<pthread_t> threads_;
};

} // namespace esplane
