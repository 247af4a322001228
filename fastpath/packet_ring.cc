// SPDX-License-Identifier: Apache-2.0
#include "fastpath/packet_ring.h"

#include <array>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <utility>

#include "fastpath/offload.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

namespace {

constexpr std::size_t ring_bytes = std::size_t{packet_ring::slot_size} * packet_ring::slots;
constexpr std::size_t addresses_length = 12; ///< both MAC addresses
constexpr std::size_t tag_length = 4;

template <typename T>
result<void> set_option(int fd, int option, const T& value, const char* what) {
    if (::setsockopt(fd, SOL_PACKET, option, &value, sizeof value) == 0) return {};
    return fail_errno(what);
}

result<void> attach_filter(int fd, std::span<sock_filter> code) {
    const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
    if (::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0) return {};
    return fail_errno("socket filter");
}

/// Nothing gets in: until a socket is in its fanout group it would take what is others'.
result<void> make_deaf(int fd) {
    sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    return attach_filter(fd, nothing);
}

result<void> map_ring(int fd) {
    tpacket_req ring{};
    ring.tp_block_size = packet_ring::slot_size;
    ring.tp_block_nr = packet_ring::slots;
    ring.tp_frame_size = packet_ring::slot_size;
    ring.tp_frame_nr = packet_ring::slots;
    return set_option(fd, PACKET_RX_RING, ring, "ring of received frames");
}

result<void> bind_to(int fd, int ifindex) {
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = wire::be16(ETH_P_ALL).network();
    address.sll_ifindex = ifindex;
    if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return {};
    return fail_errno("binding to the device");
}

std::uint32_t status_of(const tpacket2_hdr& h) noexcept {
    return std::atomic_ref<const std::uint32_t>(h.tp_status).load(std::memory_order_acquire);
}

/// Into the room in front of the frame.
std::span<std::uint8_t> restore_tag(std::span<std::uint8_t> frame, const tpacket2_hdr& h) noexcept {
    std::uint8_t* const front = frame.data() - tag_length;
    std::memmove(front, frame.data(), addresses_length);
    const bool named = (h.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0;
    wire::store(front + addresses_length, wire::be16(named ? h.tp_vlan_tpid : ETH_P_8021Q));
    wire::store(front + addresses_length + 2, wire::be16(h.tp_vlan_tci));
    return {front, frame.size() + tag_length};
}

} // namespace

result<packet_ring> packet_ring::open(int ifindex) {
    unique_fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid() && errno == EPERM) return fail(EPERM, "AF_PACKET sockets take CAP_NET_RAW");
    if (!fd.valid()) return fail_errno("AF_PACKET socket");
    const int version = TPACKET_V2, on = 1;
    if (auto r = make_deaf(fd.get()); !r) return tl::unexpected(r.error());
    if (auto r = set_option(fd.get(), PACKET_VERSION, version, "TPACKET_V2"); !r)
        return tl::unexpected(r.error());
    if (auto r = set_option(fd.get(), PACKET_VNET_HDR, on, "PACKET_VNET_HDR"); !r)
        return tl::unexpected(r.error());
    (void)::setsockopt(fd.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
    if (auto r = map_ring(fd.get()); !r) return tl::unexpected(r.error());
    void* memory = ::mmap(nullptr, ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (memory == MAP_FAILED) return fail_errno("mapping the ring of received frames");
    (void)::madvise(memory, ring_bytes, MADV_DONTDUMP); // it holds clear text
    packet_ring ring(std::move(fd), static_cast<std::uint8_t*>(memory));
    if (auto r = bind_to(ring.fd_.get(), ifindex); !r) return tl::unexpected(r.error());
    return ring;
}

packet_ring::packet_ring(packet_ring&& other) noexcept
    : fd_(std::move(other.fd_))
    , memory_(std::exchange(other.memory_, nullptr))
    , at_(other.at_) {}

packet_ring::~packet_ring() {
    if (memory_ != nullptr) ::munmap(memory_, ring_bytes);
}

result<std::uint16_t> packet_ring::join(std::optional<std::uint16_t> group) {
    const int kind = PACKET_FANOUT_HASH | (group ? 0 : PACKET_FANOUT_FLAG_UNIQUEID);
    const int wanted = group.value_or(0) | kind << 16;
    if (auto r = set_option(fd_.get(), PACKET_FANOUT, wanted, "PACKET_FANOUT"); !r)
        return tl::unexpected(r.error());
    int joined = 0;
    socklen_t length = sizeof joined;
    if (::getsockopt(fd_.get(), SOL_PACKET, PACKET_FANOUT, &joined, &length) != 0)
        return fail_errno("PACKET_FANOUT");
    return static_cast<std::uint16_t>(joined);
}

result<void> packet_ring::listen() {
    constexpr auto ancillary = [](int field) {
        return static_cast<std::uint32_t>(SKF_AD_OFF + field);
    };
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ancillary(SKF_AD_PKTTYPE)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_HOST, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, ancillary(SKF_AD_PROTOCOL)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_8021Q, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_8021AD, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, ~0u),
    };
    return attach_filter(fd_.get(), code);
}

result<void> packet_ring::replace_by(packet_ring fresh) {
    if (::dup3(fresh.descriptor(), fd_.get(), O_CLOEXEC) < 0) return fail_errno("AF_PACKET socket");
    std::swap(memory_, fresh.memory_);
    at_ = 0;
    return {};
}

bool packet_ring::waiting() const noexcept {
    return (status_of(*reinterpret_cast<const tpacket2_hdr*>(slot())) & TP_STATUS_USER) != 0;
}

ring_frame packet_ring::front() noexcept {
    const auto& header = *reinterpret_cast<const tpacket2_hdr*>(slot());
    offload_header o;
    std::memcpy(&o, slot() + header.tp_mac - sizeof o, sizeof o);
    ring_frame f{{slot() + header.tp_mac, header.tp_snaplen}};
    f.truncated = header.tp_snaplen < header.tp_len;
    if (o.kind != offload_header::not_merged)
        f.segment_size = o.segment_size;
    else if ((o.flags & offload_header::needs_checksum) != 0 && !f.truncated)
        complete_checksum(f.bytes, o);
    if ((header.tp_status & TP_STATUS_VLAN_VALID) != 0 && f.bytes.size() >= addresses_length)
        f.bytes = restore_tag(f.bytes, header);
    return f;
}

void packet_ring::release() noexcept {
    auto& header = *reinterpret_cast<tpacket2_hdr*>(slot());
    std::atomic_ref<std::uint32_t>(header.tp_status)
        .store(TP_STATUS_KERNEL, std::memory_order_release);
    at_ = at_ + 1 == slots ? 0 : at_ + 1;
}

std::uint64_t packet_ring::take_losses() const noexcept {
    tpacket_stats s{};
    socklen_t length = sizeof s;
    if (::getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &s, &length) != 0) return 0;
    return s.tp_drops;
}

void packet_ring::clear_error() const noexcept {
    int code = 0;
    socklen_t length = sizeof code;
    (void)::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &code, &length);
}

} // namespace esplane::fastpath
