// SPDX-License-Identifier: Apache-2.0
//
// Super-packets as a device hands them over, cut into segments.
//
// Input: bytes of payload a segment (2 bytes, little-endian), then the frame.  Whatever the headers
// say, the payloads put together are what stood behind them, and no segment is longer than it may
// be.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "fastpath/segment.h"
#include "tests/fuzz/require.h"

namespace {

using esplane::fastpath::segmenter;

/// The segments of a frame that was begun with, or not.
void hold_to_it(segmenter& cut, bool begun, const std::vector<std::uint8_t>& frame,
                std::uint32_t wanted) {
    if (!begun) {
        REQUIRE(cut.done());
        return;
    }
    const std::size_t headers = cut.longest() - wanted;
    std::vector<std::uint8_t> payload;
    while (!cut.done()) {
        // The last may be shorter than its size says: no more than that is written.
        const std::size_t left = frame.size() - headers - payload.size();
        std::vector<std::uint8_t> segment(headers + std::min<std::size_t>(wanted, left));
        const std::uint32_t length = cut.next(segment.data());
        REQUIRE(length == segment.size());
        payload.insert(payload.end(), segment.begin() + static_cast<std::ptrdiff_t>(headers),
                       segment.end());
    }
    REQUIRE(std::equal(payload.begin(), payload.end(),
                       frame.begin() + static_cast<std::ptrdiff_t>(headers), frame.end()));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size < 2) return 0;
    const std::uint32_t wanted = data[0] | std::uint32_t{data[1]} << 8;
    const std::vector<std::uint8_t> frame(data + 2, data + size); // its end is the sanitizer's
    segmenter cut;
    hold_to_it(cut, cut.start(frame, wanted), frame, wanted);
    // From its IP header on, where it has no tags.
    const std::vector<std::uint8_t> packet(
        frame.begin() + std::min<std::ptrdiff_t>(14, std::ssize(frame)), frame.end());
    segmenter cut_ip;
    hold_to_it(cut_ip, cut_ip.start_ip(packet, wanted), packet, wanted);
    return 0;
}
