// SPDX-License-Identifier: Apache-2.0
//
// Several pieces of work that each wait for the kernel, at the same time.
#pragma once

#include <system_error>
#include <thread>
#include <vector>

namespace esplane {

/// Joins its threads when it ends.
class beside {
  public:
    beside() = default;
    ~beside() {
        for (std::thread& t : threads_)
            t.join();
    }
    beside(const beside&) = delete;
    beside& operator=(const beside&) = delete;

    /// `work` does not throw.  It runs here and now where no thread can be had.
    template <typename Work>
    void run(Work work) {
        try {
            threads_.emplace_back(work);
        } catch (const std::system_error&) {
            work();
        }
    }

  private:
    std::vector<std::thread> threads_;
};

} // namespace esplane
