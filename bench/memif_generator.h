// SPDX-License-Identifier: Apache-2.0
//
// The other end of a memif, in a process of its own: sends one frame over and over, and counts what
// comes back.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <sys/types.h>
#include <vector>

#include "lib/base/result.h"

namespace esplane::bench {

class memif_generator {
  public:
    /// Forks it.  Before EAL runs in this process: each has its own.  cpu   to pin it to
    [[nodiscard]] static result<std::unique_ptr<memif_generator>> start(unsigned cpu);
    /// Ends it.
    ~memif_generator();
    memif_generator(const memif_generator&) = delete;
    memif_generator& operator=(const memif_generator&) = delete;

    /// That it listens on, in a directory that goes with it.
    [[nodiscard]] std::string socket() const { return directory_ + "/memif"; }

    /// Sends this frame from now on, as fast as it can; none: nothing.
    void send(const std::vector<std::uint8_t>& frame) noexcept;
    /// Frames that have come back.
    [[nodiscard]] std::uint64_t received() const noexcept;

  private:
    static constexpr std::size_t longest_frame = 2000;
    /// What both processes see.
    struct shared_state {
        std::atomic<bool> listening{false}, quit{false};
        std::atomic<std::uint32_t> generation{0}; ///< of the frame
        std::uint32_t length = 0;
        std::uint8_t frame[longest_frame];
        std::atomic<std::uint64_t> received{0};
    };
    memif_generator() = default;
    void run(unsigned cpu) noexcept;

    std::string directory_;
    shared_state* shared_ = nullptr;
    pid_t process_ = -1;
};

} // namespace esplane::bench
