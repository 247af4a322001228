// SPDX-License-Identifier: Apache-2.0
//
// A port without a device: frames are put in and taken out by the caller.  For tests, benchmarks
// and embedders' experiments; what a packet meets is the whole path.
// Threads: any; each lane has a lock, which a worker meets once per burst.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
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
                port_role role = port_role::plain, unsigned lanes = 1)
        : name_(std::move(name))
        , pool_(pool)
        , ethernet_(with_ethernet)
        , role_(role)
        , lanes_(std::make_unique<lane[]>(lanes))
        , lane_count_(lanes) {}

    /// A frame that the next receive() of a lane finds; longer than a buffer: not taken, false.
    bool inject(std::span<const std::uint8_t> f, unsigned lane = 0);
    /// Everything sent since the last call, lane by lane.
    [[nodiscard]] std::vector<frame> take_sent() { return take(&lane::sent); }
    /// Everything sent by one lane since the last call.
    [[nodiscard]] std::vector<frame> take_sent(unsigned lane);
    /// Everything punted since the last call, lane by lane.
    [[nodiscard]] std::vector<frame> take_punted() { return take(&lane::punted); }
    /// From now on this stands for a device whose frames the machine's own stack receives too.
    void let_stack_listen() noexcept { stack_listens_ = true; }
    /// From now on this is the machine itself; see port::of_machine().
    void stand_for_machine() noexcept { of_machine_ = true; }
    /// From now on the mark of what it receives; see port::mark().
    void set_mark(const ipsec::mark_mask& m) noexcept { mark_ = m; }
    /// From now on what it sends the kernel takes further; see port::by_kernel().
    void stand_for_kernel() noexcept { by_kernel_ = true; }
    /// How many frames send() takes from now on, by each lane, for tests of a full device.
    void limit_sends(std::size_t n) noexcept;

    [[nodiscard]] unsigned lanes() const noexcept override { return lane_count_; }
    [[nodiscard]] std::size_t receive(unsigned lane, std::span<packet> into) noexcept override;
    [[nodiscard]] std::size_t send(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    [[nodiscard]] std::size_t punt(unsigned lane,
                                   std::span<packet* const> frames) noexcept override;
    void flush(unsigned) noexcept override {}
    [[nodiscard]] bool ethernet() const noexcept override { return ethernet_; }
    [[nodiscard]] bool stack_listens() const noexcept override { return stack_listens_; }
    [[nodiscard]] bool of_machine() const noexcept override { return of_machine_; }
    [[nodiscard]] bool by_kernel() const noexcept override { return by_kernel_; }
    [[nodiscard]] ipsec::mark_mask mark() const noexcept override { return mark_; }
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] port_counters counters() const noexcept override;
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "memory"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] port_role role() const noexcept override { return role_; }

  private:
    struct lane {
        mutable std::mutex lock; ///< of all below
        std::size_t room = ~std::size_t{0};
        std::deque<frame> waiting;
        std::vector<frame> sent;
        std::vector<frame> punted;
        port_counters counters;
    };
    [[nodiscard]] std::span<lane> all() const noexcept { return {lanes_.get(), lane_count_}; }
    [[nodiscard]] std::vector<frame> take(std::vector<frame> lane::*which);

    std::string name_;
    buffer_pool& pool_;
    bool ethernet_;
    bool stack_listens_ = false;
    bool of_machine_ = false;
    bool by_kernel_ = false;
    ipsec::mark_mask mark_;
    port_role role_;
    std::unique_ptr<lane[]> lanes_;
    unsigned lane_count_;
};

} // namespace esplane::fastpath
