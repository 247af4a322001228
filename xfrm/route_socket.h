// SPDX-License-Identifier: Apache-2.0
//
// An rtnetlink socket for a million messages: they are looked at where they were received, none is
// copied or allocated (libnl's receive does both for each).
//
// Threads: one.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <linux/netlink.h>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::xfrm {

class route_socket {
  public:
    /// receive_bytes   what the kernel may queue.  Errors: those of socket(2) and
    /// bind(2).
    [[nodiscard]] static result<route_socket> open(int receive_bytes);

    /// Multicast from now on.  groups   RTNLGRP_*.
    [[nodiscard]] result<void> follow(std::span<const unsigned> groups);

    /// Sends one message: `header` is what comes behind nlmsghdr, attributes included.
    [[nodiscard]] result<void> send(int type, unsigned flags, std::span<const std::byte> body);
    template <typename Body>
    [[nodiscard]] result<void> send(int type, unsigned flags, const Body& body) {
        return send(type, flags, std::as_bytes(std::span(&body, 1)));
    }

    /// One datagram; empty where nothing is there (never, with `wait`).  Valid until the next call.
    ///
    /// Errors: ENOBUFS where the kernel has dropped some; those of recv(2).
    [[nodiscard]] result<std::span<const std::byte>> receive(bool wait);

    [[nodiscard]] int descriptor() const noexcept { return fd_.get(); }
    /// Of the last send(): answers carry it.
    [[nodiscard]] std::uint32_t sequence() const noexcept { return sequence_; }

  private:
    static constexpr std::size_t datagram_bytes = 128 << 10; ///< dumps come in up to 32 KiB

    struct alignas(nlmsghdr) datagram {
        std::array<std::byte, datagram_bytes> bytes;
    };

    explicit route_socket(unique_fd fd);

    unique_fd fd_;
    std::uint32_t sequence_ = 0;
    std::unique_ptr<datagram> datagram_;
};

/// Calls take(const nlmsghdr&) for each whole message.
template <typename Take>
void for_each_message(std::span<const std::byte> bytes, Take take) {
    while (bytes.size() >= sizeof(nlmsghdr)) {
        const auto& m = *reinterpret_cast<const nlmsghdr*>(bytes.data());
        if (m.nlmsg_len < sizeof m || m.nlmsg_len > bytes.size()) return;
        take(m);
        bytes = bytes.subspan(std::min<std::size_t>(NLMSG_ALIGN(m.nlmsg_len), bytes.size()));
    }
}

} // namespace esplane::xfrm
