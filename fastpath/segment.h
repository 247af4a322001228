// SPDX-License-Identifier: Apache-2.0
//
// Cuts a super-packet into the packets it stands for.
//
// Virtual devices hand over TCP and UDP in pieces of up to 64 KiB that a device would have cut into
// segments (TSO, USO), or that were merged on arrival (GRO).  The path takes packets.
//
//   before   [ Ethernet ][ IP ][ TCP ][ payload ........................ ]
//   after    [ Ethernet ][ IP ][ TCP ][ size bytes ]   [ ... ]   [ the rest ]
//
// or the same without Ethernet, as TUN devices have it.
// Does not: IPv6 extension headers, tunnels inside, fragments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace esplane::fastpath {

class segmenter {
  public:
    /// Begins with a frame, which stays where it is until done().
    ///
    /// size   bytes of payload a segment
    /// False: not TCP or UDP straight behind IP behind Ethernet, or lengths that do not fit;
    /// nothing has begun.
    [[nodiscard]] bool start(std::span<const std::uint8_t> frame, std::uint32_t size) noexcept;
    /// The same with what begins with an IP header.
    [[nodiscard]] bool start_ip(std::span<const std::uint8_t> packet, std::uint32_t size) noexcept;

    [[nodiscard]] bool done() const noexcept { return at_ >= frame_.size(); }
    /// Bytes of the longest segment.
    [[nodiscard]] std::uint32_t longest() const noexcept { return headers_ + size_; }

    /// Writes the next segment, checksums complete.  Returns its length, at most longest().  Not
    /// when done().
    [[nodiscard]] std::uint32_t next(std::uint8_t* into) noexcept;

    /// Forgets the frame.
    void stop() noexcept { *this = {}; }

  private:
    [[nodiscard]] bool begin(std::span<const std::uint8_t> frame, std::uint32_t ip, bool v4,
                             std::uint32_t size) noexcept;
    void write_ip(std::uint8_t* ip, std::uint32_t length) const noexcept;
    void write_tcp(std::uint8_t* tcp, bool first, bool last) const noexcept;
    void write_checksum(std::uint8_t* ip, std::uint32_t length,
                        std::uint64_t payload_sum) const noexcept;

    std::span<const std::uint8_t> frame_;
    std::size_t at_ = 0;         ///< where the next segment's payload begins
    std::uint32_t ip_ = 0;       ///< offset of the IP header
    std::uint32_t l4_ = 0;       ///< of the TCP or UDP header
    std::uint32_t headers_ = 0;  ///< of the payload
    std::uint32_t size_ = 0;     ///< of payload, a segment
    std::uint32_t sequence_ = 0; ///< TCP: of the first segment
    std::uint16_t index_ = 0;    ///< of the next segment
    std::uint8_t protocol_ = 0;
    bool v4_ = false;
};

} // namespace esplane::fastpath
