// SPDX-License-Identifier: Apache-2.0
//
// AES-GCM (NIST SP 800-38D) of an ESP packet: VAES and VPCLMULQDQ on 512-bit registers.  Compiled
// for them alone; nothing here runs before gcm::supported().
//
// The packet, seen as blocks of 16 bytes from its ESP header on, is already what GCM wants:
//
//   block     0              1       2     ...   t         t + 1
//   packet    [SPI seq][IV]  [text.................. pad]  [ICV]
//   AES-CTR   J0 (tag)       ctr 2   ctr 3 ...   ctr t+1
//   GHASH     AAD            [ciphertext.... zeros]        lengths
//
// A group is four blocks: one register.  Counter i + 1 belongs to block i, so that J0's keystream,
// which covers the tag, comes with the first group; the AAD, the ciphertext and the block of the
// lengths are b = t + 2 blocks in a row, and GHASH is their sum, block i times H^(b - i).
//
// A short packet, of up to ten groups, is done at once:
//
//   1. Make the counter blocks from salt and IV.
//   2. Encrypt them: the keystream.
//   3. Load the text, xor, store: masks keep every access inside the packet.
//   4. Put the AAD before the ciphertext and the lengths after it.
//   5. Multiply each block by its power of H, add, reduce.
//   6. The tag is that xor J0's keystream: write it, or compare it.
//
// A long one in three parts, and what is hashed of it lags behind what is encrypted:
//
//   head    the first group and a chunk of eight
//   chunks  eight groups each: between the rounds of their AES, GHASH of another chunk (when
//           encrypting of the one before, when decrypting of the same)
//   tail    the rest, up to nine groups, as a short packet
//
// What branches and what is an address depends on lengths and pointers only, never on a key, a
// text or a tag.
#include "lib/crypto/gcm.h"

#include <immintrin.h>

#include "lib/crypto/schedule_ipsec_mb.h"

