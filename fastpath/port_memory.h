// SPDX-License-Identifier: Apache-2.0
//
// A port without a device: frames are put in and taken out by the caller.  For tests, benchmarks
// and embedders' experiments; what a packet meets is the whole path.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/port.h"

namespace esplane::fastpath {

class memory_port final : public port {
  public:
    using frame = std::vector<std::uint8_t>;

    /// `pool` outlives the port.  with_ethernet: whether frames have an Ethernet header.
    memory_port(std::string name, buffer_pool& pool, bool with_ethernet = true,
                port_role role = port_role::plain)
        : name_(std::move(name))
        , pool_(pool)
        , ethernet_(with_ethernet)
        , role_(role) {}

    /// A frame that the next receive() finds; longer than a buffer: not taken, false.
    bool inject(std::span<const std::uint8_t> f);
    /// Everything sent since the last call.
    [[nodiscard]] std::vector<frame> take_sent() { return std::exchange(sent_, {}); }
    /// Everything punted since the last call.
    [[nodiscard]] std::vector<frame> take_punted() { return std::exchange(punted_, {}); }
    /// How many frames send() takes from now on, for tests of a full device.
    void limit_sends(std::size_t n) noexcept { room_ = n; }

    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool ethernet() const noexcept override { return ethernet_; }
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] port_counters counters() const noexcept override { return counters_; }
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "memory"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] port_role role() const noexcept override { return role_; }

  private:
    std::string name_;
    buffer_pool& pool_;
    bool ethernet_;
    port_role role_;
    std::size_t room_ = ~std::size_t{0};
    std::deque<frame> waiting_;
    std::vector<frame> sent_;
    std::vector<frame> punted_;
    port_counters counters_;
};

} // namespace esplane::fastpath
