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
    std::vector<std::uint8_t> bytes;
    std::vector<patch> patches;
};

struct session {
    bool capped_acks = false;
    bool extended_acks = true;
    std::vector<question> asked;
};

/// A datagram that was heard; group 0: it went to the asker alone.
struct heard {
    std::uint32_t group = 0;
    std::vector<std::uint8_t> bytes;
};
using answer = std::vector<heard>;
using answers = std::vector<answer>; ///< by question

/// The SPI of the SA that an ALLOCSPI was answered with, as on the wire; 0 where there is none.
[[nodiscard]] std::uint32_t allocated_spi(const answer& a);
/// The question's bytes with the SPIs put in; `spis` by question.
[[nodiscard]] std::vector<std::uint8_t> patched(const question& q,
                                                const std::vector<std::uint32_t>& spis);
/// What makes an answer come a little after the request has returned: the kernel's timers.
[[nodiscard]] bool wants_patience(const question& q);

// Both as a file: to the guest and back.  Throw std::runtime_error.
void write_sessions(const std::string& file, const std::vector<session>& all);
[[nodiscard]] std::vector<session> read_sessions(const std::string& file);
void write_answers(const std::string& file, const std::vector<answers>& all);
[[nodiscard]] std::vector<answers> read_answers(const std::string& file);

} // namespace esplane::tests::oracle
