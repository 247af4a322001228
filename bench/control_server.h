// SPDX-License-Identifier: Apache-2.0
//
// The XFRM server of a gateway in this process, on a thread of its own as in the daemon, and a
// client that speaks to its socket without the shim: many messages a datagram.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

#include "lib/base/unique_fd.h"
#include "tests/support/lab.h"
#include "tools/scratch_directory.h"
#include "xfrm/message.h"
#include "xfrm/server.h"

namespace esplane::bench {

/// Serves a lab's control layer, which is its thread's until it ends.
class served_lab {
  public:
    /// cpu   to run on; -1: any.  Ends the program where it cannot listen.
    explicit served_lab(tests::lab& l, int cpu = -1);
    ~served_lab();
    served_lab(const served_lab&) = delete;
    served_lab& operator=(const served_lab&) = delete;

    [[nodiscard]] std::string socket() const { return directory_.path() + "/xfrm"; }

  private:
    void serve();

    tests::lab& lab_;
    int cpu_;
    tools::scratch_directory directory_;
    std::unique_ptr<xfrm::server> server_;
    std::atomic<bool> stopping_{false};
    std::thread thread_;
};

/// Sends batches of requests and counts their answers.  A call that cannot go on ends the program.
class raw_client {
  public:
    explicit raw_client(const std::string& socket);

    /// Adds an SA, or a policy, to the batch; a full batch is sent.
    void add(const ipsec::sa& s);
    void add(const ipsec::policy& p);
    void remove(const ipsec::sa_id& id);
    /// Sends what there is and waits until everything is answered.
    void finish();
    /// One message by itself; waits until it is done.
    void call(const xfrm::datagram& m);
    /// Requests that were answered with an error.
    [[nodiscard]] std::uint64_t errors() const noexcept { return errors_; }

    /// Sends a datagram as it is.
    void send(const xfrm::datagram& messages);
    /// The next datagram from the server.
    [[nodiscard]] xfrm::bytes receive();

  private:
    template <typename Body>
    void put(std::uint16_t type, Body&& body);
    void attach();
    void flush();
    void take_answer();
    void note(int error);

    unique_fd socket_;
    unique_fd side_;
    std::uint32_t channel_ = 0;
    xfrm::datagram batch_;
    std::size_t last_ = 0; ///< where the last message of the batch starts
    unsigned under_way_ = 0;
    std::uint64_t errors_ = 0;
    std::vector<std::uint8_t> buffer_;
};

/// One message of a request.
[[nodiscard]] xfrm::datagram dump_of(std::uint16_t type);
[[nodiscard]] xfrm::datagram flush_of(std::uint16_t type);

} // namespace esplane::bench
