// SPDX-License-Identifier: Apache-2.0
//
// esplane's whole path as a contender: from received Ethernet frame to frame ready to send, by the
// pipeline that esplaned runs, over tables that the control layer has filled.
#pragma once

#include "bench/contest.h"
#include "bench/ready_port.h"
#include "fastpath/pipeline.h"
#include "tests/support/lab.h"

namespace esplane::bench {

/// Buffers that stay where they are, whatever becomes of their packets.
class kept_buffers final : public fastpath::buffer_owner {
  public:
    void release(std::span<fastpath::packet* const>) noexcept override {}
    [[nodiscard]] bool allocate(fastpath::packet&, std::uint32_t) noexcept override {
        return false;
    }
};

/// A gateway with the SAs and policies of a shape, in the shape's direction.
class gateway {
  public:
    /// rules   rules_of(s).  Errors: nullptr where esplane does not have the suite.
    [[nodiscard]] static std::shared_ptr<gateway> make(const shape& s,
                                                       std::span<const ipsec::policy> rules);

    [[nodiscard]] fastpath::pipeline& path() noexcept { return *path_; }
    [[nodiscard]] tests::lab& whole() noexcept { return lab_; }
    [[nodiscard]] crypto::engine& engine() noexcept { return *crypto_; }
    /// The inbound SA of that number.
    [[nodiscard]] fastpath::sa_in& inbound(std::uint32_t sa) const noexcept { return *in_[sa]; }

  private:
    gateway();
    void add_route(const char* network, int port, const char* via);
    [[nodiscard]] bool add_sa(const shape& s, std::uint32_t n);

    tests::lab lab_{1, 128};
    ready_port port_;
    fastpath::port* ports_[2] = {&port_, &port_};
    std::unique_ptr<crypto::engine> crypto_;
    std::unique_ptr<fastpath::pipeline> path_;
    std::vector<fastpath::sa_in*> in_;
};

class path_contender final : public contender {
  public:
    static constexpr unsigned burst = 32;

    path_contender(std::shared_ptr<const traffic> packets, std::shared_ptr<gateway> g);

    /// Nanoseconds a packet takes in each stage, best of `rounds` chunks.
    struct stage_time {
        const char* name;
        double ns;
    };
    [[nodiscard]] std::vector<stage_time> stages(unsigned rounds);

  protected:
    void prepare() override;
    void run() noexcept override;
    [[nodiscard]] bytes output(unsigned i) const override;
    [[nodiscard]] bool routes() const noexcept override { return true; }
    void reopen() override;

  private:
    std::shared_ptr<gateway> gateway_;
    packet_memory memory_;
    kept_buffers buffers_;
    std::vector<fastpath::packet> frames_;
};

} // namespace esplane::bench
