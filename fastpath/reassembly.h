// SPDX-License-Identifier: Apache-2.0
//
// Puts together the fragments of ESP, and of ESP in UDP, that arrive on ports of ours: RFC 791
// section 3.2, RFC 8200 section 4.5.
//
//   fragments  [ IP ][ 2 ]   [ IP ][ 1 ]   [ IP ][ 3 ]        each is copied to its place
//   buffer     [ room ][ 1 ........ ][ 2 ........ ][ 3 .. ]   then the header goes in front
//
// Bounded: a buffer for each packet under way and no more than sets * ways of them; a source has
// one set, so that nobody crowds out all others; which, nobody outside knows.  The oldest makes
// room for the newest: what belongs together arrives together.
//
// What overlaps is refused with all that belongs to it (RFC 5722); an exact copy is lost alone.
// All fragments of a packet come to one worker, as devices see to.
//
// Does not: put together what is not ESP, nor what does not fit a buffer.
// Threads: the worker's.
#pragma once

#include <array>
#include <cstdint>

#include "fastpath/stage.h"

namespace esplane::fastpath {

class reassembly {
  public:
    static constexpr unsigned sets = 32, ways = 8;
    static constexpr unsigned most_pieces = 16;
    static constexpr std::uint64_t patience_ns = 2'000'000'000; ///< for the rest of a packet
    static constexpr std::uint32_t largest_header = 64;
    static constexpr std::uint32_t largest_payload = 3584;

    /// seed   unknown to others
    explicit reassembly(const std::array<std::uint64_t, 2>& seed) noexcept
        : seed_(seed) {}

    /// Takes a fragment that parse() found: for the machine, of ESP or UDP.  It is at its end, or
    /// waits.  Returns the packet that it makes complete, not parsed yet; nullptr where it does
    /// not.  Valid until the end of the burst.
    [[nodiscard]] packet* take(stage& s, packet& p) noexcept;

    [[nodiscard]] bool empty() const noexcept { return used_ == 0; }
    /// Drops what has waited too long.  Once per loop.
    void tend(stage& s) noexcept;

    /// Before parse(): the first fragment of ESP in UDP was seen; later ones are to come this way.
    void announce(const ipsec::address& source, const ipsec::address& destination,
                  std::uint32_t id) noexcept;
    [[nodiscard]] bool expects(const ipsec::address& source, const ipsec::address& destination,
                               std::uint32_t id) const noexcept;

  private:
    struct key {
        ipsec::address source, destination;
        std::uint32_t id = 0;
        friend bool operator==(const key&, const key&) = default;
    };
    /// A fragment as far as reassembly cares.
    struct piece {
        key of;
        std::uint32_t offset = 0, length = 0;
        bool last = false;
        std::uint32_t header = 0; ///< bytes in front of the payload, without a fragment header
        const std::uint8_t* payload = nullptr;

        [[nodiscard]] std::uint32_t end() const noexcept { return offset + length; }
    };
    struct range {
        std::uint32_t from = 0, to = 0;
    };
    struct entry {
        bool used = false;
        bool spoiled = false; ///< whatever comes is lost
        key of;
        packet buffer;
        std::uint64_t since_ns = 0;
        std::uint32_t count = 0;  ///< fragments that wait in it
        std::uint32_t header = 0; ///< 0: the first fragment is not there
        std::uint32_t total = 0;  ///< 0: the last one is not there
        std::uint32_t got = 0;    ///< bytes of payload
        bool congested = false;   ///< a router marked one of them
        std::array<range, most_pieces> ranges;
        std::uint32_t known = 0; ///< of them
    };

    [[nodiscard]] static piece read(const packet& p) noexcept;
    [[nodiscard]] std::span<entry> set_of(const ipsec::address& source) noexcept;
    [[nodiscard]] entry* find(stage& s, const key& k) noexcept;
    void drop_all(stage& s, entry& e, drop_reason why) noexcept;
    void spoil(stage& s, entry& e, drop_reason why) noexcept;
    [[nodiscard]] static drop_reason check(const entry& e, const piece& c) noexcept;
    static void add(stage& s, entry& e, const packet& p, const piece& c) noexcept;
    [[nodiscard]] static packet* finish(stage& s, entry& e, const packet& last) noexcept;

    std::array<std::uint64_t, 2> seed_;
    std::array<entry, std::size_t{sets} * ways> entries_;
    unsigned used_ = 0; ///< entries
    std::uint64_t swept_ns_ = 0;
    std::array<key, 64> announced_;
    std::size_t next_announced_ = 0;
};

} // namespace esplane::fastpath
