// SPDX-License-Identifier: Apache-2.0
//
// Puts packets of a flow that follow each other together into super-packets: what segment.h cuts.
//
// What a machine's stack costs, it costs a packet: 45 segments of TCP in one write go up at a tenth
// of what 45 writes take.  The kernel merges what arrives on a NIC in the same way (GRO); what
// comes by a TUN device it takes as it is.
//
//   packets   [ IP ][ TCP ][ a ]   [ IP ][ TCP ][ b ]   [ IP ][ UDP ][ x ]   [ IP ][ TCP ][ c ]
//   writes    [ offload ][ IP ][ TCP ][ a ][ b ][ c ]   [ offload ][ IP ][ UDP ][ x ]
//
// The packets stay as and where they are: a super-packet is new headers and the payloads in place,
// for writev().  Its checksum is left to be completed (offload.h).
//
// Only what can be cut into the same packets again is merged, but for the IDs of IPv4 packets that
// may not be fragmented, which mean nothing (RFC 6864):
//   - TCP and UDP straight behind an IP header without options; not fragments.
//   - Equal IP headers but for length and ID; without DF the IDs count up.
//   - TCP: equal headers, options too, but for the sequence number, which goes on where the packet
//     before ends; no flag but ACK, and PSH on the last.
//   - UDP: equal ports, and there is a checksum.
//   - Payloads as long as the first; the last may be shorter.
//   - Right checksums: what is wrong goes up alone, as it came, for the stack to judge and count.
// Packets of a flow keep their order, whatever comes; those of others may be overtaken.
//
// Does not: IPv6 extension headers, tunnels inside; wait for more packets to come.
// Threads: its owner's.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <sys/uio.h>

#include "fastpath/offload.h"
#include "fastpath/packet.h"

namespace esplane::fastpath {

class coalescer {
  public:
    /// Of a super-packet, from its IP header on.
    static constexpr std::uint32_t most_bytes = 65535;

    /// What a device takes in super-packets.
    struct abilities {
        bool tcp = true;
        bool udp = true;
    };

    /// One write.
    struct batch {
        std::span<const iovec> pieces;    ///< an offload header, then one packet
        std::span<packet* const> packets; ///< what it stands for, in order
    };

    explicit coalescer(abilities can) noexcept
        : can_(can) {}

    /// Begins with IP packets, at most max_burst, which stay as they are until done().  What was
    /// left of others is forgotten.
    void start(std::span<packet* const> packets) noexcept;

    [[nodiscard]] bool done() const noexcept { return given_ == count_; }
    /// The next write.  Valid until next() or start() is called.  Not when done().
    [[nodiscard]] batch next() noexcept;

  private:
    static constexpr std::size_t longest_headers = 40 + 60; ///< IPv6, TCP with all options
    static constexpr std::uint8_t nobody = 0xff;

    enum class kind : std::uint8_t {
        foreign, ///< neither TCP nor UDP
        unclear, ///< there is no telling which flow it is of
        alone,   ///< of a flow, but nothing to merge
        mergeable,
    };
    /// One packet, as far as merging asks.
    struct candidate {
        const packet* from = nullptr;
        std::uint32_t flow = 0; ///< hash of it
        kind is = kind::unclear;
        bool v4 = false;
        bool tcp = false;
        bool pushed = false;      ///< PSH
        std::uint8_t l4 = 0;      ///< offset of the TCP or UDP header
        std::uint8_t headers = 0; ///< of the payload

        [[nodiscard]] std::uint32_t payload() const noexcept { return from->length - headers; }
        [[nodiscard]] const std::uint8_t* l4_header() const noexcept { return from->data + l4; }
    };
    /// Packets that go up together, in a chain.
    struct group {
        candidate first;
        std::uint32_t bytes = 0;         ///< headers once, all payloads
        std::uint8_t head = 0, tail = 0; ///< of the chain: indices of packets
        std::uint8_t packets = 0;
        bool open = false;     ///< one more may join
        bool verified = false; ///< the checksum of the first
    };

    [[nodiscard]] candidate look_at(const packet& p) const noexcept;
    void look_at_tcp(candidate& c) const noexcept;
    void look_at_udp(candidate& c) const noexcept;
    void sort(const candidate& c, std::uint8_t index) noexcept;
    void add_group(const candidate& c, std::uint8_t index, bool open) noexcept;
    void append(group& g, const candidate& c, std::uint8_t index) noexcept;
    [[nodiscard]] static bool continues(const group& g, const candidate& c) noexcept;
    [[nodiscard]] static bool is_intact(const candidate& c) noexcept;
    std::size_t write_headers(const group& g) noexcept;

    abilities can_;
    std::span<packet* const> packets_;
    std::uint8_t count_ = 0; ///< of groups
    std::uint8_t given_ = 0;
    std::array<group, max_burst> groups_;
    std::array<std::uint8_t, max_burst> behind_;     ///< the chains: who follows a packet
    std::array<std::uint8_t, 2 * max_burst> newest_; ///< by flow: its newest group, or nobody
    std::array<std::uint8_t, sizeof(offload_header) + longest_headers> headers_;
    std::array<iovec, 1 + max_burst> pieces_;
    std::array<packet*, max_burst> members_;
};

} // namespace esplane::fastpath
