// SPDX-License-Identifier: Apache-2.0
//
// Answers the system calls that the filter of supervised clients reports.
//
// The client holds one end of a data socket (xfrm/shim_protocol.h); the supervisor borrows it for
// each call (pidfd_getfd), knows by its inode what stands for it, and holds no copy: when the
// client's last one is closed, the socket hangs up.
//
// What a call means is read from the client's memory once, into a buffer, and judged there: the
// client can change its memory, but not what was read.
//
// Threads: one for each call that is under way, up to a limit; a call that waits keeps its own.
#pragma once

#include <linux/seccomp.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <unordered_map>

#include "lib/base/unique_fd.h"

struct shim_socket;

namespace esplane::tools {

class client_memory;

class supervisor {
  public:
    explicit supervisor(unique_fd listener)
        : listener_(std::move(listener)) {}

    /// Starts to answer.
    void start();
    [[nodiscard]] int listener() const noexcept { return listener_.get(); }
    /// Lets go of sockets that no client holds any more.
    void sweep();

    /// A data socket that clients hold.
    struct connection {
        explicit connection(shim_socket* socket)
            : stands_for(socket) {}
        ~connection();
        connection(const connection&) = delete;
        connection& operator=(const connection&) = delete;
        shim_socket* stands_for;
    };

  private:
    /// What is said to the client: a value, or minus an errno.  nullopt: it was said already.
    using answer = std::optional<std::int64_t>;
    struct call;
    struct destination;

    void serve();
    void sweep_held();
    void spawn();
    void handle(const seccomp_notif& n);
    [[nodiscard]] answer answer_to(const call& c);
    [[nodiscard]] answer open_socket(const call& c);
    [[nodiscard]] answer inject(const call& c, int fd, bool close_on_exec);
    [[nodiscard]] answer option_of_ike(const call& c);
    [[nodiscard]] answer bind_other(const call& c);
    [[nodiscard]] answer on_connection(const call& c, connection& with, int fd);
    [[nodiscard]] answer send(const call& c, connection& with, int fd);
    [[nodiscard]] answer receive(const call& c, connection& with, int fd);
    [[nodiscard]] answer receive_one(const call& c, connection& with, int fd,
                                     const destination& to);
    [[nodiscard]] answer wait_for_datagram(const call& c, int fd, int longest_ms) const;
    [[nodiscard]] static bool read_destination(const seccomp_data& d, const client_memory& memory,
                                               unsigned index, destination& to);
    [[nodiscard]] static bool give_name(const client_memory& memory, const destination& to);
    [[nodiscard]] static std::int64_t deliver(const client_memory& memory, const destination& to,
                                              std::span<const std::uint8_t> datagram);
    [[nodiscard]] std::shared_ptr<connection> find(int fd);
    bool respond(const call& c, std::int64_t value) const;
    [[nodiscard]] bool is_valid(const call& c) const;

    unique_fd listener_;
    std::mutex mutex_; ///< of what follows
    std::unordered_map<ino_t, std::shared_ptr<connection>> connections_;
    static constexpr std::size_t fewest_to_sweep = 32;
    std::size_t sweep_at_ = fewest_to_sweep; ///< so many that some may have ended

    std::mutex injecting_; ///< a free number is taken once
    std::atomic<int> idle_ = 0;
    std::atomic<int> threads_ = 0;
};

} // namespace esplane::tools
