// SPDX-License-Identifier: Apache-2.0
//
// The machine itself as a port: one TUN device that its routes lead into.
//
//   applications -- the machine's stack ---- ipsec0 (a queue for each lane) ---- host_port -- path
//
// receive() gives what the machine sends, or forwards, into the device; punt() and send() hand up
// what is for it.  Both ways TCP and UDP pass the device in super-packets of up to 64 KiB where the
// kernel knows how: what comes down is cut into packets (segment.h), what follows each other on the
// way up is put together (coalesce.h).
//
// The device is kept when the process ends, with its addresses and routes, so that nothing goes out
// in clear meanwhile: the kernel drops what is sent into it.
// Threads: as port.h says.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "fastpath/buffer_pool.h"
#include "fastpath/port.h"
#include "fastpath/tun.h"

namespace esplane::fastpath {

struct host_port_options {
    std::string name;
    std::string device;
    std::uint32_t mtu = 1400; ///< of a device that is made; one that is there keeps its own
    bool coalesce = true;     ///< false: packet by packet on the way up
    ipsec::mark_mask mark;    ///< what its routing rule asks for
};

class host_port final : public port {
  public:
    /// What a buffer has room for: bytes of an IP packet, with room behind for ESP.
    static constexpr std::uint32_t largest_mtu =
        buffer_pool::frame_size - 2 * buffer_pool::headroom;

    /// Opens the device of that name, or makes it.  lanes   workers; a device that somebody made
    /// without `multi_queue` serves the first.  `pool` outlives the port.
    ///
    /// Errors: as tun_queues::open(); EMSGSIZE above largest_mtu.
    [[nodiscard]] static result<std::unique_ptr<host_port>> open(host_port_options options,
                                                                 buffer_pool& pool, unsigned lanes);
    /// Over queues that are open.
    [[nodiscard]] static std::unique_ptr<host_port>
    over(tun_queues queues, host_port_options options, buffer_pool& pool);
    ~host_port() override;
    host_port(const host_port&) = delete;
    host_port& operator=(const host_port&) = delete;

    /// What this kernel cannot do, and what that means, as a line; "" where it can do everything.
    [[nodiscard]] std::string lacking() const;
    /// Errors: EMSGSIZE above largest_mtu; what the kernel says.
    [[nodiscard]] result<void> set_mtu(std::uint32_t mtu);
    /// The device goes with the port from now on.
    void forsake() noexcept { queues_.forsake(); }

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    /// IP packets, up to the machine.
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> packets) noexcept override;
    /// IP packets.  Where the kernel refuses some, which of them is not told, only how many.
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> packets) noexcept override;
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool of_machine() const noexcept override { return true; }
    [[nodiscard]] ipsec::mark_mask mark() const noexcept override { return options_.mark; }
    [[nodiscard]] bool ethernet() const noexcept override { return false; }
    [[nodiscard]] std::span<const int> descriptors(unsigned lane) const noexcept override;
    [[nodiscard]] bool up() const noexcept override { return up_.load(std::memory_order_relaxed); }
    /// A device that was deleted is made anew, without the addresses and routes it had.
    [[nodiscard]] result<bool> tend() override;
    [[nodiscard]] port_counters counters() const noexcept override;
    /// "rx_segmented": super-packets that were cut; "rx_refused": packets that do not fit a buffer,
    /// or that nobody can cut; "punt_merged": super-packets that went up.
    [[nodiscard]] std::vector<named_count> extended_counters() const override;
    [[nodiscard]] const std::string& name() const noexcept override { return options_.name; }
    [[nodiscard]] const std::string& device() const noexcept override { return options_.device; }
    [[nodiscard]] const char* kind() const noexcept override { return "tun"; }
    /// "TCP and UDP in super-packets", "TCP in super-packets", "packet by packet".
    [[nodiscard]] std::string mode() const override;
    [[nodiscard]] int ifindex() const noexcept override {
        return ifindex_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] port_role role() const noexcept override { return port_role::host; }

  private:
    struct lane_state;

    host_port(tun_queues queues, host_port_options options, buffer_pool& pool);
    [[nodiscard]] static bool fetch(lane_state& l) noexcept;
    static void take(lane_state& l, packet& into) noexcept;
    [[nodiscard]] static std::size_t hand_up(lane_state& l,
                                             std::span<packet* const> packets) noexcept;
    [[nodiscard]] result<void> make_anew();

    host_port_options options_;
    buffer_pool& pool_;
    tun_queues queues_;
    std::vector<std::unique_ptr<lane_state>> lanes_;
    std::atomic<int> ifindex_;
    std::atomic<bool> up_{true};
    bool told_up_ = true; ///< what the last tend() left
};

} // namespace esplane::fastpath
