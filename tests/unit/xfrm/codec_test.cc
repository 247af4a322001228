// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/unit/xfrm/requests.h"

namespace esplane::xfrm {
namespace {

result<ipsec::sa> decode(const datagram& d) {
    const message m = messages_of(d).at(0);
    const auto a = attributes::parse(m, sizeof(xfrm_usersa_info));
    if (!a) return tl::unexpected(a.error());
    auto s = decode_sa(read_fixed<xfrm_usersa_info>(m.payload()).value(), *a);
    if (!s) return s;
    if (auto ok = check_family_change(*s).and_then([&] { return check_use(*s, *a); }); !ok)
        return tl::unexpected(ok.error());
    return s;
}

result<ipsec::policy> decode_policy_of(const datagram& d) {
    const message m = messages_of(d).at(0);
    const auto a = attributes::parse(m, sizeof(xfrm_userpolicy_info));
    if (!a) return tl::unexpected(a.error());
    return decode_policy(read_fixed<xfrm_userpolicy_info>(m.payload()).value(), *a);
}

class random_objects {
  public:
    ipsec::sa sa() {
        ipsec::sa s = example_sa(number());
        if (coin()) {
            s.id.destination = ipsec::address::v6(key<16>());
            s.source = ipsec::address::v6(key<16>());
            s.sel.fam = s.sel.source.fam = s.sel.destination.fam = ipsec::family::ipv6;
        }
        s.sel.source_prefix = static_cast<std::uint8_t>(number() % 33);
        s.sel.protocol = static_cast<std::uint8_t>(number());
        s.sel.destination_port = wire::be16(static_cast<std::uint16_t>(number()));
        s.reqid = number();
        s.seq = number();
        s.extra_flags = number() % 4;
        s.limits = {number(), number(), number(), number(), number(), number(), number(), number()};
        if (coin()) {
            s.algs.aead = {};
            s.algs.cipher = {"cbc(aes)", secret(key<32>()), 0};
            s.algs.auth = {"hmac(sha256)", secret(key<32>()), 128};
        }
        if (coin())
            s.encap = {wire::be16(4500), wire::be16(static_cast<std::uint16_t>(number())), {}};
        if (s.encap) s.encap->original.fam = s.id.destination.fam;
        if (coin()) s.last_used = number() + 1u;
        if (coin()) s.if_id = number();
        return coin() ? with_esn(std::move(s)) : with_legacy_window(std::move(s));
    }

    ipsec::policy policy() {
        ipsec::policy p = example_policy(static_cast<std::uint8_t>(number()));
        p.dir = static_cast<ipsec::policy_direction>(number() % 3);
        p.action = static_cast<ipsec::policy_action>(number() % 2);
        p.priority = number();
        if (coin()) p.if_id = number();
        p.index = (number() & ~7u) | static_cast<std::uint32_t>(p.dir);
        p.flags = number() % 2 == 0 ? 0 : XFRM_POLICY_ICMP;
        p.limits.hard_add_s = number();
        if (coin()) p.templates.clear();
        return p;
    }

    std::uint32_t number() { return static_cast<std::uint32_t>(generator_()); }
    bool coin() { return generator_() % 2 == 0; }

