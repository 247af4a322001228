// SPDX-License-Identifier: Apache-2.0
//
// A TAP: the kernel twin of a port whose device the kernel does not see.
//
// Addresses, routes and neighbours of the port are the TAP's.  What is written is received by the
// machine's own stack; what that sends is read.  One that is kept outlives the process, with its
// addresses and routes, and the kernel drops what is sent into it meanwhile; the next process takes
// it as it is.
// Threads: read and write by the worker of the lane; the rest by control.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

class tap {
  public:
    /// Makes it, or takes the one that is there: existed() says which.  It has one queue.
    ///
    /// Errors: ENAMETOOLONG, ENOENT without /dev/net/tun, EPERM, EBUSY where another process has
    /// it, EEXIST where a device of that name is no TAP.
    [[nodiscard]] static result<tap> open(const std::string& name);
    /// Takes a kept one away.  Errors: as open().
    [[nodiscard]] static result<void> remove(const std::string& name);

    [[nodiscard]] bool existed() const noexcept { return existed_; }
    /// From now on it stays when the process ends.
    void keep() noexcept;
    /// Sets it up for a device.  lanes   queues
    /// Errors: EINVAL for several of a TAP made without `multi_queue`; what the kernel says.
    [[nodiscard]] result<void> serve(const wire::mac_address& mac, std::uint32_t mtu,
                                     unsigned lanes);

    /// One frame that the machine's stack sends; its length, or 0 where none waits.
    [[nodiscard]] std::size_t read(unsigned lane, std::span<std::uint8_t> into) noexcept;
    /// One frame for the machine's stack.  False where it does not take it.
    [[nodiscard]] bool write(unsigned lane, std::span<const std::uint8_t> frame) noexcept;

    [[nodiscard]] int ifindex() const noexcept { return ifindex_; }

    // What an administrator may have changed since; nothing where the TAP is gone.
    [[nodiscard]] std::optional<std::uint32_t> mtu() const;
    [[nodiscard]] std::optional<wire::mac_address> mac() const;
    [[nodiscard]] result<void> set_mtu(std::uint32_t mtu);
    /// Whether the device behind has a link, for the kernel's eyes.
    void set_carrier(bool on);

  private:
    tap() = default;
    [[nodiscard]] result<void> attach();
    [[nodiscard]] result<void> set_mac(const wire::mac_address& mac);
    [[nodiscard]] result<void> set_up();

    std::string name_;
    int ifindex_ = 0;
    bool existed_ = false;
    bool multi_queue_ = true;
    unique_fd control_; ///< a socket for ioctl
    std::vector<unique_fd> queues_;
};

} // namespace esplane::fastpath
