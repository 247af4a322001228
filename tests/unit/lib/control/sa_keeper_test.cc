// SPDX-License-Identifier: Apache-2.0
//
// The rules for SAs, seen from outside: requests into the layer, calls to a fake backend and
// events out of it, time made by hand.
#include <gtest/gtest.h>

#include <random>

#include "lib/control/layer.h"
#include "tests/unit/lib/event_log.h"
#include "tests/unit/lib/fake_backend.h"

namespace esplane::control::sa_keeper_test {
namespace {

using lines = std::vector<std::string>;

const ipsec::originator client{42, 7};
const moment start{5'000'000'000, 1'000'000};

moment after(std::uint64_t seconds) {
    return {start.monotonic_ns + seconds * 1'000'000'000, start.realtime_s + seconds};
}

ipsec::sa_id id_of(std::uint32_t spi) {
    return {*ipsec::address::parse("10.1.0.2"), wire::be32(spi), 50};
}

ipsec::sa make_sa(std::uint32_t spi) {
    ipsec::sa s;
    s.id = id_of(spi);
    s.source = *ipsec::address::parse("10.1.0.1");
    return s;
}

ipsec::sa timed(std::uint32_t spi, std::uint64_t soft_s, std::uint64_t hard_s) {
    ipsec::sa s = make_sa(spi);
    s.limits.soft_add_s = soft_s;
    s.limits.hard_add_s = hard_s;
    return s;
}

spi_request spis(std::uint32_t min, std::uint32_t max) {
    spi_request r;
    r.source = *ipsec::address::parse("10.1.0.1");
    r.destination = *ipsec::address::parse("10.1.0.2");
    r.min = min;
    r.max = max;
    return r;
}

class SaRules : public testing::Test {
  protected:
    SaRules() { layer_.subscribe(&events_); }

    void add(ipsec::sa s, moment now = start) {
        ASSERT_TRUE(layer_.add_sa(std::move(s), client, now));
    }
    /// Adds one and forgets the calls and events of it.
    void given(ipsec::sa s) {
        add(std::move(s));
        forget();
    }
    void forget() {
        (void)backend_.taken_calls();
        (void)events_.taken();
    }
    void count_packets(std::uint32_t spi, std::uint64_t packets, std::uint64_t use_time) {
        backend_.usage[id_of(spi)].current.packets = packets;
        backend_.usage[id_of(spi)].current.use_time = use_time;
    }
    std::vector<std::uint32_t> walk() {
        std::vector<std::uint32_t> found;
        cursor c;
        while (const ipsec::sa* s = layer_.next_sa(c))
            found.push_back(s->id.spi.host());
        return found;
    }

    std::mt19937 numbers_{1};
    fake_backend backend_;
    event_log events_;
    layer layer_{backend_, [this](std::span<std::uint8_t> into) {
                     for (auto& b : into)
                         b = static_cast<std::uint8_t>(numbers_());
                 }};
};

TEST_F(SaRules, AnSaAddedReachesTheBackendAndIsAnnounced) {
    add(make_sa(1));
    EXPECT_EQ(backend_.taken_calls(), (lines{"add_sa 1"}));
    EXPECT_EQ(events_.taken(), (lines{"sa added 1 by 42"}));
    const ipsec::sa* s = layer_.get_sa(id_of(1));
    ASSERT_NE(s, nullptr);
    EXPECT_EQ(s->current.add_time, start.realtime_s);
    EXPECT_EQ(s->state, ipsec::sa_state::valid);
}

TEST_F(SaRules, AnSaThatIsThereIsNotAddedAgain) {
    given(make_sa(1));
    EXPECT_EQ(layer_.add_sa(make_sa(1), client, start).error().code, EEXIST);
    EXPECT_TRUE(backend_.taken_calls().empty());
    EXPECT_TRUE(events_.taken().empty());
}

TEST_F(SaRules, WhatTheBackendRefusesLeavesNoTrace) {
    backend_.refuse = error{ENOSYS, "not here", "XFRMA_ALG_AEAD"};
    EXPECT_EQ(layer_.add_sa(timed(1, 1, 2), client, start).error().field, "XFRMA_ALG_AEAD");
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_TRUE(events_.taken().empty());
    EXPECT_FALSE(layer_.next_deadline_ns());
}

TEST_F(SaRules, AnUpdateTheBackendRefusesLeavesTheSaAsItWas) {
    given(timed(1, 0, 100));
    backend_.refuse = error{ENOMEM, {}, {}};
    EXPECT_EQ(layer_.update_sa(timed(1, 0, 5), client, start).error().code, ENOMEM);
    EXPECT_EQ(layer_.get_sa(id_of(1))->limits.hard_add_s, 100u);
    EXPECT_EQ(layer_.next_deadline_ns(), after(100).monotonic_ns);
    EXPECT_TRUE(events_.taken().empty());
}

TEST_F(SaRules, CountersAClientRestoresAreKept) {
    ipsec::sa s = make_sa(1);
    s.current = {.bytes = 10, .packets = 2, .add_time = 500, .use_time = 600};
    s.replay.sent = 77;
    s.last_used = 650;
    given(std::move(s));
    const ipsec::sa* kept = layer_.get_sa(id_of(1));
    EXPECT_EQ(kept->current.add_time, 500u);
    EXPECT_EQ(kept->current.packets, 2u);
    EXPECT_EQ(kept->replay.sent, 77u);
    EXPECT_EQ(kept->last_used, 650u);
}

TEST_F(SaRules, CountersShownAreTheBackends) {
    given(make_sa(1));
    count_packets(1, 9, 1'000'001);
    backend_.usage[id_of(1)].replay.received = 33;
    const ipsec::sa* s = layer_.get_sa(id_of(1));
    EXPECT_EQ(s->current.packets, 9u);
    EXPECT_EQ(s->current.add_time, start.realtime_s) << "control's own";
    EXPECT_EQ(s->replay.received, 33u);
}

TEST_F(SaRules, ADeletionCarriesTheFinalCounters) {
    given(make_sa(1));
    count_packets(1, 5, 1'000'001);
    ASSERT_TRUE(layer_.delete_sa(id_of(1), client));
    EXPECT_EQ(events_.taken(), (lines{"sa deleted 1 packets 5 by 42"}));
    EXPECT_EQ(backend_.taken_calls(), (lines{"delete_sa 1"}));
    EXPECT_EQ(layer_.get_sa(id_of(1)), nullptr);
}

/// Hears of events, and writes down what the backend was asked before.
class early_listener final : public ipsec::listener {
  public:
    explicit early_listener(fake_backend& b)
        : backend_(b) {}
    void on_event(const ipsec::event& /*e*/) override {
        for (std::string& call : backend_.taken_calls())
            before_.push_back(std::move(call));
        before_.emplace_back("event");
    }
    lines taken() {
        for (std::string& call : backend_.taken_calls())
            before_.push_back(std::move(call));
        return std::exchange(before_, {});
    }

  private:
    fake_backend& backend_;
    lines before_;
};

TEST_F(SaRules, TheBackendHasAnSaUntilAllHaveHeardThatItGoes) {
    for (const std::uint32_t spi : {1u, 2u, 3u, 4u})
        given(timed(spi, 0, spi == 3 ? 5 : 0));
    early_listener listener(backend_);
    layer_.subscribe(&listener);
    ASSERT_TRUE(layer_.delete_sa(id_of(1), client));
    EXPECT_EQ(listener.taken(), (lines{"event", "delete_sa 1"}));
    backend_.listener->on_lifetime(id_of(2), true);
    EXPECT_EQ(listener.taken(), (lines{"event", "delete_sa 2"}));
    layer_.tick(after(5));
    EXPECT_EQ(listener.taken(), (lines{"begin_batch", "event", "delete_sa 3", "end_batch"}));
    layer_.flush_sas(0, client);
    EXPECT_EQ(listener.taken(), (lines{"event", "begin_batch", "delete_sa 4", "end_batch"}));
    layer_.unsubscribe(&listener);
}

TEST_F(SaRules, KeysThatWereAskedForEndWithTheirSa) {
    ipsec::sa s = make_sa(1);
    s.algs.aead = {"rfc4106(gcm(aes))", secret(std::array<std::uint8_t, 20>{1, 2, 3}), 128};
    given(std::move(s));
    const ipsec::sa& shown = *layer_.get_sa(id_of(1));
    ASSERT_FALSE(shown.algs.aead.key.empty());
    ASSERT_TRUE(layer_.delete_sa(id_of(1), client));
    EXPECT_TRUE(shown.algs.aead.key.empty()); // the layer's own copy, which stays where it is
}

TEST_F(SaRules, WhatIsNotThereCannotBeDeletedOrUpdated) {
    EXPECT_EQ(layer_.delete_sa(id_of(1), client).error().code, ESRCH);
    EXPECT_EQ(layer_.update_sa(make_sa(1), client, start).error().code, ESRCH);
}

TEST_F(SaRules, AnUpdateChangesLimitsAndKeepsTheRest) {
    ipsec::sa s = make_sa(1);
    s.reqid = 11;
    given(std::move(s));
    count_packets(1, 3, 1'000'001);
    ipsec::sa change = timed(1, 0, 60);
    change.reqid = 99;
    ASSERT_TRUE(layer_.update_sa(std::move(change), client, after(1)));
    const ipsec::sa* now = layer_.get_sa(id_of(1));
    EXPECT_EQ(now->limits.hard_add_s, 60u);
    EXPECT_EQ(now->reqid, 11u);
    EXPECT_EQ(now->current.packets, 3u);
    EXPECT_EQ(backend_.taken_calls(), (lines{"update_sa 1"}));
    EXPECT_EQ(events_.taken(), (lines{"sa updated 1 by 42"}));
}

TEST_F(SaRules, AnUpdateMayMoveTheEncapsulationButNotAddOrRemoveIt) {
    ipsec::sa s = make_sa(1);
    s.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4500), {}};
    given(s.clone());
    EXPECT_EQ(layer_.update_sa(make_sa(1), client, start).error().code, EINVAL);
    s.encap->destination_port = wire::be16(4501);
    ASSERT_TRUE(layer_.update_sa(s.clone(), client, start));
    EXPECT_EQ(layer_.get_sa(id_of(1))->encap->destination_port, wire::be16(4501));
    given(make_sa(2));
    s.id = id_of(2);
    EXPECT_EQ(layer_.update_sa(std::move(s), client, start).error().code, EINVAL);
}

TEST_F(SaRules, AnUpdateOfAnotherDirectionFindsNothing) {
    ipsec::sa s = make_sa(1);
    s.dir = ipsec::direction::in;
    given(s.clone());
    s.dir = ipsec::direction::out;
    EXPECT_EQ(layer_.update_sa(std::move(s), client, start).error().code, ESRCH);
}

TEST_F(SaRules, AnUpdateRevivesADyingSa) {
    given(timed(1, 10, 100));
    layer_.tick(after(10));
    ASSERT_TRUE(layer_.get_sa(id_of(1))->dying);
    ASSERT_TRUE(layer_.update_sa(timed(1, 20, 100), client, after(11)));
    EXPECT_FALSE(layer_.get_sa(id_of(1))->dying);
    forget();
    layer_.tick(after(20));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 1 soft"}));
}

TEST_F(SaRules, AnUpdateToLimitsAlreadyCountedExpiresTheSa) {
    given(make_sa(1));
    count_packets(1, 50, 1'000'001);
    ipsec::sa change = make_sa(1);
    change.limits.hard_packets = 50;
    ASSERT_TRUE(layer_.update_sa(std::move(change), client, after(1)));
    EXPECT_EQ(events_.taken(), (lines{"sa updated 1 by 42"})); // and its acknowledgement
    layer_.tick(after(1));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 1 packets 50 hard"}));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(SaRules, DumpsGoFromTheNewestDown) {
    for (std::uint32_t spi : {1u, 2u, 3u})
        add(make_sa(spi));
    ASSERT_TRUE(layer_.update_sa(timed(1, 0, 9), client, start));
    EXPECT_EQ(walk(), (std::vector<std::uint32_t>{3, 2, 1})) << "an update does not move an SA";
}

TEST_F(SaRules, AWalkSurvivesTheDeletionOfWhatItStandsOn) {
    for (std::uint32_t spi = 1; spi <= 4; ++spi)
        add(make_sa(spi));
    cursor c;
    ASSERT_EQ(layer_.next_sa(c)->id.spi.host(), 4u);
    ASSERT_TRUE(layer_.delete_sa(id_of(4), client));
    ASSERT_TRUE(layer_.delete_sa(id_of(3), client));
    add(make_sa(5));
    EXPECT_EQ(layer_.next_sa(c)->id.spi.host(), 2u);
    EXPECT_EQ(layer_.next_sa(c)->id.spi.host(), 1u);
    EXPECT_EQ(layer_.next_sa(c), nullptr);
}

TEST_F(SaRules, AFlushTakesAllInOneBatch) {
    add(make_sa(1));
    add(make_sa(2));
    forget();
    layer_.flush_sas(0, client);
    EXPECT_EQ(backend_.taken_calls(),
              (lines{"begin_batch", "delete_sa 2", "delete_sa 1", "end_batch"}));
    EXPECT_EQ(events_.taken(), (lines{"sas flushed 0 by 42"}));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(SaRules, AFlushOfAnotherProtocolTakesNothingAndSaysNothing) {
    given(make_sa(1));
    layer_.flush_sas(51, client);
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_TRUE(events_.taken().empty());
    layer_.flush_sas(255, client);
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(SaRules, AnEmptyFlushSaysNothing) {
    layer_.flush_sas(0, client);
    EXPECT_TRUE(events_.taken().empty());
}

// Allocation of SPIs.

TEST_F(SaRules, AnAllocatedSpiIsALarvalSaTheBackendNeverSees) {
    const auto larval = layer_.allocate_spi(spis(0x5000, 0x50ff), start);
    ASSERT_TRUE(larval);
    const ipsec::sa& s = *larval;
    EXPECT_EQ(s.state, ipsec::sa_state::larval);
    EXPECT_GE(s.id.spi.host(), 0x5000u);
    EXPECT_LE(s.id.spi.host(), 0x50ffu);
    EXPECT_EQ(s.limits.hard_add_s, 30u);
    EXPECT_EQ(s.sel.source_prefix, 32);
    EXPECT_EQ(s.sel.destination.to_string(), "10.1.0.2");
    EXPECT_TRUE(backend_.taken_calls().empty());
    EXPECT_TRUE(events_.taken().empty());
    EXPECT_EQ(layer_.sa_count(), 1u);
}

TEST_F(SaRules, EverySpiOfARangeIsGivenOnceAndThenNoneIsLeft) {
    std::set<std::uint32_t> given_spis;
    for (int i = 0; i < 16; ++i) {
        const auto larval = layer_.allocate_spi(spis(0x100, 0x10f), start);
        ASSERT_TRUE(larval) << i;
        given_spis.insert(larval->get().id.spi.host());
    }
    EXPECT_EQ(given_spis.size(), 16u);
    EXPECT_EQ(layer_.allocate_spi(spis(0x100, 0x10f), start).error().code, ENOENT);
    EXPECT_EQ(layer_.allocate_spi(spis(0x105, 0x105), start).error().text,
              "No SPI available in the requested range");
}

TEST_F(SaRules, TheWholeSpaceOfSpisCanBeAskedFor) {
    const auto larval = layer_.allocate_spi(spis(0, 0xffffffff), start);
    ASSERT_TRUE(larval);
    EXPECT_NE(larval->get().id.spi.host(), 0u);
    EXPECT_EQ(layer_.allocate_spi(spis(0, 0), start).error().code, ENOENT);
}

TEST_F(SaRules, ARangeUpsideDownIsInvalid) {
    EXPECT_EQ(layer_.allocate_spi(spis(2, 1), start).error().code, EINVAL);
}

TEST_F(SaRules, AnUpdateFillsALarvalSa) {
    ASSERT_TRUE(layer_.allocate_spi(spis(9, 9), start));
    add(make_sa(10));
    forget();
    ASSERT_TRUE(layer_.update_sa(make_sa(9), client, after(1)));
    EXPECT_EQ(backend_.taken_calls(), (lines{"add_sa 9"}));
    EXPECT_EQ(events_.taken(), (lines{"sa updated 9 by 42"}));
    EXPECT_EQ(layer_.get_sa(id_of(9))->state, ipsec::sa_state::valid);
    EXPECT_EQ(walk(), (std::vector<std::uint32_t>{9, 10})) << "as new";
    layer_.tick(after(31));
    EXPECT_EQ(layer_.sa_count(), 2u) << "the larval SA's timer went with it";
}

TEST_F(SaRules, ALarvalSaStaysWhereTheBackendRefusesItsKeys) {
    ASSERT_TRUE(layer_.allocate_spi(spis(9, 9), start));
    backend_.refuse = error{ENOSYS, {}, {}};
    EXPECT_FALSE(layer_.update_sa(make_sa(9), client, after(1)));
    EXPECT_EQ(layer_.get_sa(id_of(9))->state, ipsec::sa_state::larval);
    layer_.tick(after(30));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(SaRules, AnAdditionDoesNotFillALarvalSa) {
    ASSERT_TRUE(layer_.allocate_spi(spis(9, 9), start));
    EXPECT_EQ(layer_.add_sa(make_sa(9), client, start).error().code, EEXIST);
}

TEST_F(SaRules, ALarvalSaExpiresUnlessItIsFilled) {
    layer_.set_acquire_expires(165);
    ASSERT_TRUE(layer_.allocate_spi(spis(9, 9), start));
    EXPECT_EQ(layer_.next_deadline_ns(), after(165).monotonic_ns);
    layer_.tick(after(164));
    EXPECT_TRUE(events_.taken().empty());
    layer_.tick(after(165));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 9 hard"}));
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_EQ(backend_.taken_calls(), (lines{"begin_batch", "end_batch"}));
}

TEST_F(SaRules, ALarvalSaDeletedDoesNotTroubleTheBackend) {
    ASSERT_TRUE(layer_.allocate_spi(spis(9, 9), start));
    ASSERT_TRUE(layer_.delete_sa(id_of(9), client));
    EXPECT_TRUE(backend_.taken_calls().empty());
    EXPECT_EQ(events_.taken(), (lines{"sa deleted 9 by 42"}));
}

// Lifetimes.

TEST_F(SaRules, SoftComesOnceThenHardTakesTheSaWithoutADeletionEvent) {
    given(timed(1, 1, 3));
    layer_.tick(after(1));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 1 soft"}));
    EXPECT_TRUE(layer_.get_sa(id_of(1))->dying);
    layer_.tick(after(2));
    EXPECT_TRUE(events_.taken().empty());
    layer_.tick(after(3));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 1 hard"}));
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_FALSE(layer_.next_deadline_ns());
}

TEST_F(SaRules, AnUpdateWithoutLimitsLeavesNoTimer) {
    given(timed(1, 10, 20));
    ASSERT_TRUE(layer_.update_sa(make_sa(1), client, after(1)));
    EXPECT_FALSE(layer_.next_deadline_ns());
}

TEST_F(SaRules, AStepOfTheWallClockExpiresNothing) {
    given(timed(1, 100, 200));
    layer_.tick({after(1).monotonic_ns, start.realtime_s + 1'000'000});
    EXPECT_TRUE(events_.taken().empty());
    EXPECT_EQ(layer_.next_deadline_ns(), after(100).monotonic_ns);
}

TEST_F(SaRules, AnSaRestoredCountsFromItsFirstAddition) {
    ipsec::sa s = timed(1, 0, 100);
    s.current.add_time = start.realtime_s - 90;
    given(std::move(s));
    EXPECT_EQ(layer_.next_deadline_ns(), after(10).monotonic_ns);
}

TEST_F(SaRules, AnSaRestoredTooLateLivesOneSecond) {
    ipsec::sa s = timed(1, 0, 100);
    s.current.add_time = start.realtime_s - 900;
    given(std::move(s));
    layer_.tick(start);
    EXPECT_EQ(layer_.sa_count(), 1u);
    layer_.tick(after(1));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(SaRules, LimitsSinceUseStartWithTheFirstPacket) {
    ipsec::sa s = make_sa(1);
    s.limits.soft_use_s = 10;
    s.limits.hard_use_s = 20;
    given(std::move(s));
    EXPECT_FALSE(layer_.next_deadline_ns());
    layer_.tick(after(100));
    count_packets(1, 1, after(100).realtime_s);
    backend_.listener->on_first_use(id_of(1));
    EXPECT_EQ(layer_.next_deadline_ns(), after(110).monotonic_ns);
    layer_.tick(after(110));
    layer_.tick(after(120));
    EXPECT_EQ(events_.taken(),
              (lines{"sa expired 1 packets 1 soft", "sa expired 1 packets 1 hard"}));
}

TEST_F(SaRules, ALimitThatWasCountedSoftIsAnnouncedOnce) {
    given(timed(1, 10, 0));
    count_packets(1, 4, start.realtime_s);
    backend_.listener->on_lifetime(id_of(1), false);
    backend_.listener->on_lifetime(id_of(1), false);
    layer_.tick(after(10));
    EXPECT_EQ(events_.taken(), (lines{"sa expired 1 packets 4 soft"}));
}

TEST_F(SaRules, ALimitThatWasCountedHardTakesTheSa) {
    given(timed(1, 10, 20));
    backend_.listener->on_lifetime(id_of(1), true);
    EXPECT_EQ(events_.taken(), (lines{"sa expired 1 hard"}));
    EXPECT_EQ(backend_.taken_calls(), (lines{"delete_sa 1"}));
    EXPECT_FALSE(layer_.next_deadline_ns());
    backend_.listener->on_lifetime(id_of(1), true);
    backend_.listener->on_first_use(id_of(1));
    EXPECT_TRUE(events_.taken().empty());
}

TEST_F(SaRules, ManyThatExpireTogetherGoInOneBatch) {
    add(timed(1, 0, 5));
    add(timed(2, 0, 5));
    add(timed(3, 0, 6));
    forget();
    layer_.tick(after(5));
    EXPECT_EQ(backend_.taken_calls(),
              (lines{"begin_batch", "delete_sa 1", "delete_sa 2", "end_batch"}));
    EXPECT_EQ(layer_.sa_count(), 1u);
}

TEST_F(SaRules, AQuietTickDoesNotTroubleTheBackend) {
    given(timed(1, 0, 5));
    layer_.tick(after(4));
    EXPECT_TRUE(backend_.taken_calls().empty());
}

TEST_F(SaRules, AListenerThatLeftHearsNothing) {
    layer_.unsubscribe(&events_);
    add(make_sa(1));
    EXPECT_TRUE(events_.taken().empty());
}

} // namespace
} // namespace esplane::control::sa_keeper_test
