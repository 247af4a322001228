// SPDX-License-Identifier: Apache-2.0
//
// Another process's memory and descriptors.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "lib/base/unique_fd.h"

namespace esplane::tools {

class client_memory {
  public:
    explicit client_memory(pid_t thread)
        : thread_(thread) {}

    /// False where any of it is not the client's to read, or to write.
    [[nodiscard]] bool read(std::uint64_t at, void* into, std::size_t length) const;
    [[nodiscard]] bool write(std::uint64_t at, const void* from, std::size_t length) const;

    template <typename T>
    [[nodiscard]] bool read(std::uint64_t at, T& into) const {
        return read(at, &into, sizeof into);
    }
    template <typename T>
    [[nodiscard]] bool write(std::uint64_t at, const T& from) const {
        return write(at, &from, sizeof from);
    }

    /// An array of pieces.  False, too, where there are more than IOV_MAX.
    [[nodiscard]] bool read_pieces(std::uint64_t at, std::uint64_t count,
                                   std::vector<iovec>& pieces) const;
    /// What the pieces hold, one after the other: `into` must have their length.
    [[nodiscard]] bool gather(const std::vector<iovec>& pieces, std::span<std::uint8_t> into) const;
    /// As much of `from` as the pieces have room for.
    [[nodiscard]] bool scatter(const std::vector<iovec>& pieces,
                               std::span<const std::uint8_t> from) const;

    /// A copy of a descriptor; invalid where there is none, or the client may not be traced.
    [[nodiscard]] unique_fd borrow(int fd) const;
    [[nodiscard]] bool has_descriptor(int fd) const;
    [[nodiscard]] pid_t process() const;
    /// Its effective user; nullopt where it is gone.
    [[nodiscard]] std::optional<uid_t> user() const;
    /// It may set what needs CAP_NET_ADMIN, in our user namespace.
    [[nodiscard]] bool is_net_admin() const;
    /// A signal waits that the client would be interrupted by.
    [[nodiscard]] bool has_signal() const;

  private:
    pid_t thread_;
};

[[nodiscard]] std::size_t length_of(const std::vector<iovec>& pieces) noexcept;

} // namespace esplane::tools
