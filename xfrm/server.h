// SPDX-License-Identifier: Apache-2.0
//
// The XFRM server: NETLINK_XFRM spoken over AF_UNIX SOCK_SEQPACKET with clients under the shim.
//
// Everything waits on one epoll descriptor.  No client delays another: what a client cannot take at
// once is kept, bounded, until it can; while something is kept nothing more is read from it.  Dumps
// go on when the client reads.  An event for a client whose socket is full is lost, as with the
// kernel, and counted.
//
// Who may connect: the server's own effective user and root (SO_PEERCRED); the socket is made with
// mode 0600.
//
// Threads: all calls from the control thread.  Does not: block, log.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "lib/base/clock.h"
#include "lib/base/result.h"
#include "lib/control/layer.h"
#include "xfrm/proc.h"
#include "xfrm/traced.h"

namespace esplane::xfrm {

struct server_counters {
    std::uint64_t clients = 0;        ///< connected now
    std::uint64_t requests = 0;       ///< netlink datagrams taken
    std::uint64_t events_lost = 0;    ///< for clients that do not read
    std::uint64_t replies_lost = 0;   ///< too many for one client, or later than its deadline
    std::uint64_t refused_peers = 0;  ///< neither our user nor root
    std::uint64_t broken_clients = 0; ///< disconnected for not speaking the shim's protocol
};

class server {
  public:
    /// Reads both clocks: an answer that took too long must not be sent.
    using clock_source = std::function<moment()>;

    /// Listens at `path`, replacing a socket there that nobody serves.  `l` outlives the server.
    ///
    /// Errors: EADDRINUSE where somebody serves that path; those of socket, bind, listen, epoll.
    [[nodiscard]] static result<std::unique_ptr<server>> open(control::layer& l, std::string path,
                                                              clock_source clock);
    /// Disconnects all clients and removes the socket.
    ~server();
    server(const server&) = delete;
    server& operator=(const server&) = delete;

    /// What clients are to mark (SO_MARK) the packets of a socket with that is to bypass IPsec; 0,
    /// at first: nothing.
    void set_exempt_mark(std::uint32_t mark) noexcept;

    /// See dispatcher::set_strict().
    void set_strict(bool strict) noexcept;
    /// What clients read and write as files; outlives the server.  Without it there are none.
    void set_files(proc_files& files) noexcept;

    /// Who is shown every message to and from every client, events even where no client hears them;
    /// nullptr, as at first: nobody, at no cost.
    void set_tap(tap t) noexcept;

    /// Readable when serve() has something to do.
    [[nodiscard]] int descriptor() const noexcept;
    /// Does what is due without blocking; call it again while descriptor() is readable.
    void serve();
    [[nodiscard]] const server_counters& counters() const noexcept;

  private:
    struct state;
    explicit server(std::unique_ptr<state> s);
    std::unique_ptr<state> state_;
};

} // namespace esplane::xfrm
