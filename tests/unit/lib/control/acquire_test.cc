// SPDX-License-Identifier: Apache-2.0
//
// ACQUIRE by the kernel's rules, seen from outside: what the data path wants goes in, events and
// larval SAs come out.
#include <gtest/gtest.h>

#include "lib/control/layer.h"
#include "tests/unit/lib/event_log.h"
#include "tests/unit/lib/fake_backend.h"

namespace esplane::control {
namespace {

using lines = std::vector<std::string>;

const ipsec::originator client{42, 7};
const moment start{5'000'000'000, 1'000'000};

moment after(std::uint64_t seconds) {
    return {start.monotonic_ns + seconds * 1'000'000'000, start.realtime_s + seconds};
}

ipsec::address parse(const char* text) {
    return *ipsec::address::parse(text);
}

ipsec::template_ tunnel_template() {
    ipsec::template_ t;
    t.id.destination = parse("10.1.0.2");
    t.source = parse("10.1.0.1");
    t.fam = ipsec::family::ipv4;
    t.reqid = 1;
    return t;
}

ipsec::policy trap_to(const char* network, const ipsec::template_& t) {
    ipsec::policy p;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = parse("192.168.1.0");
    p.sel.destination = parse(network);
    p.sel.source_prefix = p.sel.destination_prefix = 24;
    p.templates.push_back(t);
    return p;
}

ipsec::flow ping_to(const char* host) {
    ipsec::flow f;
    f.source = parse("192.168.1.1");
    f.destination = parse(host);
    f.protocol = 1;
    f.source_port = wire::be16(8);
    return f;
}

ipsec::sa answer(std::uint32_t spi, std::uint32_t seq = 0) {
    ipsec::sa s;
    s.id = {parse("10.1.0.2"), wire::be32(spi), 50};
    s.source = parse("10.1.0.1");
    s.reqid = 1;
    s.seq = seq;
    return s;
}

class Acquire : public testing::Test {
  protected:
    Acquire() {
        layer_.subscribe(&events_);
        layer_.answer_acquires(&events_, true);
        layer_.tick(start);
    }

    std::uint32_t add(ipsec::policy p) {
        EXPECT_TRUE(layer_.add_policy(std::move(p), client, start));
        cursor newest;
        const std::uint32_t index = layer_.next_policy(newest)->index;
        forget();
        return index;
    }
    void want(std::uint32_t policy, const char* host) {
        backend_.listener->on_sa_wanted(policy, ping_to(host), std::nullopt);
    }
    void forget() {
        (void)backend_.taken_calls();
        (void)events_.taken();
    }
    const ipsec::sa* newest_sa() {
        cursor newest;
        return layer_.next_sa(newest);
    }

    fake_backend backend_;
    event_log events_;
    layer layer_{backend_, [](std::span<std::uint8_t> into) { std::ranges::fill(into, 1); }};
};

TEST_F(Acquire, IsAnnouncedOnceForATemplateWhateverTheFlowsAre) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    want(policy, "192.168.2.1");
    want(policy, "192.168.2.2");
    const auto said = events_.taken();
    ASSERT_EQ(said.size(), 1u);
    EXPECT_EQ(said[0], "acquire " + std::to_string(policy) + " " + newest_sa()->sel.to_string());
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_TRUE(backend_.taken_calls().empty()) << "larval SAs are no backend's";
}

TEST_F(Acquire, ListsALarvalSaOfThatFlowAlone) {
    layer_.set_acquire_expires(165);
    want(add(trap_to("192.168.2.0", tunnel_template())), "192.168.2.9");
    const ipsec::sa* larval = newest_sa();
    ASSERT_NE(larval, nullptr);
    EXPECT_EQ(larval->state, ipsec::sa_state::larval);
    EXPECT_EQ(larval->id.spi, wire::be32());
    EXPECT_EQ(larval->id.destination, parse("10.1.0.2"));
    EXPECT_EQ(larval->source, parse("10.1.0.1"));
    EXPECT_EQ(larval->dir, ipsec::direction::out);
    EXPECT_EQ(larval->reqid, 1u);
    EXPECT_EQ(larval->seq, 1u);
    EXPECT_EQ(larval->limits.hard_add_s, 165u);
    EXPECT_TRUE(larval->sel.matches(ping_to("192.168.2.9")));
    EXPECT_FALSE(larval->sel.matches(ping_to("192.168.2.8")));
    EXPECT_EQ(layer_.get_sa(larval->id), nullptr) << "without an SPI nothing names it";
}

TEST_F(Acquire, AnotherCpuIsAnotherAcquire) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    const ipsec::flow f = ping_to("192.168.2.1");
    backend_.listener->on_sa_wanted(policy, f, std::nullopt);
    backend_.listener->on_sa_wanted(policy, f, 0);
    backend_.listener->on_sa_wanted(policy, f, 1);
    backend_.listener->on_sa_wanted(policy, f, 1);
    EXPECT_EQ(events_.taken().size(), 3u);
    EXPECT_EQ(newest_sa()->pcpu, 1u);
}

TEST_F(Acquire, OfACpuEndsWithAnSaForThatCpuAlone) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    backend_.listener->on_sa_wanted(policy, ping_to("192.168.2.1"), 1);
    const std::uint32_t seq = newest_sa()->seq;
    ASSERT_TRUE(layer_.add_sa(answer(0x100, seq), client, start));
    EXPECT_EQ(layer_.sa_count(), 2u) << "it is for all CPUs";
    ipsec::sa of_cpu = answer(0x101, seq);
    of_cpu.pcpu = 1;
    ASSERT_TRUE(layer_.add_sa(std::move(of_cpu), client, start));
    EXPECT_EQ(layer_.sa_count(), 2u) << "the larval one is gone";
}

TEST_F(Acquire, OfACpuGetsItsSpiByThatCpu) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    backend_.listener->on_sa_wanted(policy, ping_to("192.168.2.1"), 1);
    spi_request r;
    r.source = parse("10.1.0.1");
    r.destination = parse("10.1.0.2");
    r.reqid = 1;
    r.seq = newest_sa()->seq;
    r.min = 0x1000;
    r.max = 0x2000;
    ASSERT_TRUE(layer_.allocate_spi(r, start));
    EXPECT_EQ(layer_.sa_count(), 2u) << "one for all CPUs was asked for";
    r.pcpu = 1;
    ASSERT_TRUE(layer_.allocate_spi(r, start));
    EXPECT_EQ(layer_.sa_count(), 2u);
}

