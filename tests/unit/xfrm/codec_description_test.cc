// SPDX-License-Identifier: Apache-2.0
//
// The codec of whole messages: every recorded datagram comes back byte for byte, is understood to
// its last attribute, and shows no key.
#include "xfrm/codec.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "xfrm/print.h"

namespace esplane::xfrm {
namespace {

struct golden {
    std::string file;
    datagram whole;
};

std::vector<golden> load() {
    std::vector<golden> all;
    for (const auto& entry : std::filesystem::directory_iterator(ESPLANE_GOLDEN)) {
        if (entry.path().extension() != ".bin") continue;
        std::ifstream in(entry.path(), std::ios::binary);
        all.push_back({entry.path().filename(), {std::istreambuf_iterator<char>(in), {}}});
    }
    return all;
}

/// Recorded on the same device, but of NETLINK_ROUTE: its message types are other things.
bool is_xfrm(const golden& g) {
    return g.file.find("-xfrmi-") == std::string::npos;
}

/// One message with that payload.
datagram datagram_of(std::uint16_t type, std::uint16_t flags, bytes payload) {
    datagram d;
    message_writer w(d, type, flags, 7, 4711);
    w.raw(payload);
    w.finish();
    return d;
}

std::string text_of(const printed& p);

std::string text_of(const printed_fields& all) {
    std::string text;
    for (const printed& p : all)
        text += text_of(p) + "\n";
    return text;
}

std::string text_of(const printed& p) {
    if (const auto* n = std::get_if<std::uint64_t>(&p.is)) return p.name + " " + std::to_string(*n);
    if (const auto* i = std::get_if<std::int64_t>(&p.is)) return p.name + " " + std::to_string(*i);
    if (const auto* s = std::get_if<std::string>(&p.is)) return p.name + " " + *s;
    if (const auto* l = std::get_if<printed_list>(&p.is))
        return p.name + " [" + text_of(l->items) + "]";
    return p.name + " {" + text_of(std::get<printed_fields>(p.is)) + "}";
}

std::string text_of(const printed_message& m) {
    std::string text = m.type + "\n" + text_of(m.fixed) + text_of(m.attributes);
    for (const printed_message& r : m.request)
        text += text_of(r);
    return text;
}

void expect_understood(const description& d, const std::string& file) {
    ASSERT_NE(d.form, nullptr) << file;
    EXPECT_TRUE(d.rest.empty()) << file;
    // A request that was cut short on purpose.
    const bool cut = file.find("newsa-short-einval") != std::string::npos;
    EXPECT_TRUE(d.fixed || d.form->fixed == nullptr || cut) << file;
    for (const attribute& a : d.attributes) {
        EXPECT_NE(a.form, nullptr) << file << ": " << attribute_name(a);
        if (a.form == nullptr || a.form->content == nullptr) continue;
        EXPECT_FALSE(a.records.empty()) << file << ": " << attribute_name(a);
        EXPECT_TRUE(a.rest.empty() || a.form->tail != tail_kind::none)
            << file << ": " << attribute_name(a);
    }
}

TEST(Codec, EveryRecordedDatagramComesBackByteForByte) {
    const auto all = load();
    EXPECT_GE(all.size(), 391u);
    for (const golden& g : all)
        EXPECT_EQ(encode(decode(g.whole)), g.whole) << g.file;
}

TEST(Codec, EveryRecordedMessageIsUnderstoodToItsLastByte) {
    std::set<std::uint16_t> seen;
    for (const golden& g : load()) {
        if (!is_xfrm(g)) continue;
        const descriptions d = decode(g.whole);
        EXPECT_FALSE(d.messages.empty()) << g.file;
        EXPECT_TRUE(d.rest.empty()) << g.file;
        for (const description& m : d.messages) {
            if (g.file.find("newsa-short-einval-req") != std::string::npos) continue;
            expect_understood(m, g.file);
            for (const description& r : m.request)
                if (g.file.find("newsa-short-einval") == std::string::npos)
                    expect_understood(r, g.file);
            seen.insert(m.header.nlmsg_type);
        }
    }
    for (std::uint16_t type = XFRM_MSG_BASE; type <= XFRM_MSG_MAX; ++type)
        EXPECT_TRUE(seen.contains(type)) << "no recording of message type " << type;
}

TEST(Codec, AnyCutOfARecordedDatagramComesBack) {
    for (const golden& g : load())
        for (std::size_t length = 0; length < g.whole.size(); length += 5) {
            const datagram cut(g.whole.begin(),
                               g.whole.begin() + static_cast<std::ptrdiff_t>(length));
            ASSERT_EQ(encode(decode(cut)), cut) << g.file << " cut to " << length;
        }
}

TEST(Codec, AnyDamageToARecordedDatagramComesBack) {
    std::mt19937 random(6);
    for (golden& g : load())
        for (int i = 0; i < 20; ++i) {
            g.whole[random() % g.whole.size()] = static_cast<std::uint8_t>(random());
            ASSERT_EQ(encode(decode(g.whole)), g.whole) << g.file;
        }
}

TEST(Codec, FieldsHaveTheirValues) {
    for (const golden& g : load()) {
        if (g.file != "000-newsa-esp-tunnel-v4-gcm128-req-newsa.bin") continue;
        const descriptions d = decode(g.whole);
        const description& m = d.messages.at(0);
        EXPECT_EQ(number_in(find_value(*m.fixed, "id.proto")), 50u);
        EXPECT_EQ(number_in(find_value(*m.fixed, "family")), 2u);
        EXPECT_EQ(number_in(find_value(*m.fixed, "lft.soft_byte_limit")), ~std::uint64_t{0});
        const auto info = read_fixed<xfrm_usersa_info>(message{m.header, g.whole}.payload());
        EXPECT_EQ(number_in(find_value(*m.fixed, "id.spi")), __builtin_bswap32(info->id.spi));
        EXPECT_EQ(find_value(*m.fixed, "id.nothing"), nullptr);
        EXPECT_EQ(find_value(*m.fixed, "seq.nothing"), nullptr);
        return;
    }
    FAIL() << "the recording is not there";
}

TEST(Codec, AChangedValueChangesItsBytesAlone) {
    xfrm_usersa_id id{};
    id.spi = __builtin_bswap32(0x1234);
    const datagram before = datagram_of(XFRM_MSG_DELSA, NLM_F_REQUEST,
                                        {reinterpret_cast<const std::uint8_t*>(&id), sizeof id});
    descriptions d = decode(before);
    d.messages.at(0).fixed->values.at(1).is = std::uint64_t{0x5678};
    id.spi = __builtin_bswap32(0x5678);
    EXPECT_EQ(encode(d), datagram_of(XFRM_MSG_DELSA, NLM_F_REQUEST,
                                     {reinterpret_cast<const std::uint8_t*>(&id), sizeof id}));
}

TEST(Codec, LengthsFollowWhatIsPutIn) {
    descriptions d = decode(datagram_of(XFRM_MSG_FLUSHPOLICY, NLM_F_REQUEST, {}));
    attribute a;
    a.type = XFRMA_IF_ID;
    a.form = find_attribute(xfrm_attributes(), XFRMA_IF_ID);
    a.records.push_back({a.form->content, {{std::uint64_t{42}}}});
    d.messages.at(0).attributes.push_back(std::move(a));
    const datagram whole = encode(d);
    bytes rest(whole);
    const auto m = next_message(rest);
    ASSERT_TRUE(m);
    EXPECT_EQ(m->header.nlmsg_len, NLMSG_HDRLEN + 8u);
    EXPECT_EQ(read_fixed<std::uint32_t>(m->payload().subspan(4)), 42u);
}

TEST(Codec, AnUnknownAttributeIsKeptInItsPlace) {
    datagram d;
    message_writer w(d, XFRM_MSG_FLUSHPOLICY, NLM_F_REQUEST, 1, 1);
    w.attribute(XFRMA_IF_ID, std::uint32_t{1});
    w.attribute(777, std::uint8_t{9});
    w.attribute(XFRMA_IF_ID, std::uint32_t{2});
    w.finish();
    const descriptions got = decode(d);
    ASSERT_EQ(got.messages.at(0).attributes.size(), 3u);
    EXPECT_EQ(attribute_name(got.messages.at(0).attributes[1]), "XFRMA_777");
    EXPECT_EQ(encode(got), d);
}

TEST(Codec, AnAnswerToAnAnswerIsNotLookedInto) {
    datagram inner = datagram_of(NLMSG_ERROR, 0, std::vector<std::uint8_t>(20));
    datagram payload(4);
    payload.insert(payload.end(), inner.begin(), inner.end());
    const datagram whole = datagram_of(NLMSG_ERROR, 0, payload);
    const descriptions d = decode(whole);
    ASSERT_EQ(d.messages.at(0).request.size(), 1u);
    EXPECT_EQ(d.messages[0].request[0].form, nullptr);
    EXPECT_EQ(encode(d), whole);
}

TEST(Print, NoKeyIsShown) {
    int keys = 0;
    for (const golden& g : load()) {
        if (!is_xfrm(g)) continue;
        for (const description& m : decode(g.whole).messages) {
            const std::string text = text_of(print(m));
            for (const attribute& a : m.attributes) {
                if (a.form == nullptr || a.form->tail != tail_kind::key || a.rest.size() < 8)
                    continue;
                ++keys;
                std::string hex;
                for (std::size_t i = 0; i < 4; ++i) {
                    char two[4];
                    std::snprintf(two, sizeof two, "%02x", a.rest[i]);
                    hex += two;
                }
                EXPECT_EQ(text.find(hex), text.npos) << g.file;
                EXPECT_NE(text.find("key " + std::to_string(a.rest.size() * 8) + " bits"),
                          text.npos)
                    << g.file << '\n'
                    << text;
            }
        }
    }
    EXPECT_GT(keys, 50);
}

TEST(Print, AKeyThatIsCutIsNotShownEither) {
    datagram d;
    message_writer w(d, XFRM_MSG_FLUSHPOLICY, NLM_F_REQUEST, 1, 1);
    w.attribute_bytes(XFRMA_ALG_AEAD, std::vector<std::uint8_t>(40, 'K'));
    w.finish();
    const std::string text = text_of(print(decode(d).messages.at(0)));
    EXPECT_EQ(text.find("KK"), text.npos) << text;
    EXPECT_NE(text.find("40 bytes"), text.npos) << text;
}

TEST(Print, AddressesAreOfTheFamilyThatTheMessageSays) {
    xfrm_user_migrate move{};
    move.old_family = 2;
    move.new_family = 10;
    std::memset(&move.old_daddr, 1, 4);
    move.new_daddr.a6[0] = 1;
    datagram d;
    message_writer w(d, XFRM_MSG_MIGRATE, NLM_F_REQUEST, 1, 1);
    w.fixed(xfrm_userpolicy_id{});
    w.attribute(XFRMA_MIGRATE, move);
    w.finish();
    const std::string text = text_of(print(decode(d).messages.at(0)));
    EXPECT_NE(text.find("old_daddr 1.1.1.1\n"), text.npos) << text;
    EXPECT_NE(text.find("new_daddr 100::\n"), text.npos) << text;
}

TEST(Print, ControlCharactersOfANameAreEscaped) {
    xfrm_algo algorithm{};
    std::memcpy(algorithm.alg_name, "a\x1b[2J", 5);
    datagram d;
    message_writer w(d, XFRM_MSG_FLUSHPOLICY, NLM_F_REQUEST, 1, 1);
    w.attribute(XFRMA_ALG_AUTH, algorithm);
    w.finish();
    const std::string text = text_of(print(decode(d).messages.at(0)));
    EXPECT_NE(text.find("alg_name a\\x1b[2J"), text.npos) << text;
}

TEST(Print, FlagsMeanWhatTheyDoForTheType) {
    const auto flags = [](std::uint16_t type, std::uint16_t bits) {
        const std::vector<std::uint8_t> nothing;
        std::string all;
        const auto m = print(decode(datagram_of(type, bits, nothing)).messages.at(0));
        for (const printed& p : m.flags.items)
            all += std::get<std::string>(p.is) + " ";
        return all;
    };
    EXPECT_EQ(flags(XFRM_MSG_NEWSA, 0x305), "REQUEST ACK REPLACE EXCL ");
    EXPECT_EQ(flags(XFRM_MSG_GETSA, 0x301), "REQUEST ROOT MATCH ");
    EXPECT_EQ(flags(NLMSG_ERROR, 0x100), "CAPPED ");
    EXPECT_EQ(flags(XFRM_MSG_NEWSA, 0x8000), "0x8000 ");
}

} // namespace
} // namespace esplane::xfrm
