// SPDX-License-Identifier: Apache-2.0
#include "lib/control/journal.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace esplane::tests {
namespace {

using namespace control;
using bytes = std::vector<std::uint8_t>;

/// Says whether records went through it, and which; no cipher.
class xor_seal final : public journal_seal {
  public:
    explicit xor_seal(std::uint8_t key)
        : key_(key) {}
    void seal(std::uint64_t index, bytes& record) override {
        for (std::uint8_t& b : record)
            b ^= key_;
        record.push_back(static_cast<std::uint8_t>(key_ + index));
    }
    bool open(std::uint64_t index, bytes& record) override {
        if (record.empty() || record.back() != static_cast<std::uint8_t>(key_ + index))
            return false;
        record.pop_back();
        for (std::uint8_t& b : record)
            b ^= key_;
        return true;
    }

  private:
    std::uint8_t key_;
};

ipsec::sa some_sa(std::uint32_t spi) {
    ipsec::sa s;
    s.id = {ipsec::address::v4(wire::be32(0xc0a84d02)), wire::be32(spi), 50, {7, 0xff}};
    s.source = ipsec::address::v4(wire::be32(0xc0a84d01));
    s.sel.fam = ipsec::family::ipv4;
    s.reqid = 42;
    s.if_id = 3;
    s.flags = ipsec::sa_flag::esn;
    s.dir = ipsec::direction::out;
    s.dying = true;
    const bytes key(20, 0x5a);
    s.algs.aead = {"rfc4106(gcm(aes))", secret(key), 128};
    s.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4501), {}};
    s.security = ipsec::security_context{1, 1, {1, 2, 3}};
    s.pcpu = 5;
    s.replay_window = 64;
    s.replay = {17, 18, {0xffff, 1}};
    s.limits.hard_add_s = 3600;
    s.current = {1000, 10, 1700000000, 1700000001};
    return s;
}

ipsec::policy some_policy(std::uint32_t n) {
    ipsec::policy p;
    p.sel.fam = ipsec::family::ipv6;
    p.index = n * 8 + 1;
    p.priority = 99;
    p.position = 1000 - n;
    p.templates.resize(1);
    p.templates[0].reqid = 42;
    p.current.add_time = 1700000000;
    return p;
}

journal_session session(bool sealed = false) {
    journal_session s;
    s.name.fill(9);
    s.nonce_base = 1u << 30;
    s.sealed = sealed;
    return s;
}

bytes copy_of(std::span<const std::uint8_t> data) {
    return {data.begin(), data.end()};
}

result<journal_image> read(const bytes& file) {
    return read_journal(file, [](const journal_session&) { return nullptr; });
}

TEST(Journal, GivesBackEachFieldOfAnSaAndOfAPolicy) {
    journal_writer w(session(), nullptr);
    w.put(some_sa(0x1000));
    w.put(some_policy(1));
    const auto image = read(copy_of(w.made()));
    ASSERT_TRUE(image) << image.error().text;
    ASSERT_EQ(image->sas.size(), 1u);
    ASSERT_EQ(image->policies.size(), 1u);
    EXPECT_EQ(image->last.nonce_base, 1u << 30);
    // What is written again is the same: no field was lost.
    journal_writer again(session(), nullptr);
    again.put(image->sas[0]);
    again.put(image->policies[0]);
    EXPECT_EQ(copy_of(again.made()), copy_of(w.made()));
    const ipsec::sa& s = image->sas[0];
    EXPECT_EQ(s.id, some_sa(0x1000).id);
    EXPECT_TRUE(s.algs.aead.key.equals(some_sa(1).algs.aead.key));
    EXPECT_EQ(s.encap, some_sa(1).encap);
    EXPECT_EQ(s.security, some_sa(1).security);
    EXPECT_EQ(s.pcpu, 5u);
    EXPECT_EQ(s.replay, some_sa(1).replay);
    EXPECT_EQ(s.current, some_sa(1).current);
    EXPECT_TRUE(s.dying);
}

TEST(Journal, TheLastWordOnAnObjectCounts) {
    journal_writer w(session(), nullptr);
    w.put(some_sa(1));
    w.put(some_sa(2));
    ipsec::sa changed = some_sa(1);
    changed.reqid = 77;
    w.put(changed);
    w.put(some_sa(3));
    w.remove(some_sa(2).id);
    w.put(some_policy(1));
    w.put(some_policy(2));
    w.remove_policy(ipsec::policy_type::main, some_policy(1).index);
    w.put({ipsec::policy_action::block, ipsec::policy_action::allow, ipsec::policy_action::block},
          {24, 16, 64, 48});
    const auto image = read(copy_of(w.made())).value();
    ASSERT_EQ(image.sas.size(), 2u);
    EXPECT_EQ(image.sas[0].reqid, 77u) << "it keeps its age";
    EXPECT_EQ(image.sas[1].id.spi, wire::be32(3));
    ASSERT_EQ(image.policies.size(), 1u);
    EXPECT_EQ(image.policies[0].index, some_policy(2).index);
    EXPECT_EQ(image.defaults[0], ipsec::policy_action::block);
    EXPECT_EQ(image.thresholds.remote_v6, 48);
}

