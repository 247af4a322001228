// SPDX-License-Identifier: Apache-2.0
//
// One AF_XDP socket on one queue of a device, with its four rings.
//
// The first socket of a device registers the buffer pool as its umem, the others share that: ports
// know nothing of each other, and a port whose device is gone leaves nothing behind.
// Threads: the rings belong to the lane of the queue; the rest to control.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <linux/if_xdp.h>
#include <xdp/xsk.h>

#include "fastpath/buffer_pool.h"
#include "fastpath/xdp/binding.h"
#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

/// In a descriptor: the frame goes on in the next.  Debian 12's headers end before Linux 6.6.
inline constexpr std::uint32_t xdp_packet_continues = 1;

class xsk {
  public:
    /// Entries of each fill, completion, rx and tx ring.
    static constexpr std::uint32_t ring_size = 1024;

    struct place {
        int ifindex = 0;
        std::uint32_t queue = 0;
        bool sends = false; ///< it has a tx ring
    };

    /// socket   fresh, of family AF_XDP
    /// first    the socket of the same device that has registered the pool; nullptr = this one will
    /// Errors: those of bind(2) and setsockopt(2), with what failed.
    [[nodiscard]] static result<std::unique_ptr<xsk>> bind(unique_fd socket, buffer_pool& pool,
                                                           const xsk* first, const place& where,
                                                           const binding& how);
    ~xsk();
    xsk(const xsk&) = delete;
    xsk& operator=(const xsk&) = delete;

    [[nodiscard]] int fd() const noexcept { return socket_.get(); }
    [[nodiscard]] std::optional<xdp_statistics> statistics() const noexcept;
    /// Whether the kernel has not looked at all of the tx ring.
    [[nodiscard]] bool has_unsent() const noexcept {
        return tx.size != 0 && __atomic_load_n(tx.consumer, __ATOMIC_ACQUIRE) != tx.cached_prod;
    }

    xsk_ring_cons rx{};
    xsk_ring_prod tx{}; ///< empty where it does not send
    xsk_ring_prod fill{};
    xsk_ring_cons completion{};

  private:
    struct mapping {
        void* at = nullptr;
        std::size_t length = 0;
    };

    explicit xsk(unique_fd socket);
    [[nodiscard]] result<void> register_memory(buffer_pool& pool);
    [[nodiscard]] result<void> make_rings(bool sends);
    [[nodiscard]] result<void> bind_to(const place& where, const xsk* first, const binding& how);
    template <typename Ring>
    [[nodiscard]] result<void> map(Ring& ring, const xdp_ring_offset& offset,
                                   std::size_t entry_size, std::uint64_t page, mapping& into);

    unique_fd socket_;
    mapping mappings_[4];
};

} // namespace esplane::fastpath
