// SPDX-License-Identifier: Apache-2.0
#include "xfrm/replay_codec.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "xfrm/fields.h"

namespace esplane::xfrm {
namespace {

/// struct xfrm_replay_state_esn without its flexible end.
struct esn_head {
    std::uint32_t bitmap_words;
    std::uint32_t sent;
    std::uint32_t received;
    std::uint32_t sent_high;
    std::uint32_t received_high;
    std::uint32_t window;
};
static_assert(sizeof(esn_head) == sizeof(xfrm_replay_state_esn));

// Anti-replay bitmaps.  The kernel's of XFRMA_REPLAY_ESN_VAL is a ring: number n is bit
// (n - 1) % window.  Ours, and that of XFRMA_REPLAY_VAL, counts back from the highest number.

std::uint32_t ring_position(std::uint32_t highest, std::uint32_t back, std::uint32_t window) {
    const std::uint32_t top = (highest - 1) % window;
    return back <= top ? top - back : window - (back - top);
}

bool test_bit(const std::vector<std::uint32_t>& words, std::uint32_t bit) {
    return bit / 32 < words.size() && (words[bit / 32] >> (bit % 32) & 1) != 0;
}

void set_bit(std::vector<std::uint32_t>& words, std::uint32_t bit) {
    words[bit / 32] |= std::uint32_t{1} << (bit % 32);
}

std::vector<std::uint32_t> from_ring(const std::vector<std::uint32_t>& ring, std::uint32_t highest,
                                     std::uint32_t window) {
    std::vector<std::uint32_t> out(ring.size());
    for (std::uint32_t back = 0; back < window; ++back)
        if (test_bit(ring, ring_position(highest, back, window))) set_bit(out, back);
    return out;
}

std::vector<std::uint32_t> to_ring(const std::vector<std::uint32_t>& bitmap, std::uint32_t highest,
                                   std::uint32_t window) {
    std::vector<std::uint32_t> out(std::max<std::size_t>(bitmap.size(), (window + 31) / 32));
    for (std::uint32_t back = 0; back < window; ++back)
        if (test_bit(bitmap, back)) set_bit(out, ring_position(highest, back, window));
    return out;
}

/// Of the bitmap that XFRMA_REPLAY_ESN_VAL shows of an SA.
std::size_t bitmap_words(const ipsec::sa& s) {
    return std::max<std::size_t>(s.replay.bitmap.size(), (s.replay_window + 31) / 32);
}

constexpr std::uint64_t join(std::uint32_t high, std::uint32_t low) noexcept {
    return std::uint64_t{high} << 32 | low;
}

constexpr std::uint32_t last_number = 0xffffffff;

/// What XFRMA_SA_DIR "out" leaves no room for.
result<void> check_esn_output(const esn_head& state, bool esn) {
    if (state.window != 0) return fail(EINVAL, "Replay window should be 0 for output SA");
    if (state.received != 0 || state.received_high != 0)
        return fail(EINVAL, "Replay seq and seq_hi should be 0 for output SA");
    if (!esn && state.sent_high != 0)
        return fail(EINVAL, "Replay oseq_hi should be 0 in non-ESN mode for output SA");
    if (!esn && state.sent == last_number)
        return fail(EINVAL,
                    "Replay oseq should be less than 0xFFFFFFFF in non-ESN mode for output SA");
    if (state.sent == last_number && state.sent_high == last_number)
        return fail(EINVAL, "Replay oseq and oseq_hi should be less than 0xFFFFFFFF for output SA");
    if (state.bitmap_words != 0) return fail(EINVAL, "Replay bmp_len should 0 for output SA");
    return {};
}

/// The same of "in".
result<void> check_esn_input(const esn_head& state, bool esn) {
    if (state.sent != 0 || state.sent_high != 0)
        return fail(EINVAL, "Replay oseq and oseq_hi should be 0 for input SA");
    if (!esn && state.received_high != 0)
        return fail(EINVAL, "Replay seq_hi should be 0 in non-ESN mode for input SA");
    if (!esn && state.received == last_number)
        return fail(EINVAL,
                    "Replay seq should be less than 0xFFFFFFFF in non-ESN mode for input SA");
    if (state.received == last_number && state.received_high == last_number)
        return fail(EINVAL, "Replay seq and seq_hi should be less than 0xFFFFFFFF for input SA");
    return {};
}

/// verify_replay and xfrm_init_replay.
result<void> check_esn_state(const xfrm_usersa_info& info, const esn_head& state,
                             std::size_t length, ipsec::direction dir) {
    if (state.bitmap_words > XFRMA_REPLAY_ESN_MAX / 32)
        return fail(EINVAL, "ESN bitmap length must be <= 128");
    const std::size_t needed = sizeof state + state.bitmap_words * sizeof(std::uint32_t);
    if (length < needed && length != sizeof state)
        return fail(EINVAL, "ESN attribute is too short to fit the full bitmap length");
    if (info.replay_window != 0)
        return fail(EINVAL, "ESN not compatible with legacy replay_window");
    const bool esn = (info.flags & XFRM_STATE_ESN) != 0;
    if (dir == ipsec::direction::out) return check_esn_output(state, esn);
    return dir == ipsec::direction::in ? check_esn_input(state, esn) : result<void>();
}

/// iproute2 sends the head alone: the bitmap is empty then.
ipsec::replay_state esn_state_from(const esn_head& state, bytes value) {
    std::vector<std::uint32_t> ring(state.bitmap_words);
    const bytes bitmap = value.subspan(sizeof state);
    const std::size_t length = ring.size() * sizeof(std::uint32_t);
    if (length > 0 && bitmap.size() >= length) std::memcpy(ring.data(), bitmap.data(), length);
    return {join(state.sent_high, state.sent), join(state.received_high, state.received),
            from_ring(ring, state.received, std::min(state.window, state.bitmap_words * 32))};
}

result<void> decode_esn_state(const xfrm_usersa_info& info, bytes value, ipsec::sa& s) {
    const auto state = read_fixed<esn_head>(value);
    if (!state) {
        if ((info.flags & XFRM_STATE_ESN) != 0)
            return fail(EINVAL, "Missing required attribute for ESN");
        return {};
    }
    if (auto ok = check_esn_state(info, *state, value.size(), s.dir); !ok) return ok;
    s.replay_esn_form = true;
    s.replay_window = state->window;
    s.replay = esn_state_from(*state, value);
    return {};
}

/// xfrm_replay_state_esn_len(), whose length wraps around.
constexpr std::int64_t esn_length(std::size_t bitmap_words) noexcept {
    return static_cast<std::int32_t>(sizeof(esn_head) + bitmap_words * sizeof(std::uint32_t));
}

/// xfrm_replay_verify_len()
result<void> check_new_esn_state(const ipsec::sa& s, const esn_head& state, std::size_t length) {
    if (static_cast<std::int64_t>(length) < esn_length(state.bitmap_words))
        return fail(EINVAL, "ESN attribute is too short");
    if (esn_length(state.bitmap_words) != esn_length(bitmap_words(s)))
        return fail(EINVAL, "New ESN size doesn't match the existing SA's ESN size");
    if (state.bitmap_words != bitmap_words(s))
        return fail(EINVAL, "New ESN bitmap size doesn't match the existing SA's ESN bitmap");
    if (state.window > state.bitmap_words * 32)
        return fail(EINVAL, "ESN replay window is longer than the bitmap");
    return {};
}

std::optional<ipsec::replay_state> legacy_state_from(const attributes& a) {
    const auto state = a.load<xfrm_replay_state>(XFRMA_REPLAY_VAL);
    if (!state) return std::nullopt;
    return ipsec::replay_state{state->oseq, state->seq, {state->bitmap}};
}

void decode_legacy_state(const xfrm_usersa_info& info, const attributes& a, ipsec::sa& s) {
    s.replay_window = std::min<std::uint32_t>(info.replay_window, 32);
    if (auto state = legacy_state_from(a)) s.replay = std::move(*state);
}

} // namespace

result<void> check_window(const ipsec::sa& s) {
    if (!s.replay_esn_form) return {};
    if (s.replay_window > s.replay.bitmap.size() * 32)
        return fail(EINVAL, "ESN replay window is too large for the chosen bitmap size");
    if (s.esn() && s.replay_window == 0 && s.dir != ipsec::direction::out)
        return fail(EINVAL, "ESN replay window must be > 0");
    return {};
}

result<void> decode_replay(const xfrm_usersa_info& info, const attributes& a, ipsec::sa& s) {
    if (auto ok = decode_esn_state(info, a.get(XFRMA_REPLAY_ESN_VAL), s); !ok) return ok;
    if (!s.replay_esn_form) decode_legacy_state(info, a, s);
    return {};
}

// A state of the other form than the SA's is nothing to the kernel.
result<control::replay_gift> decode_gift(const ipsec::sa& s, const attributes& a) {
    control::replay_gift g;
    const bytes value = a.get(XFRMA_REPLAY_ESN_VAL);
    if (const auto state = read_fixed<esn_head>(value); state && s.replay_esn_form) {
        if (auto ok = check_new_esn_state(s, *state, value.size()); !ok)
            return tl::unexpected(std::move(ok.error()));
        g.replay = esn_state_from(*state, value);
        g.replay_window = state->window;
    }
    if (!s.replay_esn_form) g.replay = legacy_state_from(a);
    if (const auto current = a.load<xfrm_lifetime_cur>(XFRMA_LTIME_VAL))
        g.current = current_from(*current);
    g.replay_threshold = a.load<std::uint32_t>(XFRMA_REPLAY_THRESH);
    g.replay_timer = a.load<std::uint32_t>(XFRMA_ETIMER_THRESH);
    g.mapping_threshold = a.load<std::uint32_t>(XFRMA_MTIMER_THRESH);
    return g;
}

void encode_replay(message_writer& w, const ipsec::sa& s) {
    const auto low = static_cast<std::uint32_t>(s.replay.received);
    if (!s.replay_esn_form) {
        w.attribute(XFRMA_REPLAY_VAL,
                    xfrm_replay_state{static_cast<std::uint32_t>(s.replay.sent), low,
                                      s.replay.bitmap.empty() ? 0 : s.replay.bitmap[0]});
        return;
    }
    const auto ring = to_ring(s.replay.bitmap, low, s.replay_window);
    std::vector<std::uint8_t> value(sizeof(esn_head) + ring.size() * sizeof(std::uint32_t));
    const esn_head head{static_cast<std::uint32_t>(ring.size()),
                        static_cast<std::uint32_t>(s.replay.sent),
                        low,
                        static_cast<std::uint32_t>(s.replay.sent >> 32),
                        static_cast<std::uint32_t>(s.replay.received >> 32),
                        s.replay_window};
    std::memcpy(value.data(), &head, sizeof head);
    if (!ring.empty())
        std::memcpy(value.data() + sizeof head, ring.data(), value.size() - sizeof head);
    w.attribute_bytes(XFRMA_REPLAY_ESN_VAL, value);
}

} // namespace esplane::xfrm
