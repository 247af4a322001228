// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/socket.h"

#include <string>

#include <sys/mman.h>
#include <sys/socket.h>

#include "fastpath/xdp/device.h"

namespace esplane::fastpath {

namespace {

constexpr std::uint16_t use_multi_buffer = 1 << 4; ///< XDP_USE_SG, Linux 6.6

// The kernel leaves XDP_PACKET_HEADROOM in front of a frame by itself.
static_assert(buffer_pool::headroom == 256);

result<void> set_option(int socket, int name, const void* value, std::size_t length,
                        const std::string& what) {
    if (::setsockopt(socket, SOL_XDP, name, value, static_cast<socklen_t>(length)) == 0) return {};
    return fail_errno(what);
}

void place_ring(xsk_ring_prod& ring) noexcept {
    ring.cached_prod = *ring.producer;
    ring.cached_cons = *ring.consumer + ring.size; // as xsk_prod_nb_free() has it
}
void place_ring(xsk_ring_cons& ring) noexcept {
    ring.cached_prod = *ring.producer;
    ring.cached_cons = *ring.consumer;
}

} // namespace

xsk::xsk(unique_fd socket)
    : socket_(std::move(socket)) {}

xsk::~xsk() {
    for (const mapping& m : mappings_)
        if (m.at != nullptr) ::munmap(m.at, m.length);
}

result<std::unique_ptr<xsk>> xsk::bind(unique_fd socket, buffer_pool& pool, const xsk* first,
                                       const place& where, const binding& how) {
    std::unique_ptr<xsk> s(new xsk(std::move(socket)));
    if (first == nullptr)
        if (auto done = s->register_memory(pool); !done) return tl::unexpected(done.error());
    if (auto done = s->make_rings(where.sends); !done) return tl::unexpected(done.error());
    if (auto done = s->bind_to(where, first, how); !done) return tl::unexpected(done.error());
    return s;
}

result<void> xsk::register_memory(buffer_pool& pool) {
    const xdp_umem_reg memory{reinterpret_cast<std::uint64_t>(pool.base()), pool.size(),
                              buffer_pool::frame_size, 0, 0};
    const std::string mib = std::to_string(pool.size() >> 20) + " MiB";
    return set_option(fd(), XDP_UMEM_REG, &memory, sizeof memory,
                      "registering " + mib + " of packet buffers (allow more locked memory: " +
                          "'ulimit -l', LimitMEMLOCK=, or CAP_IPC_LOCK)");
}

template <typename Ring>
result<void> xsk::map(Ring& ring, const xdp_ring_offset& offset, std::size_t entry_size,
                      std::uint64_t page, mapping& into) {
    const std::size_t length = offset.desc + ring_size * entry_size;
    void* at = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd(),
                      static_cast<off_t>(page));
    if (at == MAP_FAILED) return fail_errno("mapping the rings of an AF_XDP socket");
    into = {at, length};
    auto* const bytes = static_cast<std::uint8_t*>(at);
    ring.mask = ring_size - 1;
    ring.size = ring_size;
    ring.producer = reinterpret_cast<std::uint32_t*>(bytes + offset.producer);
    ring.consumer = reinterpret_cast<std::uint32_t*>(bytes + offset.consumer);
    ring.flags = reinterpret_cast<std::uint32_t*>(bytes + offset.flags);
    ring.ring = bytes + offset.desc;
    place_ring(ring);
    return {};
}

result<void> xsk::make_rings(bool sends) {
    for (const int ring : {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_RX_RING, XDP_TX_RING})
        if (ring != XDP_TX_RING || sends)
            if (auto made = set_option(fd(), ring, &ring_size, sizeof ring_size,
                                       "making the rings of an AF_XDP socket");
                !made)
                return made;
    xdp_mmap_offsets at{};
    socklen_t length = sizeof at;
    if (::getsockopt(fd(), SOL_XDP, XDP_MMAP_OFFSETS, &at, &length) != 0)
        return fail_errno("asking for the rings of an AF_XDP socket");
    auto mapped = map(fill, at.fr, sizeof(std::uint64_t), XDP_UMEM_PGOFF_FILL_RING, mappings_[0]);
    if (mapped)
        mapped = map(completion, at.cr, sizeof(std::uint64_t), XDP_UMEM_PGOFF_COMPLETION_RING,
                     mappings_[1]);
    if (mapped) mapped = map(rx, at.rx, sizeof(xdp_desc), XDP_PGOFF_RX_RING, mappings_[2]);
    if (mapped && sends) mapped = map(tx, at.tx, sizeof(xdp_desc), XDP_PGOFF_TX_RING, mappings_[3]);
    return mapped;
}

/// Sockets that share a umem have the first one's mode: the kernel takes no flags for them.
result<void> xsk::bind_to(const place& where, const xsk* first, const binding& how) {
    sockaddr_xdp address{};
    address.sxdp_family = AF_XDP;
    address.sxdp_ifindex = static_cast<std::uint32_t>(where.ifindex);
    address.sxdp_queue_id = where.queue;
    if (first != nullptr) {
        address.sxdp_flags = XDP_SHARED_UMEM;
        address.sxdp_shared_umem_fd = static_cast<std::uint32_t>(first->fd());
    } else {
        address.sxdp_flags = static_cast<std::uint16_t>(XDP_USE_NEED_WAKEUP |
                                                        (how.zero_copy ? XDP_ZEROCOPY : XDP_COPY) |
                                                        (how.multi_buffer ? use_multi_buffer : 0));
    }
    const int e = retry_while_busy([&] {
        const auto* name = reinterpret_cast<const sockaddr*>(&address);
        return ::bind(fd(), name, sizeof address) == 0 ? 0 : -errno;
    });
    if (e == 0) return {};
    errno = -e;
    return fail_errno("AF_XDP socket on queue " + std::to_string(where.queue));
}

std::optional<xdp_statistics> xsk::statistics() const noexcept {
    xdp_statistics s{};
    socklen_t length = sizeof s;
    if (::getsockopt(fd(), SOL_XDP, XDP_STATISTICS, &s, &length) != 0) return std::nullopt;
    return s;
}

} // namespace esplane::fastpath
