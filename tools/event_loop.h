// SPDX-License-Identifier: Apache-2.0
//
// Waits for descriptors and calls whoever is responsible.
// Threads: one.
#pragma once

#include <array>
#include <functional>
#include <sys/epoll.h>
#include <utility>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::tools {

class event_loop {
  public:
    event_loop()
        : poller_(::epoll_create1(EPOLL_CLOEXEC)) {}

    [[nodiscard]] result<void> watch(int fd, std::function<void()> ready) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = ready_.size();
        if (::epoll_ctl(poller_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail_errno("epoll");
        ready_.push_back(std::move(ready));
        return {};
    }
    /// timeout_ms   -1 = for ever
    void turn(int timeout_ms) {
        std::array<epoll_event, 8> events{};
        const int n =
            ::epoll_wait(poller_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
        for (int i = 0; i < n; ++i)
            ready_[events[i].data.u64]();
    }

  private:
    unique_fd poller_;
    std::vector<std::function<void()>> ready_;
};

} // namespace esplane::tools
