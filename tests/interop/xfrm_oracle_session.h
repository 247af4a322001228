// SPDX-License-Identifier: Apache-2.0
//
// What both are asked, and what they answer: sessions of netlink datagrams, each session against
// empty databases.
//
// Both sides write an answer down in the same way: the datagrams that one socket would read which
// has asked and hears all groups, in their order.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "xfrm/message.h"

namespace esplane::tests::oracle {

/// The port id of the one socket: what replies carry.
inline constexpr std::uint32_t port_id = 4242;

/// SPIs that only ALLOCSPI gives, by chance: each side its own.  What a request says of one is
/// patched in from the answer to an earlier one.
inline constexpr std::uint32_t first_random_spi = 0xa5c30000;
inline constexpr std::uint32_t last_random_spi = 0xa5c3ffff;

/// Where in a datagram the SPI goes that the answer to datagram `from` of the session had.
struct patch {
    std::uint32_t at = 0;
    std::uint32_t from = 0;
};

struct question {
    std::vector<std::uint8_t> bytes; ///< may be none
    std::vector<patch> patches;
    /// Where in them 64-bit times lie, as seconds since the session began: which comes on top.
    std::vector<std::uint32_t> times;
    std::uint32_t packets = 0; ///< of `timed` sessions: sent before, by the policies
    std::uint32_t wait_ms = 0; ///< that pass afterwards
};

/// What a packet of a question is: UDP from here to there, so many bytes from the IP header on.
inline constexpr const char* packet_source = "10.1.0.10";
inline constexpr const char* packet_destination = "10.2.0.10";
inline constexpr std::uint32_t packet_length = 100;
/// The ends of tunnels that carry it.
inline constexpr const char* tunnel_source = "192.168.77.1";
inline constexpr const char* tunnel_destination = "192.168.77.2";

struct session {
    bool capped_acks = false;
    bool extended_acks = true;
    bool kernel_like = false; ///< esplane passes over what the kernel does
    bool timed = false;       ///< time passes and counts, and packets go
    std::vector<question> asked;
};

/// A datagram that was heard; group 0: it went to the asker alone.
struct heard {
    std::uint32_t group = 0;
    std::uint32_t at_ms = 0; ///< since the session began
    bool later = false;      ///< while time passed
    std::vector<std::uint8_t> bytes;
};
using answer = std::vector<heard>;

struct answers {
    std::uint64_t began_s = 0; ///< CLOCK_REALTIME
    std::vector<answer> all;   ///< by question
};

/// The SPI of the SA that an ALLOCSPI was answered with, as on the wire; 0 where there is none.
[[nodiscard]] std::uint32_t allocated_spi(const answer& a);
/// The question's bytes with the SPIs and the times put in; `spis` by question.
[[nodiscard]] std::vector<std::uint8_t>
patched(const question& q, const std::vector<std::uint32_t>& spis, std::uint64_t began_s);
/// What makes an answer come a little after the request has returned: the kernel's timers.
[[nodiscard]] bool wants_patience(const question& q);

// Both as a file: to the guest and back.  Throw std::runtime_error.
void write_sessions(const std::string& file, const std::vector<session>& all);
[[nodiscard]] std::vector<session> read_sessions(const std::string& file);
void write_answers(const std::string& file, const std::vector<answers>& all);
[[nodiscard]] std::vector<answers> read_answers(const std::string& file);

} // namespace esplane::tests::oracle