  private:
    template <std::size_t N>
    std::array<std::uint8_t, N> key() {
        std::array<std::uint8_t, N> k;
        for (auto& b : k)
            b = static_cast<std::uint8_t>(generator_());
        return k;
    }
    ipsec::sa with_esn(ipsec::sa s) {
        s.flags = ipsec::sa_flag::esn;
        s.replay_esn_form = true;
        s.replay_window = 1 + number() % 4096;
        s.replay.sent = std::uint64_t{number()} << 32 | number();
        s.replay.received = std::uint64_t{number()} << 32 | number();
        s.replay.bitmap.assign((s.replay_window + 31) / 32, 0);
        for (std::uint32_t i = 0; i < s.replay_window; ++i)
            if (coin()) s.replay.bitmap[i / 32] |= 1u << (i % 32);
        return s;
    }
    ipsec::sa with_legacy_window(ipsec::sa s) {
        s.replay_window = number() % 33;
        s.replay.sent = number();
        s.replay.received = number();
        s.replay.bitmap = {number()};
        return s;
    }
    std::mt19937_64 generator_{20};
};

TEST(SaCodec, WhatIsEncodedDecodesToTheSameMessage) {
    random_objects random;
    for (int i = 0; i < 2000; ++i) {
        const ipsec::sa s = random.sa();
        const datagram sent = new_sa(s);
        auto back = decode(sent);
        ASSERT_TRUE(back) << back.error().text;
        EXPECT_EQ(s.replay, back->replay);
        back->last_used = s.last_used; // the kernel takes it from no client
        ASSERT_EQ(sent, new_sa(*back)) << "SA " << i;
    }
}

TEST(PolicyCodec, WhatIsEncodedDecodesToTheSameMessage) {
    random_objects random;
    for (int i = 0; i < 2000; ++i) {
        const datagram sent = new_policy(random.policy());
        const auto back = decode_policy_of(sent);
        ASSERT_TRUE(back) << back.error().text;
        ASSERT_EQ(sent, new_policy(*back)) << "policy " << i;
    }
}

/// The bitmap of XFRMA_REPLAY_ESN_VAL as the kernel keeps it while numbers arrive in order.
std::vector<std::uint32_t> kernel_ring(const std::set<std::uint32_t>& seen, std::uint32_t highest,
                                       std::uint32_t window) {
    std::vector<std::uint32_t> ring((window + 31) / 32);
    for (const std::uint32_t n : seen) {
        if (n > highest || highest - n >= window) continue;
        const std::uint32_t bit = (n - 1) % window;
        ring[bit / 32] |= 1u << (bit % 32);
    }
    return ring;
}

TEST(SaCodec, ABitmapOfTheKernelSaysWhichNumbersWereSeen) {
    random_objects random;
    for (int i = 0; i < 200; ++i) {
        const std::uint32_t window = 1 + random.number() % 200;
        const std::uint32_t highest = window + random.number() % 1000;
        std::set<std::uint32_t> seen;
        for (std::uint32_t n = 1; n <= highest; ++n)
            if (random.coin()) seen.insert(n);
        const auto ring = kernel_ring(seen, highest, window);

        ipsec::sa s = example_sa();
        s.replay_window = 0;
        datagram d = new_sa(s);
        const std::uint32_t head[] = {
            static_cast<std::uint32_t>(ring.size()), 0, highest, 0, 0, window};
        std::vector<std::uint8_t> value(sizeof head + ring.size() * 4);
        std::memcpy(value.data(), head, sizeof head);
        std::memcpy(value.data() + sizeof head, ring.data(), ring.size() * 4);
        const auto back = decode(with_attribute(std::move(d), XFRMA_REPLAY_ESN_VAL, value));
        ASSERT_TRUE(back) << back.error().text;
        for (std::uint32_t n = 0; n < window; ++n)
            EXPECT_EQ(seen.contains(highest - n),
                      (back->replay.bitmap[n / 32] >> (n % 32) & 1) != 0)
                << "window " << window << " number " << highest - n;
    }
}

TEST(SaCodec, AnEsnStateWithoutBitmapIsAnEmptyOne) {
    datagram d = new_sa(example_sa());
    const std::uint32_t head[] = {2, 0, 0, 0, 0, 64};
    const auto* at = reinterpret_cast<const std::uint8_t*>(head);
    const auto s = decode(with_attribute(std::move(d), XFRMA_REPLAY_ESN_VAL, {at, sizeof head}));
    ASSERT_TRUE(s) << s.error().text;
    EXPECT_EQ(s->replay_window, 64u);
    EXPECT_EQ(s->replay.bitmap, std::vector<std::uint32_t>(2));
}

TEST(SaCodec, AnEsnStateWithoutWindowMayCarryBytesThatNobodyReads) {
    datagram d = new_sa(example_sa());
    const std::vector<std::uint8_t> value(sizeof(xfrm_replay_state_esn) + 4);
    EXPECT_TRUE(decode(with_attribute(std::move(d), XFRMA_REPLAY_ESN_VAL, value)));
}

TEST(SaCodec, CountersComeFromTheirAttributeAlone) {
    ipsec::sa s = example_sa();
    s.current.bytes = 1000; // in the fixed part: what the sender has counted
    EXPECT_EQ(decode(new_sa(s))->current.bytes, 0u);
    const xfrm_lifetime_cur given{2000, 2, 3, 4};
    const auto* at = reinterpret_cast<const std::uint8_t*>(&given);
    EXPECT_EQ(decode(with_attribute(new_sa(s), XFRMA_LTIME_VAL, {at, sizeof given}))->current,
              (ipsec::lifetime_current{2000, 2, 3, 4}));
}

TEST(SaCodec, ASelectorWithoutFamilyGetsThatOfTheSaUnlessAnyIsAskedFor) {
    ipsec::sa s = example_sa();
    s.sel.fam = ipsec::family::unspecified;
    EXPECT_EQ(decode(new_sa(s))->sel.fam, ipsec::family::ipv4);
    s.flags = ipsec::sa_flag::any_inner_family;
    EXPECT_EQ(decode(new_sa(s))->sel.fam, ipsec::family::unspecified);
}

TEST(SaCodec, AuthTruncCountsWhereBothAreGiven) {
    ipsec::sa s = example_sa();
    s.algs.aead = {};
    s.algs.auth = {"hmac(sha256)", secret(std::vector<std::uint8_t>(32, 1)), 96};
    EXPECT_EQ(decode(new_sa(s))->algs.auth.icv_bits, 96u); // new_sa writes both
}

TEST(SaCodec, AnAlgorithmWithoutANameIsNotAnAbsentOne) {
    const std::pair<std::uint16_t, const char*> kinds[] = {
        {XFRMA_ALG_AEAD, "Requested AEAD algorithm not found"},
        {XFRMA_ALG_AUTH, "Requested AUTH algorithm not found"},
        {XFRMA_ALG_AUTH_TRUNC, "Requested AUTH_TRUNC algorithm not found"},
    };
    for (const auto& [type, text] : kinds) {
        const std::vector<std::uint8_t> nameless(sizeof(xfrm_algo_auth));
        ipsec::sa s = example_sa();
        s.algs.aead = {};
        auto back = decode(with_attribute(new_sa(s), type, nameless));
        ASSERT_TRUE(back) << text << ": later than what else is wrong with a request";
        const auto known = ipsec::resolve(back->algs);
        ASSERT_FALSE(known) << text;
        EXPECT_EQ(known.error().code, ENOSYS);
        EXPECT_EQ(known.error().text, text);
    }
}

TEST(SaCodec, AKeyThatReachesBeyondItsAttributeIsRefused) {
    ipsec::sa s = example_sa();
    s.algs.aead = {};
    std::vector<std::uint8_t> value(sizeof(xfrm_algo) + 16);
    std::memcpy(value.data(), "cbc(aes)", 8);
    for (const std::uint32_t bits : {129u, 136u, 0xffffffffu}) {
        std::memcpy(value.data() + sizeof(xfrm_algo::alg_name), &bits, sizeof bits);
        const auto back = decode(with_attribute(new_sa(s), XFRMA_ALG_CRYPT, value));
        ASSERT_FALSE(back) << bits;
        EXPECT_EQ(back.error().text, "Invalid AUTH/CRYPT/COMP attribute length");
    }
}

struct refusal {
    const char* text;
    void (*spoil)(xfrm_usersa_info&);
};

TEST(SaCodec, TheKernelsRulesHoldWithItsTexts) {
    const refusal refusals[] = {
        {"Invalid address family", [](xfrm_usersa_info& i) { i.family = 1; }},
        {"Invalid address family in selector", [](xfrm_usersa_info& i) { i.sel.family = 1; }},
        {"Invalid prefix length in selector (must be <= 32 for IPv4)",
         [](xfrm_usersa_info& i) { i.sel.prefixlen_s = 33; }},
        {"a device in the selector is not carried", [](xfrm_usersa_info& i) { i.sel.ifindex = 1; }},
        {"a user in the selector is not carried", [](xfrm_usersa_info& i) { i.sel.user = 1000; }},
        {"Unsupported protocol", [](xfrm_usersa_info& i) { i.id.proto = 17; }},
        {"Unsupported mode", [](xfrm_usersa_info& i) { i.mode = 6; }},
        {"Missing required attribute for ESN", [](xfrm_usersa_info& i) { i.flags = 128; }},
        {"AH is not carried, only ESP is", [](xfrm_usersa_info& i) { i.id.proto = 51; }},
        {"mode BEET is not carried, only tunnel and transport are",
         [](xfrm_usersa_info& i) { i.mode = XFRM_MODE_BEET; }},
    };
    for (const refusal& r : refusals) {
        datagram d = new_sa(example_sa());
        auto info = read_fixed<xfrm_usersa_info>(bytes(d).subspan(NLMSG_HDRLEN)).value();
        r.spoil(info);
        std::memcpy(d.data() + NLMSG_HDRLEN, &info, sizeof info);
        const auto s = decode(d);
        ASSERT_FALSE(s) << r.text;
        EXPECT_EQ(s.error().text, r.text);
    }
}

TEST(Attributes, AllThatAreNotCarriedAreRefusedByName) {
    const std::uint16_t refused[] = {XFRMA_ALG_COMP, XFRMA_OFFLOAD_DEV, xfrma_iptfs_pkt_size, 200};
    const std::vector<std::uint8_t> value(80);
    for (const std::uint16_t type : refused) {
        const auto s = decode(with_attribute(new_sa(example_sa()), type, value));
        ASSERT_FALSE(s) << attribute_name(type);
        EXPECT_EQ(s.error().code, EOPNOTSUPP);
        EXPECT_EQ(s.error().field, attribute_name(type));
        EXPECT_EQ(s.error().text, attribute_name(type) + " is not carried");
    }
}

TEST(SaCodec, WhatOnlyAnSaInUdpHasIsRefusedOfOthers) {
    ipsec::sa s = example_sa();
    s.mapping_threshold = 60;
    EXPECT_EQ(decode(new_sa(s)).error().text,
              "MTIMER_THRESH attribute can only be set on ENCAP states");
    s.encap = {wire::be16(4500), wire::be16(4500), {}};
    EXPECT_EQ(decode(new_sa(s))->mapping_threshold, 60u);
    s.mapping_threshold = 0;
    s.nat_keepalive = 20;
    EXPECT_EQ(decode(new_sa(s)).error().text, "NAT keepalive is only supported for outbound SAs");
    s.dir = ipsec::direction::out;
    s.replay_window = 0;
    EXPECT_EQ(decode(new_sa(s))->nat_keepalive, 20u);
    s.encap.reset();
    EXPECT_EQ(decode(new_sa(s)).error().text,
              "NAT keepalive is only supported for UDP encapsulation");
}

TEST(SaCodec, AnOutputMarkWithoutAMaskIsAllOfTheMark) {
    const std::uint32_t mark = 0x77;
    const auto s = decode(with_attribute(new_sa(example_sa()), XFRMA_SET_MARK,
                                         {reinterpret_cast<const std::uint8_t*>(&mark), 4}));
    EXPECT_EQ(s->output_mark, (ipsec::mark_mask{0x77, 0xffffffff}));
}

TEST(Attributes, AnAttributeThatIsTooShortIsOutOfRange) {
    const std::vector<std::uint8_t> value(3);
    for (const std::uint16_t type :
         {XFRMA_ALG_AEAD, XFRMA_ENCAP, XFRMA_REPLAY_VAL, XFRMA_REPLAY_ESN_VAL, XFRMA_LTIME_VAL,
          XFRMA_SRCADDR, XFRMA_IF_ID, XFRMA_MARK, XFRMA_SET_MARK, XFRMA_MTIMER_THRESH}) {
        const auto s = decode(with_attribute(new_sa(example_sa()), type, value));
        ASSERT_FALSE(s) << attribute_name(type);
        EXPECT_EQ(s.error().code, ERANGE) << attribute_name(type);
    }
}

TEST(Attributes, OneThatReachesBeyondTheMessageEndsTheSearch) {
    datagram d = with_attribute(new_sa(example_sa()), XFRMA_TFCPAD, std::vector<std::uint8_t>(8));
    const std::uint16_t length = 100;
    std::memcpy(d.data() + d.size() - 12, &length, sizeof length);
    EXPECT_TRUE(decode(d)); // as the kernel: the padding is not an attribute
}

TEST(Messages, ALengthThatCannotBeEndsTheDatagram) {
    datagram d = new_sa(example_sa());
    for (const std::uint32_t length : {0u, 15u, static_cast<std::uint32_t>(d.size() + 1)}) {
        std::memcpy(d.data(), &length, sizeof length);
        bytes rest = d;
        EXPECT_FALSE(next_message(rest));
    }
}

TEST(PolicyCodec, TheKernelsRulesHoldWithItsTexts) {
    const auto refusal_of = [](void (*spoil)(xfrm_userpolicy_info&, xfrm_user_tmpl&)) {
        datagram d = new_policy(example_policy());
        std::uint8_t* const fixed = d.data() + NLMSG_HDRLEN;
        std::uint8_t* const first = fixed + sizeof(xfrm_userpolicy_info) + sizeof(nlattr);
        xfrm_userpolicy_info info;
        xfrm_user_tmpl t;
        std::memcpy(&info, fixed, sizeof info);
        std::memcpy(&t, first, sizeof t);
        spoil(info, t);
        std::memcpy(fixed, &info, sizeof info);
        std::memcpy(first, &t, sizeof t);
        const auto p = decode_policy_of(d);
        return p ? std::string("accepted") : p.error().text;
    };
    using info = xfrm_userpolicy_info;
    using tmpl = xfrm_user_tmpl;
    EXPECT_EQ(refusal_of([](info&, tmpl&) {}), "accepted");
    EXPECT_EQ(refusal_of([](info& i, tmpl&) { i.share = 4; }), "Invalid policy share");
    EXPECT_EQ(refusal_of([](info& i, tmpl&) { i.action = 2; }), "Invalid policy action");
    EXPECT_EQ(refusal_of([](info& i, tmpl&) { i.sel.family = 0; }), "Invalid selector family");
    EXPECT_EQ(refusal_of([](info& i, tmpl&) { i.dir = 3; }), "Invalid policy direction");
    EXPECT_EQ(refusal_of([](info& i, tmpl&) { i.index = 8; }),
              "Policy index doesn't match direction");
    EXPECT_EQ(refusal_of([](info&, tmpl& t) { t.optional = 1; }),
              "Mode in optional template not allowed in outbound policy");
    EXPECT_EQ(refusal_of([](info&, tmpl& t) { t.family = 3; }), "Invalid family in template");
    EXPECT_EQ(refusal_of([](info&, tmpl& t) { t.mode = 9; }),
              "Mode in template must be < XFRM_MODE_MAX (6)");
    EXPECT_EQ(refusal_of([](info&, tmpl& t) { t.id.proto = 6; }),
              "Invalid XFRM protocol in template");
    EXPECT_EQ(refusal_of([](info&, tmpl& t) { t.id.proto = 108; }),
              "IPComp is not carried, only ESP is");
    EXPECT_EQ(refusal_of([](info&, tmpl& t) { t.mode = XFRM_MODE_BEET; }),
              "mode BEET is not carried, only tunnel and transport are");
}

TEST(PolicyCodec, ABundleOfTemplatesIsRefused) {
    ipsec::policy p = example_policy();
    p.templates.push_back(p.templates[0]);
    const auto back = decode_policy_of(new_policy(p));
    ASSERT_FALSE(back);
    EXPECT_EQ(back.error().code, EOPNOTSUPP);
    EXPECT_EQ(back.error().field, "XFRMA_TMPL");
    p.templates.resize(7, p.templates[0]);
    EXPECT_EQ(decode_policy_of(new_policy(p)).error().text,
              "Template count must be <= XFRM_MAX_DEPTH (6)");
}

} // namespace
} // namespace esplane::xfrm
