// SPDX-License-Identifier: Apache-2.0
//
// What holds of whatever a coalescer does, for tests and the fuzzer.
#pragma once

#include <string>
#include <vector>

#include "fastpath/coalesce.h"

namespace esplane::tests {

using bytes = std::vector<std::uint8_t>;

/// IP packets that lie somewhere, as the path has them.
class packets_at_rest {
  public:
    explicit packets_at_rest(std::vector<bytes> contents);
    [[nodiscard]] std::span<fastpath::packet* const> all() const noexcept { return pointers_; }

  private:
    std::vector<bytes> contents_;
    std::vector<fastpath::packet> packets_;
    std::vector<fastpath::packet*> pointers_;
};

/// One write of a coalescer.
struct written {
    fastpath::offload_header offload{};
    bytes packet;
    std::size_t packets = 0; ///< that it stands for
};

/// Runs `merging` over the packets and holds it against this:
///   - each goes up in exactly one write;
///   - what goes up alone is as it came;
///   - a super-packet is at most 65535 bytes, and cut again gives what went into it, but for the
///   IDs
///     of IPv4 packets with DF; only packets with right checksums went into it;
///   - packets of a flow keep their order.
///
/// into   the writes; may be nullptr.  Returns "", or what does not hold.
[[nodiscard]] std::string wrong_with(fastpath::coalescer& merging,
                                     std::span<fastpath::packet* const> packets,
                                     std::vector<written>* into = nullptr);

/// Writes IP's and TCP's or UDP's checksum, where the packet is one without options and extension
/// headers.
void write_checksums(bytes& packet);

} // namespace esplane::tests
