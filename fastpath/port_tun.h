// SPDX-License-Identifier: Apache-2.0
//
// The interfaces of tunnels by route, as the machine sees them: TUN devices, all of them one port.
//
//   the machine's stack --- ipsec0 (if_id 10) ---.
//                       --- ipsec1 (if_id 11) ---+-- tun_port -- pipeline
//                       ...                   ---'
//
// receive() gives what the machine itself sends into one of them, its way out set: the tunnel of
// that if_id.  punt() hands up what came out of an SA of that if_id for the machine.  Nothing is
// sent by this port: packets that a route leads into an interface become ESP and leave elsewhere.
// Which interfaces there are may change while workers run: they find them in epoll and in a lookup
// table, and what is taken out lives until they were quiescent.
// Threads: lane 0's worker receives, any worker punts; the rest is control's.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/counters.h"
#include "fastpath/interfaces.h"
#include "fastpath/lookup_table.h"
#include "fastpath/port.h"
#include "fastpath/tun.h"

namespace esplane::fastpath {

class tun_port final : public port {
  public:
    /// What a buffer has room for: bytes of an IP packet.
    static constexpr std::uint32_t largest_mtu =
        buffer_pool::frame_size - 2 * buffer_pool::headroom;

    /// lanes   of the workers.  `pool` and `graveyard` outlive the port.  Errors: EMFILE.
    [[nodiscard]] static result<std::unique_ptr<tun_port>> make(buffer_pool& pool,
                                                                retired& graveyard, unsigned lanes);
    ~tun_port() override;
    tun_port(const tun_port&) = delete;
    tun_port& operator=(const tun_port&) = delete;

    /// From now on the device stands for `if_id`, which is not 0 and has none yet.
    /// Errors: what epoll_ctl gives.
    [[nodiscard]] result<void> add(tun device, std::uint32_t if_id);
    /// Takes the device away for good: it is gone when no worker can touch it any more, usually
    /// before this returns.
    void remove(std::uint32_t if_id);

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned, std::span<packet* const>) noexcept override {
        return 0;
    }
    /// IP packets that came out of an SA, each to the interface that its SA names.
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> packets) noexcept override;
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool of_interfaces() const noexcept override { return true; }
    [[nodiscard]] bool ethernet() const noexcept override { return false; }
    [[nodiscard]] std::span<const int> descriptors(unsigned lane) const noexcept override {
        return {lane == 0 ? &ready_ : &nothing_, 1};
    }
    [[nodiscard]] port_counters counters() const noexcept override;
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "tun"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] port_role role() const noexcept override { return port_role::host; }

  private:
    struct interface;
    struct alignas(64) lane_counters {
        counter rx_packets, rx_bytes, rx_no_buffer, punted, punt_full;
    };

    tun_port(buffer_pool& pool, retired& graveyard, unsigned lanes, int ready);
    [[nodiscard]] std::size_t read(const interface& from, std::span<packet> into) noexcept;
    [[nodiscard]] interface* find(std::uint32_t if_id) const noexcept;

    std::string name_ = "interfaces";
    buffer_pool& pool_;
    retired& graveyard_;
    static constexpr int nothing_ = -1; ///< poll(2) passes over it: nothing arrives on this lane
    int ready_;                         ///< epoll: the devices that have something to read
    lookup_table<interface> interfaces_;
    std::map<std::uint32_t, std::shared_ptr<interface>> owned_; ///< by if_id
    std::atomic<unsigned> count_{0};
    unsigned skipped_ = 0; ///< calls since epoll was last asked; lane 0
    std::vector<lane_counters> lanes_;
};

} // namespace esplane::fastpath
