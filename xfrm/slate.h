// SPDX-License-Identifier: Apache-2.0
//
// The server's side of a slate: memory that one client process writes its requests into and reads
// the answers from (shim_protocol.h).
//
// The client can change what is there at any time: everything is copied out before it is judged,
// and no length is believed.
//
// Threads: the control thread; the client's process beside it.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "lib/base/unique_fd.h"
#include "xfrm/message.h"
#include "xfrm/shim_protocol.h"

namespace esplane::xfrm {

class slate {
  public:
    slate() = default;
    /// Not valid where `memory` is not a slate's: of another size, or not sealed.
    explicit slate(const unique_fd& memory);
    slate(slate&& other) noexcept
        : page_(std::exchange(other.page_, nullptr)) {}
    slate& operator=(slate&& other) noexcept {
        std::swap(page_, other.page_);
        return *this;
    }
    slate(const slate&) = delete;
    slate& operator=(const slate&) = delete;
    ~slate();

    [[nodiscard]] bool valid() const noexcept { return page_ != nullptr; }

    /// From now on the client needs not ring; with false it does.  After that take() must be called
    /// once more: what was asked a moment before was not rung for.
    void stay_awake(bool awake) noexcept;

    struct request {
        shim_header header;
        std::size_t length; ///< of what was copied
        bool takes_reply;   ///< see shim_slate::takes
    };
    /// The request, where there is one, copied to `into` and wiped from the slate.  It must be
    /// answered.  `into` has room for SHIM_SLATE_ROOM bytes.
    [[nodiscard]] bool take(request& r, std::span<std::uint8_t> into) noexcept;

    /// Answers; `reply` is empty, or no longer than SHIM_SLATE_ROOM.  Returns whether the client is
    /// to be told, since it sleeps.
    [[nodiscard]] bool answer(const shim_answer& a, bytes reply) noexcept;

  private:
    shim_slate* page_ = nullptr;
};

} // namespace esplane::xfrm