namespace esplane::crypto::gcm {
namespace {

constexpr unsigned block_size = 16;
constexpr unsigned group_size = 64;
constexpr unsigned header_size = 16;  ///< SPI, sequence number, IV: block 0
constexpr unsigned short_groups = 10; ///< of a packet that is done at once
constexpr unsigned chunk_groups = 8;
constexpr unsigned chunk_size = chunk_groups * group_size;
constexpr unsigned chunk_blocks = chunk_groups * 4;
constexpr unsigned tail_groups = chunk_groups + 1;
static_assert(powers_needed >= short_groups * 4 && powers_needed >= tail_groups * 4 + 4);

constexpr __mmask64 header_bytes = 0xffff;

enum class way : bool { encrypt, decrypt };

/// Groups that the blocks of a packet fill: its AAD, its text and its lengths.
constexpr unsigned groups_of(std::uint32_t text_length) noexcept {
    const unsigned blocks = 1 + (text_length + block_size - 1) / block_size + 1;
    return (blocks + 3) / 4;
}
static_assert(groups_of(0) == 1 && groups_of(32) == 1 && groups_of(33) == 2);

constexpr unsigned round_keys(unsigned rounds) noexcept {
    return rounds + 1;
}

/// Calls `visit` with 0, 1 ... as constants: what is indexed by them can stay in registers.
template <unsigned Groups, typename Visit>
void for_each_group(Visit visit) noexcept {
    [&]<unsigned... Group>(std::integer_sequence<unsigned, Group...>) {
        (visit(std::integral_constant<unsigned, Group>()), ...);
    }
    (std::make_integer_sequence<unsigned, Groups>());
}

const std::uint8_t* schedule_of(const job& j) noexcept {
    return static_cast<const gcm_schedule*>(j.keys)->compact.bytes;
}

__m128i load_block(const std::uint8_t* from) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}

// --- AES-CTR ------------------------------------------------------------------------------------

/// Salt, IV and a counter of 0 (RFC 4106 section 4), four times.
__m512i nonce(__m128i header, const std::uint32_t& salt) noexcept {
    const __m128i iv = _mm_maskz_shuffle_epi32(0b0110, header, _MM_PERM_ADCA); // dwords 2, 3
    return _mm512_broadcast_i32x4(_mm_or_si128(iv, _mm_loadu_si32(&salt)));
}

/// The counters of a group, big-endian: 4 * group + 1 and the three after it.
template <unsigned Group>
__m512i counters() noexcept {
    constexpr int first = 4 * Group + 1;
    static_assert(first + 3 < 256, "only the lowest byte is set");
    return _mm512_set_epi32((first + 3) << 24, 0, 0, 0, (first + 2) << 24, 0, 0, 0,
                            (first + 1) << 24, 0, 0, 0, first << 24, 0, 0, 0);
}

__m512i round_key(const std::uint8_t* schedule, unsigned round) noexcept {
    return _mm512_broadcast_i32x4(load_block(schedule + round * block_size));
}

/// AES of every block of every group, a round over all before the next: none waits for another.
/// Between the rounds `stitch` is called with 0, 1 ... as constants, Rounds - 1 times.
template <unsigned Rounds, unsigned Groups, typename Stitch>
void encrypt_blocks(__m512i (&blocks)[Groups], const std::uint8_t* schedule,
                    Stitch stitch) noexcept {
    const __m512i first = round_key(schedule, 0);
    for_each_group<Groups>([&](auto g) { blocks[g] = _mm512_xor_si512(blocks[g], first); });
    for_each_group<Rounds - 1>([&](auto before) {
        const __m512i key = round_key(schedule, before + 1);
        for_each_group<Groups>([&](auto g) { blocks[g] = _mm512_aesenc_epi128(blocks[g], key); });
        stitch(before);
    });
    const __m512i last = round_key(schedule, Rounds);
    for_each_group<Groups>([&](auto g) { blocks[g] = _mm512_aesenclast_epi128(blocks[g], last); });
}

template <unsigned Rounds, unsigned Groups>
void encrypt_blocks(__m512i (&blocks)[Groups], const std::uint8_t* schedule) noexcept {
    encrypt_blocks<Rounds>(blocks, schedule, [](auto) {});
}

// --- GHASH --------------------------------------------------------------------------------------
//
// In the bit order of GCM a block read backwards is a polynomial over GF(2) whose product with
// another comes out one bit too low.  So each power of H is kept times x, which costs nothing
// later: Gueron and Kounavis, "Intel Carry-Less Multiplication Instruction and its Usage for
// Computing the GCM Mode", section 5 ("reflected").

__m512i swap_halves(__m512i a) noexcept {
    return _mm512_shuffle_epi32(a, _MM_PERM_BADC);
}

__m512i xor3(__m512i a, __m512i b, __m512i c) noexcept {
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

/// One side of a multiplication (Karatsuba: three products of halves instead of four).
struct factor {
    explicit factor(__m512i a) noexcept
        : whole(a)
        , halves(_mm512_xor_si512(a, swap_halves(a))) {}
    __m512i whole;
    __m512i halves; ///< their sum, in both
};

/// Products not yet reduced, of each lane by itself: of the low halves, of the sums, of the high.
struct products {
    __m512i low = _mm512_setzero_si512();
    __m512i sums = _mm512_setzero_si512();
    __m512i high = _mm512_setzero_si512();
};

void add_product(products& sum, const factor& a, const factor& b) noexcept {
    sum.low = _mm512_xor_si512(sum.low, _mm512_clmulepi64_epi128(a.whole, b.whole, 0x00));
    sum.sums = _mm512_xor_si512(sum.sums, _mm512_clmulepi64_epi128(a.halves, b.halves, 0x00));
    sum.high = _mm512_xor_si512(sum.high, _mm512_clmulepi64_epi128(a.whole, b.whole, 0x11));
}

/// Modulo x^128 + x^7 + x^2 + x + 1, read backwards: its upper half is the constant.  Twice 64
/// bits are folded away from the low end, each by one multiplication and a swap of halves.
__m512i reduce(const products& sum) noexcept {
    const __m512i polynomial = _mm512_set1_epi64(static_cast<long long>(0xc200'0000'0000'0000ULL));
    const auto fold = [&](__m512i from, __m512i into) {
        return xor3(into, _mm512_clmulepi64_epi128(from, polynomial, 0x00), swap_halves(from));
    };
    return fold(fold(sum.low, xor3(sum.sums, sum.low, sum.high)), sum.high);
}

/// The sum of the four lanes.
__m128i add_lanes(__m512i a) noexcept {
    const __m256i halves =
        _mm256_xor_si256(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    return _mm_xor_si128(_mm256_castsi256_si128(halves), _mm256_extracti128_si256(halves, 1));
}

/// All 64 bytes in reverse: bits as GHASH multiplies them, and the first block in the last lane,
/// beside the highest power.
__m512i reversed(__m512i group) noexcept {
    const __m512i from_the_end = _mm512_set_epi64(
        0x0001020304050607, 0x08090a0b0c0d0e0f, 0x1011121314151617, 0x18191a1b1c1d1e1f,
        0x2021222324252627, 0x28292a2b2c2d2e2f, 0x3031323334353637, 0x38393a3b3c3d3e3f);
    return _mm512_permutexvar_epi8(from_the_end, group);
}

__m128i reversed(__m128i block) noexcept {
    return _mm_shuffle_epi8(block, _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));
}

// --- The packet ---------------------------------------------------------------------------------

/// SPI and sequence number; with ESN the high half between them (RFC 4106 section 5).
__m128i aad_of(const job& j, __m128i header) noexcept {
    const __m128i high = _mm_cvtsi32_si128(static_cast<int>(__builtin_bswap32(j.seq_high)));
    const __m128i plain = _mm_move_epi64(header);
    const auto with_esn = static_cast<__mmask8>(-static_cast<int>(j.esn));
    return _mm_mask_unpacklo_epi32(plain, with_esn, header, high);
}

/// Bits of AAD and of text, 64 bits each, big-endian (SP 800-38D section 7.1, step 5).
__m128i lengths_of(const job& j) noexcept {
    const std::uint64_t aad_bits = 64 + 32 * static_cast<unsigned>(j.esn);
    const std::uint64_t text_bits = std::uint64_t{8} * j.text_length;
    const std::uint64_t first = __builtin_bswap64(aad_bits);
    const std::uint64_t second = __builtin_bswap64(text_bits);
    return _mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first));
}

/// The bytes of a group that are header or text, where `end` bytes are.
template <unsigned Group, unsigned Groups>
__mmask64 inside(unsigned end) noexcept {
    constexpr unsigned before = Group * group_size;
    if constexpr (Group + 2 < Groups) return ~__mmask64{0}; // only the last two have an end
    const unsigned left = end > before ? end - before : 0;
    return _bzhi_u64(~0ULL, left); // 64 and more: all
}

/// Blocks that GHASH takes: AAD, text, lengths.
unsigned blocks_of(const job& j) noexcept {
    return 1 + (j.text_length + block_size - 1) / block_size + 1;
}

/// Where the last of `blocks` is in its group, of 32-bit lanes.
__mmask16 lane_of_last(unsigned blocks) noexcept {
    return static_cast<__mmask16>(0xf << 4 * ((blocks - 1) % 4));
}

/// Xors the bytes of a group that `text` says with their keystream, in place.
///
/// returns  the ciphertext, and zeros elsewhere
template <way Way>
__m512i crypt_group(std::uint8_t* at, __mmask64 text, __m512i stream) noexcept {
    const __m512i before = _mm512_maskz_loadu_epi8(text, at);
    const __m512i after = _mm512_xor_si512(before, stream);
    _mm512_mask_storeu_epi8(at, text, after);
    return Way == way::encrypt ? _mm512_maskz_mov_epi8(text, after) : before;
}

/// Adds the product of groups and powers of H, H the last block's.  Where the last group is not
/// full it ends in zeros, and the blocks that stand before H in the schedule are multiplied by
/// them.
template <unsigned Groups>
void add_products(products& sum, const __m512i (&hashed)[Groups], const std::uint8_t* powers,
                  unsigned blocks) noexcept {
    for_each_group<Groups>([&](auto g) {
        const int lowest = static_cast<int>(blocks) - 4 * static_cast<int>(g) - 3;
        const __m512i four = _mm512_loadu_si512(powers + (lowest - 1) * int{block_size});
        add_product(sum, factor(reversed(hashed[g])), factor(four));
    });
}

/// In time that does not depend on the bytes.
bool same(__m128i a, __m128i b) noexcept {
    const __m128i different = _mm_xor_si128(a, b);
    return _mm_testz_si128(different, different) != 0;
}

template <way Way>
void finish(job& j, const products& sum, __m128i j0_stream) noexcept {
    const __m128i tag = _mm_xor_si128(reversed(add_lanes(reduce(sum))), j0_stream);
    auto* const icv = reinterpret_cast<__m128i*>(j.esp + header_size + j.text_length);
    if constexpr (Way == way::encrypt)
        _mm_storeu_si128(icv, tag);
    else
        j.ok = same(tag, _mm_loadu_si128(icv));
}

template <way Way, unsigned Rounds, unsigned Groups>
[[gnu::noinline, gnu::flatten]] void run_short(job& j) noexcept {
    const std::uint8_t* const schedule = schedule_of(j);
    const __m128i header = load_block(j.esp);
    const unsigned blocks = blocks_of(j);
    __m512i stream[Groups];
    __m512i hashed[Groups];

    const __m512i n = nonce(header, j.keys->salt);
    for_each_group<Groups>([&](auto g) { stream[g] = _mm512_or_si512(n, counters<g>()); });
    encrypt_blocks<Rounds>(stream, schedule);

    for_each_group<Groups>([&](auto g) {
        __mmask64 text = inside<g, Groups>(header_size + j.text_length);
        if constexpr (g == 0) text &= ~header_bytes;
        hashed[g] = crypt_group<Way>(j.esp + g * group_size, text, stream[g]);
    });
    hashed[0] = _mm512_inserti32x4(hashed[0], aad_of(j, header), 0);
    hashed[Groups - 1] =
        _mm512_mask_broadcast_i32x4(hashed[Groups - 1], lane_of_last(blocks), lengths_of(j));

    products sum;
    add_products(sum, hashed, schedule + round_keys(Rounds) * block_size, blocks);
    finish<Way>(j, sum, _mm512_castsi512_si128(stream[0]));
}

// --- Long packets -------------------------------------------------------------------------------

/// Counter blocks of a group in the order of the host, so that they can be counted.
struct counting {
    /// The four counters of a group; in the packet's order.
    __m512i take() noexcept {
        const __m512i last_dword_turned =
            _mm512_broadcast_i32x4(_mm_set_epi32(0x0c0d0e0f, 0x0b0a0908, 0x07060504, 0x03020100));
        const __m512i four = _mm512_set_epi32(4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0);
        const __m512i blocks = _mm512_shuffle_epi8(next, last_dword_turned);
        next = _mm512_add_epi32(next, four);
        return blocks;
    }
    /// The same, but J0 in place of the last of `blocks`, which needs no keystream.
    __m512i take_with_j0(unsigned blocks) noexcept {
        constexpr __mmask16 last_dwords = 0x8888;
        next = _mm512_mask_set1_epi32(next, lane_of_last(blocks) & last_dwords, 1);
        return take();
    }
    __m512i next;
};

/// Four counters after each other, from 1 on, beside a nonce.
counting count_from_j0(__m512i nonce) noexcept {
    return {
        _mm512_or_si512(nonce, _mm512_set_epi32(4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0))};
}

/// GHASH chunk by chunk, in each lane by itself: a lane's blocks are four apart.
///
/// Needs nothing from one lane to the next, until the tail multiplies the state like a group.
struct lanes_hash {
    /// Multiplies the state and adds a chunk of text, in steps 0 ... chunk_groups.
    template <unsigned Step>
    void absorb(const std::uint8_t* text) noexcept {
        if constexpr (Step == 0) {
            sum = products();
            add_product(sum, factor(state), factor(power(chunk_blocks)));
        } else if constexpr (Step < chunk_groups) {
            add_product(sum, factor(group<Step - 1>(text)), factor(power(chunk_blocks - 4 * Step)));
        } else if constexpr (Step == chunk_groups) {
            state = _mm512_xor_si512(reduce(sum), group<Step - 1>(text));
        }
    }
    template <unsigned Group>
    static __m512i group(const std::uint8_t* text) noexcept {
        return reversed(_mm512_loadu_si512(text + Group * group_size));
    }
    __m512i power(unsigned n) const noexcept {
        return _mm512_broadcast_i32x4(load_block(powers + (n - 1) * block_size));
    }

    const std::uint8_t* powers;
    __m512i state;
    products sum{};
};

/// The end of a long packet, from `at` on: `next` counters, `state` of the hash of what is before.
template <way Way, unsigned Rounds, unsigned Groups>
[[gnu::noinline, gnu::flatten]] void run_tail(job& j, std::uint8_t* at, __m512i next,
                                              __m512i state) noexcept {
    const std::uint8_t* const schedule = schedule_of(j);
    const std::uint8_t* const powers = schedule + round_keys(Rounds) * block_size;
    const auto text_left = static_cast<unsigned>(j.esp + header_size + j.text_length - at);
    const unsigned blocks = (text_left + block_size - 1) / block_size + 1;
    __m512i stream[Groups];
    __m512i hashed[Groups];

    counting counter{next};
    for_each_group<Groups>([&](auto g) {
        stream[g] = g + 1 == Groups ? counter.take_with_j0(blocks) : counter.take();
    });
    encrypt_blocks<Rounds>(stream, schedule);

    for_each_group<Groups>([&](auto g) {
        hashed[g] = crypt_group<Way>(at + g * group_size, inside<g, Groups>(text_left), stream[g]);
    });
    hashed[Groups - 1] =
        _mm512_mask_broadcast_i32x4(hashed[Groups - 1], lane_of_last(blocks), lengths_of(j));

    products sum;
    add_product(sum, factor(state), factor(_mm512_loadu_si512(powers + blocks * block_size)));
    add_products(sum, hashed, powers, blocks);
    const __m512i j0_stream = _mm512_maskz_compress_epi32(lane_of_last(blocks), stream[Groups - 1]);
    finish<Way>(j, sum, _mm512_castsi512_si128(j0_stream));
}

/// Takes the function for a number of groups from a table made of all that can be.
template <way Way, unsigned Rounds>
void run_tail(job& j, std::uint8_t* at, unsigned blocks, __m512i next, __m512i state) noexcept {
    static_assert(tail_groups == 9);
    switch ((blocks + 3) / 4) {
    case 1:
        return run_tail<Way, Rounds, 1>(j, at, next, state);
    case 2:
        return run_tail<Way, Rounds, 2>(j, at, next, state);
    case 3:
        return run_tail<Way, Rounds, 3>(j, at, next, state);
    case 4:
        return run_tail<Way, Rounds, 4>(j, at, next, state);
    case 5:
        return run_tail<Way, Rounds, 5>(j, at, next, state);
    case 6:
        return run_tail<Way, Rounds, 6>(j, at, next, state);
    case 7:
        return run_tail<Way, Rounds, 7>(j, at, next, state);
    case 8:
        return run_tail<Way, Rounds, 8>(j, at, next, state);
    default:
        return run_tail<Way, Rounds, 9>(j, at, next, state);
    }
}

/// Xors a chunk with the keystream of its groups, the first at `stream`.
void crypt_chunk(std::uint8_t* at, const __m512i* stream) noexcept {
    for_each_group<chunk_groups>([&](auto g) {
        std::uint8_t* const group = at + g * group_size;
        _mm512_storeu_si512(group, _mm512_xor_si512(_mm512_loadu_si512(group), stream[g]));
    });
}

template <way Way, unsigned Rounds>
[[gnu::noinline, gnu::flatten]] void run_long(job& j) noexcept {
    constexpr bool encrypting = Way == way::encrypt;
    const std::uint8_t* const schedule = schedule_of(j);
    const __m128i header = load_block(j.esp);
    const __m128i aad = aad_of(j, header);
    std::uint8_t* at = j.esp + group_size;
    counting counter = count_from_j0(nonce(header, j.keys->salt));
    lanes_hash hash{schedule + round_keys(Rounds) * block_size, {}};
    const auto absorb = [&](const std::uint8_t* text) {
        return [&hash, text](auto step) { hash.template absorb<step>(text); };
    };

    // Head.  Decrypting, the ciphertext is there before its keystream is.
    __m512i head[1 + chunk_groups];
    for_each_group<1 + chunk_groups>([&](auto g) { head[g] = counter.take(); });
    if constexpr (encrypting) {
        encrypt_blocks<Rounds>(head, schedule);
    } else {
        const __m512i first = _mm512_maskz_loadu_epi8(~header_bytes, j.esp);
        hash.state = reversed(_mm512_inserti32x4(first, aad, 0));
        encrypt_blocks<Rounds>(head, schedule, absorb(at));
    }
    const __m512i first = crypt_group<Way>(j.esp, ~header_bytes, head[0]);
    if constexpr (encrypting) hash.state = reversed(_mm512_inserti32x4(first, aad, 0));
    crypt_chunk(at, head + 1);

    // Chunks: AES and GHASH stitched.
    unsigned blocks = blocks_of(j) - 4 - chunk_blocks;
    for (at += chunk_size; blocks >= chunk_blocks + 2; blocks -= chunk_blocks, at += chunk_size) {
        __m512i stream[chunk_groups];
        for_each_group<chunk_groups>([&](auto g) { stream[g] = counter.take(); });
        encrypt_blocks<Rounds>(stream, schedule, absorb(encrypting ? at - chunk_size : at));
        crypt_chunk(at, stream);
    }
    if constexpr (encrypting) for_each_group<chunk_groups + 1>(absorb(at - chunk_size));
    run_tail<Way, Rounds>(j, at, blocks, counter.next, hash.state);
}

/// Vector and mask registers hold round keys, keystream and powers of H: none leaves.
void clear_registers() noexcept {
    asm volatile("vzeroall\n\t" // 0 to 15, whole
                 "vpxord %%zmm16, %%zmm16, %%zmm16\n\t"
                 "vpxord %%zmm17, %%zmm17, %%zmm17\n\t"
                 "vpxord %%zmm18, %%zmm18, %%zmm18\n\t"
                 "vpxord %%zmm19, %%zmm19, %%zmm19\n\t"
                 "vpxord %%zmm20, %%zmm20, %%zmm20\n\t"
                 "vpxord %%zmm21, %%zmm21, %%zmm21\n\t"
                 "vpxord %%zmm22, %%zmm22, %%zmm22\n\t"
                 "vpxord %%zmm23, %%zmm23, %%zmm23\n\t"
                 "vpxord %%zmm24, %%zmm24, %%zmm24\n\t"
                 "vpxord %%zmm25, %%zmm25, %%zmm25\n\t"
                 "vpxord %%zmm26, %%zmm26, %%zmm26\n\t"
                 "vpxord %%zmm27, %%zmm27, %%zmm27\n\t"
                 "vpxord %%zmm28, %%zmm28, %%zmm28\n\t"
                 "vpxord %%zmm29, %%zmm29, %%zmm29\n\t"
                 "vpxord %%zmm30, %%zmm30, %%zmm30\n\t"
                 "vpxord %%zmm31, %%zmm31, %%zmm31\n\t"
                 "kxorq %%k0, %%k0, %%k0\n\t"
                 "kxorq %%k1, %%k1, %%k1\n\t"
                 "kxorq %%k2, %%k2, %%k2\n\t"
                 "kxorq %%k3, %%k3, %%k3\n\t"
                 "kxorq %%k4, %%k4, %%k4\n\t"
                 "kxorq %%k5, %%k5, %%k5\n\t"
                 "kxorq %%k6, %%k6, %%k6\n\t"
                 "kxorq %%k7, %%k7, %%k7\n\t" ::
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",
                       "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16",
                       "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24",
                       "xmm25", "xmm26", "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "k0", "k1",
                       "k2", "k3", "k4", "k5", "k6", "k7", "memory");
}

template <way Way, unsigned Rounds>
void run_rounds(std::span<job> jobs) noexcept {

    static_assert(short_groups == 10);
    for (job& j : jobs) {
        switch (groups_of(j.text_length)) {
        case 1:
            run_short<Way, Rounds, 1>(j);
            break;
        case 2:
            run_short<Way, Rounds, 2>(j);
            break;
        case 3:
            run_short<Way, Rounds, 3>(j);
            break;
        case 4:
            run_short<Way, Rounds, 4>(j);
            break;
        case 5:
            run_short<Way, Rounds, 5>(j);
            break;
        case 6:
            run_short<Way, Rounds, 6>(j);
            break;
        case 7:
            run_short<Way, Rounds, 7>(j);
            break;
        case 8:
            run_short<Way, Rounds, 8>(j);
            break;
        case 9:
            run_short<Way, Rounds, 9>(j);
            break;
        case 10:
            run_short<Way, Rounds, 10>(j);
            break;
        default:
            run_long<Way, Rounds>(j);
        }
    }
    clear_registers();
}

template <way Way>
void run(std::span<job> jobs) noexcept {
    switch (jobs.front().keys->run) {
    case ipsec::suite::aes128_gcm16:
        return run_rounds<Way, 10>(jobs);
    case ipsec::suite::aes192_gcm16:
        return run_rounds<Way, 12>(jobs);
    default:
        return run_rounds<Way, 14>(jobs);
    }
}

// --- The compact schedule -----------------------------------------------------------------------

/// AES of a block of zeros (SP 800-38D section 7.1, step 1).
template <unsigned Rounds>
__m128i hash_key(const std::uint8_t* schedule) noexcept {
    __m512i zeros[1] = {_mm512_setzero_si512()};
    encrypt_blocks<Rounds>(zeros, schedule);
    return reversed(_mm512_castsi512_si128(zeros[0]));
}

/// A block times x, read backwards: a shift, and the polynomial where a bit falls out; by masks,
/// since the bits are secret.
__m128i times_x(__m128i a) noexcept {
    const __m128i carries = _mm_srli_epi64(a, 63);
    const __m128i shifted = _mm_or_si128(_mm_slli_epi64(a, 1), _mm_slli_si128(carries, 8));
    const __m128i out = _mm_sub_epi64(_mm_setzero_si128(), _mm_unpackhi_epi64(carries, carries));
    const __m128i polynomial = _mm_set_epi64x(static_cast<long long>(0xc200'0000'0000'0000ULL), 1);
    return _mm_xor_si128(shifted, _mm_and_si128(out, polynomial));
}

__m128i multiply(__m128i a, __m128i b) noexcept {
    products one;
    add_product(one, factor(_mm512_zextsi128_si512(a)), factor(_mm512_zextsi128_si512(b)));
    return _mm512_castsi512_si128(reduce(one));
}

template <unsigned Rounds>
void append_powers(std::uint8_t* schedule) noexcept {
    auto* const powers = reinterpret_cast<__m128i*>(schedule + round_keys(Rounds) * block_size);
    const __m128i first = times_x(hash_key<Rounds>(schedule));
    __m128i power = first;
    for (std::size_t i = 0; i < powers_needed; ++i) {
        _mm_store_si128(powers + i, power);
        power = multiply(power, first);
    }
}

} // namespace

void expand_powers(blocks& schedule, std::size_t aes_key_length) noexcept {
    switch (aes_key_length) {
    case 16:
        append_powers<10>(schedule.bytes);
        break;
    case 24:
        append_powers<12>(schedule.bytes);
        break;
    default:
        append_powers<14>(schedule.bytes);
    }
    clear_registers();
}

const kernel avx512{&run<way::encrypt>, &run<way::decrypt>};

} // namespace esplane::crypto::gcm
