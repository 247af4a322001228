// SPDX-License-Identifier: Apache-2.0
//
// The control socket: `esplane` asks, `esplaned` answers, one JSON object each way.
//
// AF_UNIX SOCK_SEQPACKET: a request is one packet of at most 4 KiB, so is its reply; what is
// longer comes in pages, asked for one by one ("cursor", "next").  A connection that asks for a
// stream is given away to who sends it (tools/trace.h).  No client delays another: a
// reply that does not fit in the client's socket buffer ends the connection.  Root and the
// daemon's own user are let in.
#pragma once

#include <functional>
#include <list>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "lib/base/acceptor.h"
#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::tools {

inline constexpr std::size_t control_request_limit = 4096;
inline constexpr std::size_t control_client_limit = 16;

/// Listens on `path` (mode 0600) in place of whatever socket is there.
/// Errors: ENAMETOOLONG; what socket, bind and listen give.
[[nodiscard]] result<unique_fd> listen_on(const std::string& path);
/// Errors: what socket and connect give (ENOENT, ECONNREFUSED: nobody there).
[[nodiscard]] result<unique_fd> connect_to(const std::string& path);

class control_server {
  public:
    /// Makes the reply to a request, which is an object.
    using handler = std::function<nlohmann::json(const nlohmann::json& request)>;

    [[nodiscard]] static result<std::unique_ptr<control_server>> open(const std::string& path,
                                                                      handler h);
    ~control_server();
    control_server(const control_server&) = delete;
    control_server& operator=(const control_server&) = delete;

    /// Is offered each request first; true: it has taken the connection, and answers on it.
    using taker = std::function<bool(const nlohmann::json& request, unique_fd& connection)>;
    void set_taker(taker t) { taker_ = std::move(t); }

    /// Readable when serve() has something to do.
    [[nodiscard]] int descriptor() const noexcept { return poller_.get(); }
    /// Answers what has arrived; never blocks.
    void serve();

  private:
    control_server(std::string path, unique_fd listener, unique_fd poller, handler h);
    void accept_client();
    void serve_client(int fd);
    [[nodiscard]] bool give_away(const nlohmann::json& request, int fd);

    std::string path_;
    unique_fd listener_;
    unique_fd poller_;
    handler handler_;
    taker taker_;
    acceptor acceptor_;
    std::list<unique_fd> clients_; ///< the longest connected first
};

/// One connection to a daemon.
class control_client {
  public:
    /// Errors: ECONNREFUSED with a line that says how to start a daemon; EACCES.
    [[nodiscard]] static result<control_client> connect(const std::string& run_dir);

    /// Sends a request and waits for its reply, at most 10 s.
    /// Errors: EPROTO; ETIMEDOUT; the daemon's own line.
    [[nodiscard]] result<nlohmann::json> ask(const nlohmann::json& request);
    /// Asks page by page and joins the arrays that stand under `key`.
    [[nodiscard]] result<nlohmann::json> ask_all(const std::string& command,
                                                 const std::string& key);
    /// After a request for a stream: its next packet, as it came; waits for it, or until `reader`
    /// has nobody behind it (a pipe that was closed), then "".  Errors: EPIPE where the daemon
    /// ended.
    [[nodiscard]] result<std::string> next(int reader);

  private:
    explicit control_client(unique_fd fd) noexcept
        : fd_(std::move(fd)) {}
    [[nodiscard]] result<std::string> receive();
    unique_fd fd_;
};

} // namespace esplane::tools
