// SPDX-License-Identifier: Apache-2.0
//
// The netlink codec, from bytes to descriptions and back.
//
// Input: one datagram.  What decodes must encode, and decode again to the same message.
#include <algorithm>
#include <cstdint>
#include <span>

#include "tests/fuzz/require.h"
#include "xfrm/codec.h"
#include "xfrm/policy_codec.h"
#include "xfrm/print.h"
#include "xfrm/sa_codec.h"

namespace {

using namespace esplane;
using namespace esplane::xfrm;

/// More than any client sends.
constexpr std::size_t longest = 1 << 17;

datagram encoded(const ipsec::sa& s) {
    datagram d;
    message_writer w(d, XFRM_MSG_NEWSA, 0, 0, 0);
    w.fixed(sa_info(s));
    encode_sa_attributes(w, s);
    w.finish();
    return d;
}

datagram encoded(const ipsec::policy& p) {
    datagram d;
    message_writer w(d, XFRM_MSG_NEWPOLICY, 0, 0, 0);
    w.fixed(policy_info(p));
    encode_policy_attributes(w, p);
    w.finish();
    return d;
}

result<ipsec::sa> decoded_sa(const message& m) {
    const auto info = read_fixed<xfrm_usersa_info>(m.payload());
    if (!info) return fail(EINVAL);
    const auto a = attributes::parse(m, sizeof *info);
    if (!a) {
        (void)attribute_offset(m, sizeof *info, a.error().field);
        return tl::unexpected(a.error());
    }
    auto s = decode_sa(*info, *a);
    if (!s) return s;
    if (auto ok = check_use(*s, *a); !ok) return tl::unexpected(ok.error());
    return s;
}

result<ipsec::policy> decoded_policy(const message& m) {
    const auto info = read_fixed<xfrm_userpolicy_info>(m.payload());
    if (!info) return fail(EINVAL);
    const auto a = attributes::parse(m, sizeof *info);
    if (!a) return tl::unexpected(a.error());
    return decode_policy(*info, *a);
}

message first_message(bytes d) {
    const auto m = next_message(d);
    REQUIRE(m);
    return *m;
}

void sa_round_trip(const message& m) {
    auto s = decoded_sa(m);
    if (!s) return;
    s->current = {}; // from XFRMA_LTIME_VAL alone, as in the kernel; shown in the fixed part
    const datagram once = encoded(*s);
    const auto again = decoded_sa(first_message(once));
    REQUIRE(again);
    REQUIRE(encoded(*again) == once);
}

void policy_round_trip(const message& m) {
    const auto p = decoded_policy(m);
    if (!p) return;
    const datagram once = encoded(*p);
    const auto again = decoded_policy(first_message(once));
    REQUIRE(again);
    REQUIRE(encoded(*again) == once);
}

/// Whatever it is, it comes back; and it can be shown.
void description_round_trip(bytes whole) {
    const descriptions once = decode(whole);
    const datagram again = encode(once);
    REQUIRE(std::ranges::equal(again, whole));
    for (const description& d : once.messages)
        (void)print(d);
}

void decode_short_forms(const message& m) {
    const auto a = attributes::parse(m, sizeof(xfrm_usersa_id));
    if (const auto id = read_fixed<xfrm_usersa_id>(m.payload()))
        REQUIRE(decode_sa_id(sa_id_to(decode_sa_id(*id))) == decode_sa_id(*id));
    if (const auto info = read_fixed<xfrm_userspi_info>(m.payload()); info && a)
        (void)decode_spi_request(*info, *a);
    if (const auto id = read_fixed<xfrm_userpolicy_id>(m.payload()); id && a)
        (void)decode_policy_key(*id, *a);
    if (const auto bare = attributes::parse(m, 0)) {
        const auto filter = decode_sa_filter(*bare);
        if (filter) (void)filter->matches({});
    }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes rest(data, std::min(size, longest));
    description_round_trip(rest);
    while (const auto m = next_message(rest)) {
        sa_round_trip(*m);
        policy_round_trip(*m);
        decode_short_forms(*m);
    }
    return 0;
}
