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
#include <vector>

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

    unique_fd fd_;
    int ifindex_;
};

/// One TUN device with a queue for each worker.  Packets have an offload header (offload.h) in
/// front, and TCP and UDP pass in super-packets of up to 64 KiB where the kernel knows how.  It is
/// as persistent.
class tun_queues {
  public:
    struct offloads {
        bool tcp = true;
        bool udp = true; ///< takes Linux 6.2
    };

    /// Takes the device of that name as it is; where there is none makes it and sets it up.
    ///
    /// mtu     of one that is made
    /// wanted  queues, at least 1; a device that somebody made without `multi_queue` has one
    /// Errors: EINVAL for what is no name; EEXIST where a device of that name is no TUN; EBUSY
    /// where another process has it; ENOENT without /dev/net/tun; EPERM.
    [[nodiscard]] static result<tun_queues> open(const std::string& name, std::uint32_t mtu,
                                                 unsigned wanted);
    /// Over descriptors that are read and written as queues: datagram sockets, for tests.
    [[nodiscard]] static tun_queues over(std::vector<unique_fd> queues, offloads can);

    [[nodiscard]] std::size_t size() const noexcept { return queues_.size(); }
    /// Does not block.
    [[nodiscard]] int descriptor(std::size_t queue) const noexcept { return queues_[queue].get(); }
    [[nodiscard]] int ifindex() const noexcept { return ifindex_; }
    [[nodiscard]] offloads passes() const noexcept { return passes_; }

    /// Another device of as many queues takes the place of this one, under the same descriptors.
    /// Others may be reading and writing meanwhile.  Errors: EBUSY where it has fewer.
    [[nodiscard]] result<void> replace_by(tun_queues fresh);
    /// It does not outlive its descriptors from now on.
    void forsake() noexcept;

  private:
    tun_queues(std::vector<unique_fd> queues, int ifindex, offloads passes)
        : queues_(std::move(queues))
        , ifindex_(ifindex)
        , passes_(passes) {}

    std::vector<unique_fd> queues_;
    int ifindex_;
    offloads passes_;
};

/// Errors: EINVAL for what the kernel does not take; ENODEV.
[[nodiscard]] result<void> set_tun_mtu(int ifindex, std::uint32_t mtu);

/// What an administrator may have changed since; nothing where the device is gone.
struct tun_state {
    std::string name;
    std::uint32_t mtu = 0;
    bool up = false;
};
[[nodiscard]] std::optional<tun_state> state_of_tun(int ifindex);

} // namespace esplane::fastpath
