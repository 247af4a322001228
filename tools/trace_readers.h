// SPDX-License-Identifier: Apache-2.0
//
// Who reads a stream of messages over the control socket (`esplane trace`, `esplane monitor`): one
// JSON object a packet, to all alike.
//
// Nothing waits for a reader.  What one does not take is lost to it, counted, and said as soon as
// it takes something again: {"lost": N}.
//
// Threads: the control thread.  Does not: block.
#pragma once

#include <cstdint>
#include <list>
#include <string>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::tools {

class trace_readers {
  public:
    [[nodiscard]] static result<trace_readers> open();

    /// `connection` is a connected SOCK_SEQPACKET.  Not while full().
    void add(unique_fd connection);
    [[nodiscard]] bool full() const noexcept { return readers_.size() == most; }
    [[nodiscard]] bool empty() const noexcept { return readers_.empty(); }

    /// Somebody would take a message now: else it need not be made, but missed().
    [[nodiscard]] bool listening() const noexcept;
    void send(const std::string& message);
    /// As many messages were not made.
    void missed(std::uint64_t messages) noexcept;

    /// Readable when serve() has something to do.
    [[nodiscard]] int descriptor() const noexcept { return poller_.get(); }
    /// Lets go of those who are gone; tells the others what they have lost.
    void serve();

    static constexpr std::size_t most = 8;

  private:
    struct reader {
        unique_fd socket;
        std::uint64_t lost = 0; ///< since it has taken something; not 0: its socket is full
    };

    explicit trace_readers(unique_fd poller)
        : poller_(std::move(poller)) {}
    void watch(reader& r, int operation, std::uint32_t events);
    void lose(reader& r);
    void tell_lost(reader& r);

    unique_fd poller_;
    std::list<reader> readers_;
};

} // namespace esplane::tools
