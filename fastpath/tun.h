// SPDX-License-Identifier: Apache-2.0
//
// A TUN device: an interface of the kernel whose packets a process reads and writes.
//
// It is persistent: without its process it stays, up, with its addresses and routes, and the kernel
// drops what is sent into it.  Routes that lead into a tunnel must not fall back on others, in
// clear, because a daemon died.
// Threads: the descriptor is whose turn it is; the rest is control's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

class tun {
  public:
    static constexpr std::uint32_t smallest_mtu = 68;

    /// Makes it and sets it up.
    ///
    /// Errors: EINVAL for what is no name; EEXIST where there is a device of that name; ENOENT
    /// without /dev/net/tun; EPERM.
    [[nodiscard]] static result<tun> make(const std::string& name, std::uint32_t mtu);
    /// Takes the one that an earlier process made.
    ///
    /// Errors: ENODEV where it is gone; EBUSY where another process has it; EINVAL where the device
    /// of that number is no TUN.
    [[nodiscard]] static result<tun> adopt(int ifindex);
    /// Over a descriptor that is read and written as one: a datagram socket, for tests.
    [[nodiscard]] static tun over(unique_fd fd) { return {std::move(fd), 0}; }
    /// Takes it away for good.  Errors: as adopt().
    [[nodiscard]] static result<void> remove(int ifindex);

    /// Of IP packets, without a header in front; does not block.
    [[nodiscard]] int descriptor() const noexcept { return fd_.get(); }
    [[nodiscard]] int ifindex() const noexcept { return ifindex_; }

    /// It does not outlive its descriptor from now on.
    void forsake() noexcept;

  private:
    tun(unique_fd fd, int ifindex)
        : fd_(std::move(fd))
        , ifindex_(ifindex) {}
    [[nodiscard]] static result<unique_fd> attach(const std::string& name);

    unique_fd fd_;
    int ifindex_;
};

/// What an administrator may have changed since; nothing where the device is gone.
struct tun_state {
    std::string name;
    std::uint32_t mtu = 0;
    bool up = false;
};
[[nodiscard]] std::optional<tun_state> state_of_tun(int ifindex);

} // namespace esplane::fastpath