TEST(Journal, WhatIsRewrittenFromTheNewestDownKeepsItsOrder) {
    journal_writer w(session(), nullptr);
    w.begin_after(30);
    w.put(some_sa(99)); // comes while the others are being rewritten
    for (const std::uint32_t n : {30u, 20u, 10u})
        w.put(some_sa(n), n);
    const auto image = read(copy_of(w.made())).value();
    std::vector<std::uint32_t> spis;
    for (const ipsec::sa& s : image.sas)
        spis.push_back(s.id.spi.host());
    EXPECT_EQ(spis, (std::vector<std::uint32_t>{10, 20, 30, 99}));
}

TEST(Journal, AFlushTakesTheSasOfItsProtocolAndPoliciesOfItsType) {
    journal_writer w(session(), nullptr);
    w.put(some_sa(1));
    w.remove_sas(51);
    w.put(some_policy(1));
    ipsec::policy sub = some_policy(2);
    sub.type = ipsec::policy_type::sub;
    w.put(sub);
    w.remove_policies(ipsec::policy_type::main);
    auto image = read(copy_of(w.made())).value();
    EXPECT_EQ(image.sas.size(), 1u);
    ASSERT_EQ(image.policies.size(), 1u);
    EXPECT_EQ(image.policies[0].type, ipsec::policy_type::sub);
    w.remove_sas(0);
    EXPECT_TRUE(read(copy_of(w.made()))->sas.empty());
}

TEST(Journal, ReadsUpToATornEndWhereverItIs) {
    journal_writer w(session(), nullptr);
    w.put(some_sa(1));
    const std::size_t whole = w.made().size();
    w.put(some_sa(2));
    const bytes file = copy_of(w.made());
    for (std::size_t length = whole; length < file.size(); ++length) {
        const auto image = read(bytes(file.begin(), file.begin() + std::ptrdiff_t(length)));
        ASSERT_TRUE(image) << length;
        EXPECT_EQ(image->sas.size(), 1u);
        EXPECT_EQ(image->whole, whole);
    }
    bytes unwritten = file; // the last page never reached the disk
    std::fill(unwritten.end() - 20, unwritten.end(), 0xee);
    EXPECT_EQ(read(unwritten)->sas.size(), 1u);
}

TEST(Journal, RefusesEveryFlippedBitBeforeItsLastRecord) {
    journal_writer w(session(), nullptr);
    w.put(some_sa(1));
    const std::size_t first = w.made().size();
    w.put(some_sa(2));
    for (std::size_t at = 0; at < first; ++at) {
        bytes file = copy_of(w.made());
        file[at] ^= 0x10;
        const auto image = read(file);
        // A length that now reaches beyond the end looks like a torn end: nothing wrong is read.
        EXPECT_TRUE(!image || image->sas.empty()) << at;
    }
}

TEST(Journal, ASealedLogOpensWithItsKeyAlone) {
    const auto opener = [](std::uint8_t key) {
        return [key](const journal_session&) { return std::make_unique<xor_seal>(key); };
    };
    journal_writer w(session(true), std::make_unique<xor_seal>(3));
    w.put(some_sa(1));
    w.put(some_sa(2));
    const bytes file = copy_of(w.made());
    const bytes key(20, 0x5a);
    EXPECT_EQ(std::search(file.begin(), file.end(), key.begin(), key.end()), file.end());
    EXPECT_EQ(read_journal(file, opener(3))->sas.size(), 2u);
    EXPECT_EQ(read_journal(file, opener(4)).error().text, "sealed with another key, or corrupted");
    EXPECT_EQ(read(file).error().code, ENOKEY);
}

TEST(Journal, TheNextWriterContinuesWithASessionOfItsOwn) {
    const auto opener = [](const journal_session& s) {
        return std::make_unique<xor_seal>(s.salt[0]);
    };
    journal_session one = session(true), two = session(true);
    two.salt[0] = 1;
    two.nonce_base = 5;
    journal_writer first(one, opener(one)), second(two, opener(two));
    first.put(some_sa(1));
    second.put(some_sa(2));
    bytes file = copy_of(first.made());
    file.insert(file.end(), second.made().begin(), second.made().end());
    const auto image = read_journal(file, opener).value();
    EXPECT_EQ(image.sas.size(), 2u);
    EXPECT_EQ(image.last.nonce_base, 5u);
}

TEST(Journal, AnEmptyFileIsAnEmptyState) {
    const auto image = read({}).value();
    EXPECT_TRUE(image.sas.empty());
    EXPECT_EQ(image.whole, 0u);
}

} // namespace
} // namespace esplane::tests
