// SPDX-License-Identifier: Apache-2.0
//
// A port on any ethdev of DPDK's, with a TAP as its kernel twin.
//
//   device ── rx burst ──► receive ──► the path ──► send ── tx burst ──► device
//                                       │ punt
//   the machine's stack ◄── TAP ◄───────'
//   the machine's stack ──► TAP ── relay, held to the rules ── tx burst ──► device
//
// A lane is a pair of queues.  mbufs are packets without a copy, whichever port received them.
// Copied are frames in several mbufs, frames that somebody beside us holds (the path writes into
// them) and, to be sent, frames of other owners.  A device that is pulled out, or that its driver
// gives up, is closed when no worker looks at it any more, and looked for once a second.
//
// Threads: as port.h says.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/dpdk/ethdev.h"
#include "fastpath/dpdk/mbuf_memory.h"
#include "fastpath/port.h"
#include "fastpath/quiescence.h"
#include "fastpath/tap.h"

struct rte_mbuf;

namespace esplane::fastpath {

struct dpdk_port_options {
    std::string name;      ///< "wan": also the TAP's
    std::string device;    ///< "net_memif0", "0000:3b:00.0"
    std::string arguments; ///< the device's own: "role=client,socket=/run/memif.sock"
    port_role role = port_role::plain;
    unsigned lanes = 1; ///< as many as the device has queues for, at most this many
};

class dpdk_port final : public port {
  public:
    /// EAL runs; the memory outlives the port.  A device that cannot start yet is down, and tend()
    /// says why.
    ///
    /// twin   nothing: nobody is behind the port, and nothing is punted
    /// Errors: those of ethdev::open and tap::serve.
    [[nodiscard]] static result<std::unique_ptr<dpdk_port>>
    open(dpdk_port_options o, mbuf_memory& memory, std::optional<tap> twin);
    ~dpdk_port() override;
    dpdk_port(const dpdk_port&) = delete;
    dpdk_port& operator=(const dpdk_port&) = delete;

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool twin_apart() const noexcept override { return twin_.has_value(); }
    void relay(unsigned lane, machine_rules& rules) noexcept override;
    void enter(unsigned lane) noexcept override;
    void leave(unsigned lane) noexcept override;
    /// None: an ethdev is polled.
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] bool up() const noexcept override {
        return usable_.load(std::memory_order_acquire) && device_->link_up();
    }
    [[nodiscard]] std::string why_down() const override;
    [[nodiscard]] result<bool> tend() override;

    [[nodiscard]] port_counters counters() const noexcept override;
    [[nodiscard]] std::vector<named_count> extended_counters() const override;
    [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
    [[nodiscard]] const std::string& device() const noexcept override { return options_.device; }
    [[nodiscard]] const char* kind() const noexcept override { return "dpdk"; }
    [[nodiscard]] int ifindex() const noexcept override { return twin_ ? twin_->ifindex() : 0; }
    [[nodiscard]] port_role role() const noexcept override { return options_.role; }

  private:
    struct alignas(64) lane_state {
        counter rx_packets, rx_bytes, rx_linearised, rx_shared, rx_oversized, rx_no_buffer;
        counter tx_packets, tx_bytes, tx_full, tx_copied;
        counter punted, punt_full, relayed, denied;
        unsigned loops = 0; ///< since the TAP was last looked at
    };

    dpdk_port(dpdk_port_options o, mbuf_memory& memory)
        : options_(std::move(o))
        , memory_(memory) {}
    [[nodiscard]] result<void> take_up();
    [[nodiscard]] result<void> start();
    void take_down();
    void follow_twin();
    [[nodiscard]] rte_mbuf* bring_in(lane_state& l, rte_mbuf* frame) noexcept;
    [[nodiscard]] rte_mbuf* copy_of(const packet& p) noexcept;
    [[nodiscard]] std::size_t transmit(unsigned lane, rte_mbuf** mbufs, std::size_t n) noexcept;
    [[nodiscard]] bool relay_one(unsigned lane, machine_rules& rules) noexcept;

    dpdk_port_options options_;
    mbuf_memory& memory_;
    std::unique_ptr<ethdev> device_;
    rte_mempool* pool_ = nullptr;
    std::uint16_t id_ = 0;
    std::atomic<bool> usable_{false};     ///< workers may touch the device
    std::optional<grace_period> leaving_; ///< a worker may still be inside a call of the device's
    bool was_up_ = false;                 ///< what the last tend() left
    std::optional<tap> twin_;
    std::vector<std::unique_ptr<lane_state>> lanes_;
};

} // namespace esplane::fastpath
