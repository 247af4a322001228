// SPDX-License-Identifier: Apache-2.0
//
// A veth pair, x0 under guard and x1 as its peer, and frames for it.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>
#include <linux/pkt_cls.h>

#include "fastpath/xdp/guard.h"
#include "lib/wire/headers.h"

namespace esplane::fastpath {

using bytes = std::vector<std::uint8_t>;

constexpr std::array<std::uint8_t, 6> own_mac{2, 0, 0, 0, 0, 1};

template <typename T>
void append(bytes& to, const T& value) {
    to.resize(to.size() + sizeof value);
    std::memcpy(&to[to.size() - sizeof value], &value, sizeof value);
}

/// What a frame is made of.
struct shape {
    std::string to = "10.1.0.1";
    std::string from = "10.9.9.9";
    std::uint8_t protocol = wire::proto_udp;
    bytes payload = bytes(64, 0xab); ///< from the upper-layer header on
    std::uint8_t hop_limit = 64;
    std::uint16_t fragment = 0; ///< IPv4: the field; IPv6: offset, in a fragment header
    bytes extension{};          ///< IPv6: header before the upper layer, its type first
    std::array<std::uint8_t, 6> mac = own_mac;
};

[[nodiscard]] bytes frame(const shape& s);
/// A UDP packet's upper layer.
[[nodiscard]] bytes udp(std::uint16_t source, std::uint16_t destination, const bytes& payload);

/// Puts an empty /run over the machine's, in this mount namespace alone.
[[nodiscard]] bool hide_run();

/// Runs `body` in a process of its own; whether it returned true.
template <typename Body>
bool in_child(Body body) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(body() ? 0 : 1);
    int status = 1;
    return ::waitpid(child, &status, 0) == child && status == 0;
}

class GuardPrograms : public testing::Test {
  protected:
    void SetUp() override;
    void TearDown() override;

    /// The guard's programs, told of addresses and ports.
    void attach();

    /// The counter that the packet moved.
    esplane_ingress_counter ingress_frame(const bytes& packet);
    esplane_ingress_counter ingress(const shape& s) { return ingress_frame(frame(s)); }

    /// Whether the packet may leave.
    bool leaves(const shape& s) { return run(egress_.get(), frame(s)) != TC_ACT_SHOT; }

    /// What the program says of a packet.
    static std::uint32_t run(int program, const bytes& packet);

    std::unique_ptr<guard> guard_;
    unique_fd ingress_;
    unique_fd egress_;
};

} // namespace esplane::fastpath
