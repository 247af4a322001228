// SPDX-License-Identifier: Apache-2.0
//
// A port over capture files: frames come from one and go to the other.
//
// Ethernet and raw IP captures (pcap; pcapng for reading, where libpcap reads it).  What leaves has
// the link type, the time stamp and, with Ethernet, the MAC addresses of the frame it came from.
// To the pipeline it is a port without Ethernet.  What is for the machine is written out too.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/port.h"

namespace esplane::fastpath {

class pcap_port final : public port {
  public:
    /// `pool` outlives the port.  Errors: EINVAL with libpcap's line; EOPNOTSUPP for a link type
    /// that is neither Ethernet nor raw IP.
    [[nodiscard]] static result<std::unique_ptr<pcap_port>>
    open(const std::string& in, const std::string& out, buffer_pool& pool);
    ~pcap_port() override;

    /// True once receive() has met the end of the file, or a damaged record.
    [[nodiscard]] bool at_end() const noexcept { return at_end_; }
    /// Why reading ended early; empty where it did not.
    [[nodiscard]] const std::string& trouble() const noexcept { return trouble_; }
    /// Frames that never became packets.
    [[nodiscard]] std::uint64_t not_ip() const noexcept { return not_ip_; }
    [[nodiscard]] std::uint64_t too_long() const noexcept { return too_long_; }
    [[nodiscard]] std::uint64_t cut_short() const noexcept { return cut_short_; }
    /// Ends the output file.  Errors: EIO.
    [[nodiscard]] result<void> close();

    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool ethernet() const noexcept override { return false; }
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] port_counters counters() const noexcept override { return counters_; }
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "pcap"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] port_role role() const noexcept override { return port_role::plain; }

  private:
    struct files;
    /// Of the frame that a buffer holds.
    struct origin {
        std::int64_t seconds = 0;
        std::int64_t nanoseconds = 0;
        wire::mac_address destination{};
        wire::mac_address source{};
    };

    pcap_port(std::unique_ptr<files> f, std::string name, buffer_pool& pool);
    void write(const packet& p) noexcept;
    bool fill(packet& into, const std::uint8_t* frame, std::uint32_t length) noexcept;

    std::unique_ptr<files> files_;
    std::string name_;
    buffer_pool& pool_;
    std::vector<origin> origins_; ///< by frame of the pool
    origin last_;
    std::vector<std::uint8_t> scratch_;
    bool at_end_ = false;
    std::string trouble_;
    std::uint64_t not_ip_ = 0;
    std::uint64_t too_long_ = 0;
    std::uint64_t cut_short_ = 0;
    port_counters counters_;
};

} // namespace esplane::fastpath
