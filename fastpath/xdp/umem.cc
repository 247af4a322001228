// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/umem.h"

#include <xdp/xsk.h>

#include "fastpath/xdp/bpf.h"

namespace esplane::fastpath {

struct umem::rings {
    xsk_ring_prod fill{};
    xsk_ring_cons completion{};
};

// The kernel leaves XDP_PACKET_HEADROOM in front of a frame by itself.
static_assert(buffer_pool::headroom == XDP_PACKET_HEADROOM);

umem::umem(buffer_pool& pool)
    : pool_(pool)
    , rings_(std::make_unique<rings>()) {}

umem::~umem() {
    if (handle_ != nullptr) xsk_umem__delete(handle_);
}

result<std::unique_ptr<umem>> umem::make(buffer_pool& pool) {
    silence_bpf_libraries();
    std::unique_ptr<umem> u(new umem(pool));
    const xsk_umem_config config{ring_size, ring_size, buffer_pool::frame_size, 0, 0};
    if (const int e = xsk_umem__create(&u->handle_, pool.base(), pool.size(), &u->rings_->fill,
                                       &u->rings_->completion, &config);
        e != 0)
        return fail_bpf(e, "registering " + std::to_string(pool.size() >> 20) +
                               " MiB of packet buffers for AF_XDP (needs root and 'ulimit -l')");
    return u;
}

} // namespace esplane::fastpath
