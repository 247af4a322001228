// SPDX-License-Identifier: Apache-2.0
//
// A burst of IP packets put together into super-packets, and cut again.
//
// Input: for each packet a byte whose lowest bit says whether its checksums are written right, its
// length (2 bytes, little-endian) and its bytes; the last may be shorter than it says.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/fuzz/require.h"
#include "tests/support/coalesced.h"

namespace {

using esplane::tests::bytes;

std::vector<bytes> packets_in(const std::uint8_t* data, std::size_t size) {
    std::vector<bytes> packets;
    while (size >= 3 && packets.size() < esplane::fastpath::max_burst) {
        const bool right = (data[0] & 1) != 0;
        const std::size_t length = std::min<std::size_t>(data[1] | data[2] << 8, size - 3);
        bytes& p = packets.emplace_back(data + 3, data + 3 + length);
        if (right) esplane::tests::write_checksums(p);
        data += 3 + length;
        size -= 3 + length;
    }
    return packets;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const esplane::tests::packets_at_rest burst(packets_in(data, size));
    for (const bool udp : {true, false}) {
        esplane::fastpath::coalescer merging({.tcp = true, .udp = udp});
        REQUIRE(esplane::tests::wrong_with(merging, burst.all()).empty());
    }
    return 0;
}