TEST_F(Acquire, AnotherReqidIsAnotherAcquire) {
    ipsec::template_ other = tunnel_template();
    other.reqid = 2;
    const std::uint32_t one = add(trap_to("192.168.2.0", tunnel_template()));
    const std::uint32_t two = add(trap_to("192.168.3.0", other));
    want(one, "192.168.2.1");
    want(two, "192.168.3.1");
    EXPECT_EQ(events_.taken().size(), 2u);
    EXPECT_EQ(layer_.sa_count(), 2u);
}

TEST_F(Acquire, InTransportModeEachPairOfHostsIsAsked) {
    ipsec::template_ t;
    t.fam = ipsec::family::ipv4;
    t.run_mode = ipsec::mode::transport;
    t.reqid = 1;
    const std::uint32_t policy = add(trap_to("192.168.2.0", t));
    want(policy, "192.168.2.1");
    want(policy, "192.168.2.2");
    want(policy, "192.168.2.1");
    EXPECT_EQ(events_.taken().size(), 2u);
    EXPECT_EQ(newest_sa()->id.destination, parse("192.168.2.2"));
    EXPECT_EQ(newest_sa()->source, parse("192.168.1.1"));
}

TEST_F(Acquire, AnSaWithItsSeqEndsIt) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    want(policy, "192.168.2.1");
    ipsec::sa s = answer(0x100, newest_sa()->seq);
    s.reqid = 9; // found by seq alone
    forget();
    ASSERT_TRUE(layer_.add_sa(std::move(s), client, start));
    EXPECT_EQ(events_.taken(), (lines{"sa added 256 by 42"})) << "nobody hears of the larval one";
    EXPECT_EQ(layer_.sa_count(), 1u);
    want(policy, "192.168.2.1");
    EXPECT_EQ(events_.taken().size(), 1u) << "the backend says that it is wanted again";
}

TEST_F(Acquire, AnSaForTheSameWithoutSeqEndsItToo) {
    want(add(trap_to("192.168.2.0", tunnel_template())), "192.168.2.1");
    ASSERT_TRUE(layer_.add_sa(answer(0x100), client, start));
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_EQ(newest_sa()->id.spi, wire::be32(0x100));
}

TEST_F(Acquire, AnSaToAnotherPeerDoesNotEndIt) {
    want(add(trap_to("192.168.2.0", tunnel_template())), "192.168.2.1");
    ipsec::sa s = answer(0x100, newest_sa()->seq);
    s.id.destination = parse("10.1.0.3");
    ASSERT_TRUE(layer_.add_sa(std::move(s), client, start));
    EXPECT_EQ(layer_.sa_count(), 2u);
}

