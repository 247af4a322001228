// SPDX-License-Identifier: Apache-2.0
//
// An embedder's gateway for tests: site 1 or 2 of tests/support/lab.h's two sites, through the C
// interface.  One thread makes the control calls and is the worker.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include <esplane/esplane.h>

namespace esplane::tests {

using bytes = std::vector<std::uint8_t>;

[[nodiscard]] esplane_address ip(const std::string& text);

/// Deterministic, as long as an AES-128-GCM key and its salt.
[[nodiscard]] bytes gcm_key();

/// Of the SA from site `from` to the other, AES-128-GCM; `key` must live as long as the struct.
[[nodiscard]] esplane_sa make_sa(unsigned from, const bytes& key);
/// A policy for packets from site `from` to the other; `via` is written and pointed to.
[[nodiscard]] esplane_policy make_policy(std::uint8_t direction, unsigned from,
                                         esplane_template& via);
[[nodiscard]] esplane_time at(std::uint64_t seconds);

/// A packet in a buffer with room at both ends.
class buffer {
  public:
    explicit buffer(const bytes& packet, std::uint16_t headroom = 128,
                    std::uint16_t tailroom = 128);

    esplane_packet packet{};
    /// What the packet is now.
    [[nodiscard]] bytes content() const;
    /// Whether the packet, its place and its surroundings are as they were.
    [[nodiscard]] bool untouched() const;

  private:
    bytes memory_;
    bytes before_;
    std::uint32_t length_;
    std::uint16_t headroom_;
};

class gateway {
  public:
    /// change   what is to be otherwise than by default
    explicit gateway(unsigned site, void (*change)(esplane_engine_options&) = nullptr);
    ~gateway();
    gateway(const gateway&) = delete;
    gateway& operator=(const gateway&) = delete;

    /// Both SAs and the policies `out`, `fwd` and `in` between the sites.
    void add_tunnel();
    void add_sa(unsigned from);
    void add_policy(std::uint8_t direction, unsigned from);

    void outbound(buffer& b, std::uint32_t flags = 0);
    void inbound(buffer& b);
    /// While this thread is the worker: a test has two gateways and one thread.
    void working(const std::function<void()>& what);

    [[nodiscard]] std::uint64_t dropped(const std::string& reason) const;
    [[nodiscard]] esplane_counters counters() const;

    unsigned site;
    std::uint64_t clock = 1'000;
    bytes key = gcm_key();
    esplane_engine* engine = nullptr;
    esplane_worker* worker = nullptr;
};

} // namespace esplane::tests
