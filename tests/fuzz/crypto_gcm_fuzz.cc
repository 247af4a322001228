// SPDX-License-Identifier: Apache-2.0
//
// AES-GCM of a packet by the GCM kernel, by the engine with it and without, and by
// OpenSSL.  All make the same packet; what has been changed, whatever and wherever, those that
// decrypt refuse, and the packets beside it they do not.  The kernel is asked by itself too: the
// engine would not use one whose known answers are wrong.
//
// Input: suite, ESN in its lowest bit, alignment, length of the text (2 bytes, little-endian),
// where to change the packet (2 bytes), what to xor there (1 byte; 0 nothing), the high half (4
// bytes), then key and packet; what is missing counts on from the last byte.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>

#include "lib/crypto/engine.h"
#include "lib/crypto/gcm.h"
#include "tests/fuzz/require.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace {

using namespace esplane;
using test::bytes;

constexpr std::size_t start_length = 16; ///< ESP header and IV
constexpr std::size_t salt_length = 4;
constexpr std::size_t longest = 4600; ///< counters of more than a byte
constexpr std::size_t alignments = 64;

/// Bytes of the input, and after its end bytes that count on.
class source {
  public:
    source(const std::uint8_t* data, std::size_t size)
        : data_(data)
        , size_(size) {}
    std::uint8_t byte() {
        if (size_ == 0) return ++last_;
        --size_;
        return last_ = *data_++;
    }
    bytes some(std::size_t n) {
        bytes b(n);
        for (auto& x : b)
            x = byte();
        return b;
    }
    std::uint32_t number(unsigned length) {
        std::uint32_t n = 0;
        for (unsigned i = 0; i < length; ++i)
            n |= static_cast<std::uint32_t>(byte()) << 8 * i;
        return n;
    }

  private:
    const std::uint8_t* data_;
    std::size_t size_;
    std::uint8_t last_ = 0;
};

std::unique_ptr<crypto::engine> make_engine(bool gcm_kernel) {
    auto made = crypto::engine::make({.gcm_kernel = gcm_kernel});
    REQUIRE(made.has_value());
    return std::move(*made);
}

/// A packet in memory that ends where it ends, at an alignment of its start.
struct placed {
    placed(const bytes& packet, std::size_t offset)
        : memory(static_cast<std::uint8_t*>(
              ::operator new (offset + packet.size(), std::align_val_t{alignments})))
        , at(memory + offset)
        , length(packet.size()) {
        std::copy(packet.begin(), packet.end(), at);
    }
    ~placed() { ::operator delete (memory, std::align_val_t{alignments}); }
    placed(const placed&) = delete;
    placed& operator=(const placed&) = delete;

    [[nodiscard]] bool starts_with(const bytes& what) const {
        return std::equal(what.begin(), what.end(), at);
    }

    std::uint8_t* memory;
    std::uint8_t* at;
    std::size_t length;
};

/// One input.
struct trial {
    explicit trial(source& s)
        : keys{static_cast<ipsec::suite>(s.byte() % 3), {}, {}, {}}
        , esn((s.byte() & 1) != 0)
        , offset(s.byte() % alignments)
        , text_length(s.number(2) % (longest + 1))
        , where(s.number(2) % (start_length + text_length + test::aead_icv_length))
        , change(s.byte())
        , seq_high(s.number(4)) {
        keys.cipher = s.some(test::cipher_key_length(keys.run));
        keys.salt = s.some(salt_length);
        clear = s.some(start_length + text_length);
        sealed = test::openssl_seal(keys, clear, esn ? std::optional(seq_high) : std::nullopt);
    }

    [[nodiscard]] crypto::job job_for(const crypto::key& k, const placed& p) const {
        return {.keys = &k.get(),
                .esp = p.at,
                .text_length = text_length,
                .seq_high = seq_high,
                .esn = esn};
    }

    test::sa_keys keys;
    bool esn;
    std::size_t offset;
    std::uint32_t text_length;
    std::size_t where;
    std::uint8_t change;
    std::uint32_t seq_high;
    bytes clear;
    bytes sealed;
};

template <typename Subject>
void hold(Subject& e, const crypto::key& k, const trial& t) {
    bytes room = t.clear;
    room.resize(t.sealed.size());
    const placed out(room, t.offset);
    crypto::job seal = t.job_for(k, out);
    e.encrypt({&seal, 1});
    REQUIRE(out.starts_with(t.sealed));

    bytes changed = t.sealed;
    changed[t.where] ^= t.change;
    const placed before(t.sealed, t.offset);
    const placed hurt(changed, t.offset);
    const placed after(t.sealed, 0);
    std::array<crypto::job, 3> burst{t.job_for(k, before), t.job_for(k, hurt), t.job_for(k, after)};
    e.decrypt(burst);
    REQUIRE(burst[0].ok && before.starts_with(t.clear));
    REQUIRE(burst[1].ok == (t.change == 0));
    REQUIRE(burst[2].ok && after.starts_with(t.clear));
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const auto small = make_engine(true);
    static const auto library = make_engine(false);
    source input(data, size);
    const trial t(input);
    const auto expanded = crypto::key::make(test::algorithms_for(t.keys));
    REQUIRE(expanded.has_value());
    const crypto::gcm::kernel& kernel = crypto::gcm::avx512;
    if (crypto::gcm::supported()) hold(kernel, **expanded, t);
    hold(*small, **expanded, t);
    hold(*library, **expanded, t);
    return 0;
}
