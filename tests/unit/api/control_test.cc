// SPDX-License-Identifier: Apache-2.0
//
// SAs, policies and events through the C interface.
#include <cerrno>
#include <cstring>

#include <gtest/gtest.h>

#include "tests/support/lab.h"
#include "tests/unit/api/gateway.h"

namespace esplane::tests {
namespace {

esplane_sa empty_sa() {
    esplane_sa s;
    esplane_sa_init(&s);
    return s;
}

TEST(ApiSa, ComesBackAsItWasGiven) {
    const gateway g(1);
    bytes key(32, 0x42), auth(32, 0x24);
    const std::uint32_t bitmap[] = {5, 9};
    esplane_sa s = empty_sa();
    s.id.destination = ip("192.168.77.2");
    s.id.spi = 0xabcdef01;
    s.source = ip("192.168.77.1");
    s.selector.family = ESPLANE_IPV6;
    s.selector.source = ip("fd01::");
    s.selector.source_prefix = 32;
    s.selector.destination = ip("fd02::");
    s.selector.destination_prefix = 128;
    s.selector.protocol = 17;
    s.selector.destination_port = 53;
    s.selector.destination_port_mask = 0xffff;
    s.care_of = ip("192.168.77.9");
    s.flags = ESPLANE_SA_ESN | ESPLANE_SA_NO_ECN;
    s.extra_flags = ESPLANE_SA_DONT_ENCAP_DSCP;
    s.reqid = 77;
    s.if_id = 5;
    s.encapsulation.type = 2;
    s.encapsulation.source_port = 4500;
    s.encapsulation.destination_port = 30000;
    s.cipher = {"cbc(aes)", key.data(), 32, 0};
    s.auth = {"hmac(sha256)", auth.data(), 32, 128};
    s.replay_window = 64;
    s.bitmap = bitmap;
    s.bitmap_words = 2;
    s.sequence_sent = 0x1'0000'0005;
    s.sequence_received = 0x2'0000'0006;
    s.limits = {1, 2, 3, 4, 500, 600, 700, 800};
    ASSERT_EQ(esplane_sa_add(g.engine, &s, at(1)), 0) << esplane_error_text();

    esplane_sa back = empty_sa();
    ASSERT_EQ(esplane_sa_get(g.engine, &s.id, &back), 0);
    const auto same = [](const auto& a, const auto& b) {
        return std::memcmp(&a, &b, sizeof a) == 0;
    };
    EXPECT_TRUE(same(back.id, s.id));
    EXPECT_TRUE(same(back.source, s.source));
    EXPECT_TRUE(same(back.selector, s.selector));
    EXPECT_TRUE(same(back.care_of, s.care_of));
    EXPECT_TRUE(same(back.limits, s.limits));
    EXPECT_EQ(back.mode, ESPLANE_TUNNEL);
    EXPECT_EQ(back.state, ESPLANE_VALID);
    EXPECT_EQ(back.flags, s.flags);
    EXPECT_EQ(back.extra_flags, s.extra_flags);
    EXPECT_EQ(back.reqid, 77u);
    EXPECT_EQ(back.if_id, 5u);
    EXPECT_EQ(back.encapsulation.source_port, 4500);
    EXPECT_EQ(back.encapsulation.destination_port, 30000);
    EXPECT_EQ(back.encapsulation.type, 2);
    EXPECT_EQ(back.aead.name, nullptr);
    EXPECT_STREQ(back.cipher.name, "cbc(aes)");
    EXPECT_STREQ(back.auth.name, "hmac(sha256)");
    EXPECT_EQ(bytes(back.cipher.key, back.cipher.key + back.cipher.key_length), key);
    EXPECT_EQ(bytes(back.auth.key, back.auth.key + back.auth.key_length), auth);
    EXPECT_EQ(back.auth.icv_bits, 128u);
    EXPECT_EQ(back.replay_window, 64u);
    ASSERT_EQ(back.bitmap_words, 2u);
    EXPECT_EQ(back.bitmap[0], 5u);
    EXPECT_EQ(back.bitmap[1], 9u);
    EXPECT_EQ(back.sequence_sent, s.sequence_sent);
    EXPECT_EQ(back.sequence_received, s.sequence_received);
    EXPECT_EQ(back.current.add_time, at(1).realtime_s);
    EXPECT_EQ(back.last_used, 0u);
}

TEST(ApiSa, IsOneOfItsKindAndGoesWhenItIsDeleted) {
    const gateway g(1);
    const esplane_sa s = make_sa(1, g.key);
    EXPECT_EQ(esplane_sa_delete(g.engine, &s.id), -ESRCH);
    EXPECT_EQ(esplane_sa_update(g.engine, &s, at(1)), -ESRCH);
    EXPECT_EQ(esplane_sa_add(g.engine, &s, at(1)), 0);
    EXPECT_EQ(esplane_sa_add(g.engine, &s, at(1)), -EEXIST);
    EXPECT_EQ(esplane_sa_delete(g.engine, &s.id), 0);
    esplane_sa back = empty_sa();
    EXPECT_EQ(esplane_sa_get(g.engine, &s.id, &back), -ESRCH);
}

TEST(ApiSa, AWalkMeetsEachOnceWhileOthersComeAndGo) {
    const gateway g(1);
    esplane_sa s = make_sa(1, g.key);
    for (s.id.spi = 1; s.id.spi <= 100; ++s.id.spi)
        ASSERT_EQ(esplane_sa_add(g.engine, &s, at(1)), 0);
    std::vector<unsigned> met(300);
    std::uint64_t cursor = UINT64_MAX;
    esplane_sa found = empty_sa();
    while (esplane_sa_next(g.engine, &cursor, &found) == 1) {
        ++met[found.id.spi];
        ASSERT_EQ(esplane_sa_add(g.engine, &s, at(1)), 0);
        ++s.id.spi;
    }
    for (unsigned spi = 1; spi <= 100; ++spi)
        EXPECT_EQ(met[spi], 1u) << spi;
}

TEST(ApiSa, AnSpiIsReservedAndThenFilled) {
    const gateway g(1);
    esplane_spi_request r;
    esplane_spi_request_init(&r);
    r.source = ip("192.168.77.2");
    r.destination = ip("192.168.77.1");
    r.min = r.max = 0x500;
    std::uint32_t spi = 0;
    ASSERT_EQ(esplane_spi_allocate(g.engine, &r, at(1), &spi), 0);
    EXPECT_EQ(spi, 0x500u);
    EXPECT_EQ(esplane_spi_allocate(g.engine, &r, at(1), &spi), -ENOENT);
    r.min = 2;
    r.max = 1;
    EXPECT_EQ(esplane_spi_allocate(g.engine, &r, at(1), &spi), -EINVAL);
    esplane_sa s = make_sa(2, g.key);
    s.id.spi = 0x500;
    esplane_sa back = empty_sa();
    ASSERT_EQ(esplane_sa_get(g.engine, &s.id, &back), 0);
    EXPECT_EQ(back.state, ESPLANE_LARVAL);
    ASSERT_EQ(esplane_sa_update(g.engine, &s, at(1)), 0);
    ASSERT_EQ(esplane_sa_get(g.engine, &s.id, &back), 0);
    EXPECT_EQ(back.state, ESPLANE_VALID);
}

TEST(ApiPolicy, ComesBackAsItWasGiven) {
    const gateway g(1);
    esplane_template via;
    esplane_policy p = make_policy(ESPLANE_FORWARD, 2, via);
    via.optional = 1;
    via.id.spi = 0x1234;
    p.priority = 17;
    p.if_id = 3;
    p.selector.protocol = 6;
    ASSERT_EQ(esplane_policy_add(g.engine, &p, at(1)), 0) << esplane_error_text();
    esplane_policy_key name;
    esplane_policy_key_init(&name);
    name.direction = ESPLANE_FORWARD;
    name.selector = p.selector;
    esplane_policy back;
    esplane_policy_init(&back);
    EXPECT_EQ(esplane_policy_get(g.engine, &name, &back), -ENOENT); // of no interface
    name.if_id = 3;
    ASSERT_EQ(esplane_policy_get(g.engine, &name, &back), 0);
    EXPECT_EQ(std::memcmp(&back.selector, &p.selector, sizeof p.selector), 0);
    ASSERT_EQ(back.template_count, 1u);
    EXPECT_EQ(std::memcmp(back.templates, &via, sizeof via), 0);
    EXPECT_EQ(back.priority, 17u);
    EXPECT_EQ(back.if_id, 3u);
    EXPECT_EQ(back.direction, ESPLANE_FORWARD);
    EXPECT_EQ(back.index & 7, static_cast<unsigned>(ESPLANE_FORWARD));

    name.index = back.index; // names it without its selector
    name.selector = {};
    EXPECT_EQ(esplane_policy_get(g.engine, &name, &back), 0);
    EXPECT_EQ(esplane_policy_add(g.engine, &p, at(1)), -EEXIST);
    p.priority = 18;
    EXPECT_EQ(esplane_policy_update(g.engine, &p, at(1)), 0);
    EXPECT_EQ(esplane_policy_get(g.engine, &name, &back), 0);
    EXPECT_EQ(back.priority, 18u);
    EXPECT_EQ(esplane_policy_delete(g.engine, &name), 0);
    EXPECT_EQ(esplane_policy_delete(g.engine, &name), -ENOENT);
    std::uint64_t cursor = UINT64_MAX;
    EXPECT_EQ(esplane_policy_next(g.engine, &cursor, &back), 0);
}

/// Events as text: "sa added 1001".
struct event_log {
    std::vector<std::string> lines;
    static void on_event(void* user, const esplane_event* e) {
        static const char* const names[] = {"",
                                            "added",
                                            "updated",
                                            "deleted",
                                            "flushed",
                                            "expired",
                                            "first use",
                                            "policy added",
                                            "policy updated",
                                            "policy deleted",
                                            "policy flushed",
                                            "policy expired",
                                            "acquire"};
        std::string line = names[e->kind];
        if (e->hard != 0) line += " hard";
        if (e->sa != nullptr) {
            line += " " + std::to_string(e->sa->id.spi - 0x1000);
            EXPECT_EQ(e->sa->aead.key, nullptr) << "a key in an event";
        }
        if (e->policy != nullptr) line += " " + std::to_string(e->policy->direction);
        static_cast<event_log*>(user)->lines.push_back(line);
    }
};
event_log log_of_test;

class ApiEvents : public testing::Test {
  protected:
    ApiEvents() { log_of_test.lines.clear(); }
    /// What was told since the last call.
    static std::vector<std::string> told() { return std::exchange(log_of_test.lines, {}); }
    static void with_log(esplane_engine_options& o) {
        o.event = event_log::on_event;
        o.event_user = &log_of_test;
    }
    using lines = std::vector<std::string>;
    gateway g{1, with_log};
};

TEST_F(ApiEvents, TellEachChangeDuringItsCall) {
    g.add_sa(1);
    EXPECT_EQ(told(), lines{"added 1"});
    const esplane_sa s = make_sa(1, g.key);
    EXPECT_EQ(esplane_sa_update(g.engine, &s, at(1)), 0);
    EXPECT_EQ(told(), lines{"updated 1"});
    EXPECT_EQ(esplane_sa_delete(g.engine, &s.id), 0);
    EXPECT_EQ(told(), lines{"deleted 1"});
    g.add_sa(2);
    EXPECT_EQ(esplane_sa_flush(g.engine), 0);
    EXPECT_EQ(told(), (lines{"added 2", "flushed"}));
    g.add_policy(ESPLANE_OUT, 1);
    EXPECT_EQ(esplane_policy_flush(g.engine), 0);
    EXPECT_EQ(told(), (lines{"policy added 1", "policy flushed"}));
    EXPECT_EQ(esplane_sa_delete(g.engine, &s.id), -ESRCH);
    EXPECT_EQ(told(), lines{});
}

TEST_F(ApiEvents, TellFirstUseAndLimitsAtTheNextTick) {
    esplane_sa s = make_sa(1, g.key);
    s.limits.soft_packets = 2;
    s.limits.hard_packets = 4;
    ASSERT_EQ(esplane_sa_add(g.engine, &s, at(g.clock)), 0);
    g.add_policy(ESPLANE_OUT, 1);
    (void)told();
    const auto send = [&] {
        buffer b(make_packet({}));
        g.outbound(b);
        EXPECT_EQ(esplane_tick(g.engine, at(g.clock)), 0);
        return b.packet;
    };
    EXPECT_EQ(send().verdict, ESPLANE_PROTECTED);
    EXPECT_EQ(told(), lines{"first use 1"});
    EXPECT_EQ(send().verdict, ESPLANE_PROTECTED);
    EXPECT_EQ(told(), lines{});
    EXPECT_EQ(send().verdict, ESPLANE_PROTECTED);
    EXPECT_EQ(told(), lines{"expired 1"});
    EXPECT_EQ(send().verdict, ESPLANE_PROTECTED);
    const esplane_packet refused = send();
    EXPECT_EQ(refused.verdict, ESPLANE_DISCARD);
    EXPECT_STREQ(esplane_reason_name(refused.reason), "sa_expired");
    EXPECT_EQ(told(), (lines{"expired hard 1"}));
}

struct ApiAcquire : ApiEvents {
    ApiAcquire() {
        g.add_policy(ESPLANE_OUT, 1);
        EXPECT_EQ(esplane_answer_acquires(g.engine, 30), 0);
        (void)told();
    }
    esplane_packet send() {
        buffer b(make_packet({}));
        g.outbound(b);
        EXPECT_EQ(b.untouched(), b.packet.verdict != ESPLANE_PROTECTED);
        EXPECT_EQ(esplane_tick(g.engine, at(g.clock)), 0);
        return b.packet;
    }
    static constexpr const char* asked =
        "acquire 4294963200 1"; // SPI 0, 4,096 below the first; direction out
};

TEST_F(ApiAcquire, IsToldOnceAndItsPacketsMayWait) {
    EXPECT_EQ(send().verdict, ESPLANE_AWAIT_SA);
    EXPECT_EQ(told(), lines{asked});
    EXPECT_EQ(send().verdict, ESPLANE_AWAIT_SA);
    g.clock += 5;
    EXPECT_EQ(send().verdict, ESPLANE_AWAIT_SA);
    EXPECT_EQ(told(), lines{});
    EXPECT_EQ(g.dropped("sa_missing"), 3u);
    EXPECT_EQ(g.counters().dropped, 3u);
}

TEST_F(ApiAcquire, ItsSeqGivenBackEndsIt) {
    (void)send();
    std::uint64_t newest = UINT64_MAX;
    esplane_sa larval = empty_sa();
    ASSERT_EQ(esplane_sa_next(g.engine, &newest, &larval), 1);
    EXPECT_EQ(larval.state, ESPLANE_LARVAL);
    (void)told();
    esplane_sa s = make_sa(1, g.key);
    s.seq = larval.seq;
    ASSERT_EQ(esplane_sa_add(g.engine, &s, at(g.clock)), 0);
    EXPECT_EQ(told(), lines{"added 1"});
    EXPECT_EQ(send().verdict, ESPLANE_PROTECTED);
    newest = UINT64_MAX;
    ASSERT_EQ(esplane_sa_next(g.engine, &newest, &larval), 1);
    EXPECT_EQ(larval.id.spi, 0x1001u);
    EXPECT_EQ(esplane_sa_next(g.engine, &newest, &larval), 0);
}

TEST_F(ApiAcquire, ThatNobodyAnsweredExpiresHardAndComesAgain) {
    (void)send();
    (void)told();
    g.clock += 31;
    EXPECT_EQ(esplane_tick(g.engine, at(g.clock)), 0);
    EXPECT_EQ(told(), lines{"expired hard 4294963200"});
    (void)send();
    EXPECT_EQ(told(), lines{asked});
}

TEST_F(ApiAcquire, IsNotToldToWhoDoesNotAnswer) {
    EXPECT_EQ(esplane_answer_acquires(g.engine, 0), 0);
    EXPECT_EQ(send().verdict, ESPLANE_DISCARD);
    EXPECT_EQ(told(), lines{});
}

TEST_F(ApiEvents, TellLimitsInTimeWhenTheyAreDue) {
    esplane_sa s = make_sa(1, g.key);
    s.limits.soft_add_s = 10;
    s.limits.hard_add_s = 20;
    ASSERT_EQ(esplane_sa_add(g.engine, &s, at(1000)), 0);
    (void)told();
    std::uint64_t due = 0;
    ASSERT_EQ(esplane_next_deadline(g.engine, &due), 0);
    EXPECT_EQ(due, at(1010).monotonic_ns);
    EXPECT_EQ(esplane_tick(g.engine, at(1009)), 0);
    EXPECT_EQ(told(), lines{});
    EXPECT_EQ(esplane_tick(g.engine, at(1010)), 0);
    EXPECT_EQ(told(), lines{"expired 1"});
    EXPECT_EQ(esplane_tick(g.engine, at(1020)), 0);
    EXPECT_EQ(told(), lines{"expired hard 1"});
    esplane_sa back = empty_sa();
    EXPECT_EQ(esplane_sa_get(g.engine, &s.id, &back), -ESRCH);
    ASSERT_EQ(esplane_next_deadline(g.engine, &due), 0);
    EXPECT_EQ(due, UINT64_MAX);
}

} // namespace
} // namespace esplane::tests
