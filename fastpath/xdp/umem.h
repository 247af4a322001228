// SPDX-License-Identifier: Apache-2.0
//
// A buffer pool registered with the kernel as the memory of AF_XDP sockets.
//
// All ports of a worker share it, so a frame goes from one to another without a copy.  The first
// socket carries the registration: ports of one umem live together, and end before it and its pool.
// Threads: control; the pool behind it is the worker's.
#pragma once

#include <memory>

#include "fastpath/buffer_pool.h"
#include "lib/base/result.h"

struct xsk_umem;

namespace esplane::fastpath {

class umem {
  public:
    /// Errors: EPERM, ENOBUFS or ENOMEM where the memory cannot be pinned.
    [[nodiscard]] static result<std::unique_ptr<umem>> make(buffer_pool& pool);
    ~umem();
    umem(const umem&) = delete;
    umem& operator=(const umem&) = delete;

    [[nodiscard]] buffer_pool& pool() const noexcept { return pool_; }
    [[nodiscard]] xsk_umem* handle() const noexcept { return handle_; }

    /// Entries of each fill, completion, rx and tx ring.
    static constexpr std::uint32_t ring_size = 1024;

  private:
    struct rings;
    explicit umem(buffer_pool& pool);

    buffer_pool& pool_;
    std::unique_ptr<rings> rings_; ///< until the first socket takes them over
    xsk_umem* handle_ = nullptr;
};

} // namespace esplane::fastpath