TEST_F(Acquire, ExpiresHardAndMayBeRaisedAgain) {
    layer_.set_acquire_expires(10);
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    want(policy, "192.168.2.1");
    forget();
    layer_.tick(after(9));
    EXPECT_TRUE(events_.taken().empty());
    layer_.tick(after(11));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 0 hard"}));
    EXPECT_EQ(layer_.sa_count(), 0u);
    want(policy, "192.168.2.1");
    EXPECT_EQ(events_.taken().size(), 1u);
    EXPECT_EQ(newest_sa()->seq, 2u);
}

TEST_F(Acquire, AnSpiGoesToTheLarvalSaThatAsksForIt) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    want(policy, "192.168.2.1");
    spi_request r;
    r.destination = parse("10.1.0.2");
    r.source = parse("10.1.0.1");
    r.seq = newest_sa()->seq;
    r.min = r.max = 0x200;
    const auto s = layer_.allocate_spi(r, start);
    ASSERT_TRUE(s);
    EXPECT_EQ(s->get().id.spi, wire::be32(0x200));
    EXPECT_EQ(s->get().reqid, 1u);
    EXPECT_EQ(layer_.sa_count(), 1u);
    forget();
    want(policy, "192.168.2.1");
    EXPECT_TRUE(events_.taken().empty()) << "it is under way still";
    ASSERT_TRUE(layer_.update_sa(answer(0x200), client, start));
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_EQ(newest_sa()->state, ipsec::sa_state::valid);
}

TEST_F(Acquire, AnSpiForTheOtherDirectionIsAnotherLarvalSa) {
    want(add(trap_to("192.168.2.0", tunnel_template())), "192.168.2.1");
    spi_request r;
    r.destination = parse("10.1.0.1");
    r.source = parse("10.1.0.2");
    r.seq = newest_sa()->seq;
    r.reqid = 1;
    r.min = r.max = 0x200;
    ASSERT_TRUE(layer_.allocate_spi(r, start));
    EXPECT_EQ(layer_.sa_count(), 2u);
}

TEST_F(Acquire, AFlushTakesItAndItMayBeRaisedAgain) {
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    want(policy, "192.168.2.1");
    layer_.flush_sas(50, client);
    EXPECT_EQ(layer_.sa_count(), 0u);
    forget();
    want(policy, "192.168.2.1");
    EXPECT_EQ(events_.taken().size(), 1u);
}

TEST_F(Acquire, NothingIsRaisedWhileNobodyAnswers) {
    layer_.set_acquire_expires(165);
    const std::uint32_t policy = add(trap_to("192.168.2.0", tunnel_template()));
    layer_.answer_acquires(&events_, false);
    EXPECT_EQ(backend_.taken_calls(), (lines{"await_sas 0"}));
    want(policy, "192.168.2.1");
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_TRUE(events_.taken().empty());
    layer_.answer_acquires(&events_, true);
    EXPECT_EQ(backend_.taken_calls(), (lines{"await_sas 165"}));
    layer_.unsubscribe(&events_);
    EXPECT_EQ(backend_.taken_calls(), (lines{"await_sas 0"})) << "who leaves answers nothing";
}

TEST_F(Acquire, NothingIsRaisedForAPolicyThatWentOrProtectsNothing) {
    ipsec::policy pass = trap_to("192.168.3.0", tunnel_template());
    pass.templates.clear();
    const std::uint32_t index = add(std::move(pass));
    want(index, "192.168.3.1");
    want(index + 8, "192.168.3.1");
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_TRUE(events_.taken().empty());
}

TEST_F(Acquire, AFloodOfPairsIsBounded) {
    ipsec::template_ t;
    t.fam = ipsec::family::ipv4;
    t.run_mode = ipsec::mode::transport;
    const std::uint32_t policy = add(trap_to("10.0.0.0", t));
    ipsec::flow f = ping_to("10.0.0.0");
    for (std::uint32_t i = 0; i < 10'000; ++i) {
        f.destination.bytes[2] = static_cast<std::uint8_t>(i >> 8);
        f.destination.bytes[3] = static_cast<std::uint8_t>(i);
        backend_.listener->on_sa_wanted(policy, f, std::nullopt);
    }
    EXPECT_EQ(layer_.sa_count(), 4096u);
    layer_.tick(after(31));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

} // namespace
} // namespace esplane::control
