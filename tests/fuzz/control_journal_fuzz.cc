// SPDX-License-Identifier: Apache-2.0
//
// The log of the state file, from bytes to databases.
//
// Input: a file.  Length and checksum of each frame are put right first, so that what is behind
// them is reached; the file as it is is read, too.  What can be read is written, and read again to
// the same.
#include <cstdint>
#include <cstring>
#include <vector>

#include "lib/control/journal.h"
#include "tests/fuzz/require.h"

namespace {

using namespace esplane;
using bytes = std::vector<std::uint8_t>;

/// Takes off and checks a byte, so that a wrong one is found.
class byte_seal final : public control::journal_seal {
  public:
    void seal(std::uint64_t index, bytes& record) override {
        record.push_back(static_cast<std::uint8_t>(index));
    }
    bool open(std::uint64_t index, bytes& record) override {
        if (record.empty() || record.back() != static_cast<std::uint8_t>(index)) return false;
        record.pop_back();
        return true;
    }
};

std::uint32_t crc_of(const std::uint8_t* at, std::size_t length) {
    std::uint32_t crc = ~0u;
    for (std::size_t i = 0; i < length; ++i) {
        crc ^= at[i];
        for (int bit = 0; bit < 8; ++bit)
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
    }
    return ~crc;
}

bytes with_right_sums(bytes file) {
    constexpr std::size_t head = 12;
    for (std::size_t at = 0; file.size() - at >= head;) {
        std::uint32_t length = 0;
        std::memcpy(&length, &file[at], sizeof length);
        if (length > file.size() - at - head) break;
        const std::uint32_t crc = crc_of(file.data() + at + head, length);
        std::memcpy(&file[at + 4], &crc, sizeof crc);
        at += head + length;
    }
    return file;
}

result<control::journal_image> read(std::span<const std::uint8_t> file, bool with_key) {
    return control::read_journal(
        file, [&](const control::journal_session&) -> std::unique_ptr<control::journal_seal> {
            return with_key ? std::make_unique<byte_seal>() : nullptr;
        });
}

bytes written(const control::journal_image& image) {
    auto seal = image.last.sealed ? std::make_unique<byte_seal>() : nullptr;
    control::journal_writer w(image.last, std::move(seal));
    w.put(image.defaults, image.thresholds);
    for (const ipsec::sa& s : image.sas)
        w.put(s);
    for (const ipsec::policy& p : image.policies)
        w.put(p);
    return {w.made().begin(), w.made().end()};
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    (void)read({data, size}, true);
    const bytes file = with_right_sums(bytes(data, data + size));
    (void)read(file, false);
    const auto image = read(file, true);
    if (!image) return 0;
    REQUIRE(image->whole <= file.size());
    const bytes once = written(*image);
    const auto again = read(once, true);
    REQUIRE(again);
    REQUIRE(again->whole == once.size());
    REQUIRE(written(*again) == once);
    return 0;
}
