// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xfrm/server_clients.h"

namespace esplane::xfrm {
namespace {

TEST_F(XfrmClients, ARequestOnASlateIsAnsweredThere) {
    const auto c = client();
    EXPECT_EQ(c->share().kind, shim_share);
    c->ask_on_slate(new_sa(example_sa()), true);
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_EQ(view(messages_of(kept_ = c->reply()).at(0)).error, 0);
    EXPECT_TRUE(c->receive().empty());
    EXPECT_EQ(c->answer().kind, 0); // it did not sleep
    for (const std::uint8_t byte : c->page->request)
        ASSERT_EQ(byte, 0); // keys
}

TEST_F(XfrmClients, AReplyThatIsNotTakenFromTheSlateIsOnTheSocket) {
    const auto c = client();
    c->share();
    c->ask_on_slate(new_sa(example_sa()), false);
    EXPECT_EQ(c->page->length, 0u);
    EXPECT_EQ(view(messages_of(kept_ = c->receive()).at(0)).error, 0);
}

TEST_F(XfrmClients, AMemberOfAGroupFindsItsEventBeforeTheReply) {
    const auto c = client();
    c->share();
    c->control(shim_join, XFRMNLGRP_SA);
    c->ask_on_slate(new_sa(example_sa()), true);
    EXPECT_EQ(c->page->length, 0u);
    EXPECT_EQ(messages_of(kept_ = c->receive()).at(0).header.nlmsg_type, XFRM_MSG_NEWSA);
    EXPECT_EQ(messages_of(kept_ = c->receive()).at(0).header.nlmsg_type, NLMSG_ERROR);
}

TEST_F(XfrmClients, ADumpThatIsAskedForOnASlateIsOnTheSocketWhole) {
    fill(50);
    const auto c = client();
    c->share();
    c->ask_on_slate(dump(XFRM_MSG_GETSA), true);
    EXPECT_EQ(c->page->length, 0u);
    std::size_t seen = 0;
    for (datagram d; !(d = c->receive()).empty(); serve())
        for (const message& m : messages_of(d))
            seen += m.header.nlmsg_type == XFRM_MSG_NEWSA ? 1 : 0;
    EXPECT_EQ(seen, 50u);
}

TEST_F(XfrmClients, WhoSleepsIsTold) {
    const auto c = client();
    c->share();
    c->write(new_sa(example_sa()), true);
    c->page->asleep = 1;
    c->ring();
    serve();
    EXPECT_EQ(c->page->turn, shim_answered);
    EXPECT_EQ(c->answer().kind, shim_done);
}

TEST_F(XfrmClients, WhatIsOnASlateIsNotLookedAtBeforeItRings) {
    const auto c = client();
    c->share();
    c->write(new_sa(example_sa()), true);
    serve();
    EXPECT_EQ(c->page->turn, shim_asked);
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(XfrmClients, ALengthBeyondTheSlateIsNotBelieved) {
    const auto c = client();
    c->share();
    c->write(new_sa(example_sa()), true);
    c->page->length = ~0u;
    c->ring();
    serve();
    EXPECT_EQ(c->page->turn, shim_answered);
    EXPECT_EQ(server_->counters().broken_clients, 0u);
}

TEST_F(XfrmClients, MemoryThatCanBeCutShortIsNoSlate) {
    const auto loose = client(), small = client(), grows = client();
    EXPECT_EQ(loose->share(SHIM_SLATE_SIZE, F_SEAL_GROW).kind, 0);
    EXPECT_EQ(small->share(SHIM_SLATE_SIZE / 2).kind, 0);
    EXPECT_EQ(grows->share(2 * SHIM_SLATE_SIZE).kind, 0);
    EXPECT_TRUE(loose->closed() && small->closed() && grows->closed());
    EXPECT_EQ(server_->counters().broken_clients, 3u);
}

TEST_F(XfrmClients, ASlateWhoseDeadlineHasPassedIsNotCarriedOut) {
    const auto c = client();
    c->share();
    c->write(new_sa(example_sa()), true);
    c->page->header.deadline_ns = now_.monotonic_ns - 1;
    c->ring();
    serve();
    EXPECT_EQ(c->page->answer.status, static_cast<std::uint32_t>(ENOBUFS));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(XfrmClients, ASlateForASideChannelThatIsNotThereIsLeftAlone) {
    lasting_shim s([this] { serve(); });
    const shim_answer before = s.open(path());
    s.share(before.channel); // no serve(): it dies
    server_.reset();
    now_.monotonic_ns += 1'000'000;
    server_ = open().value();
    const shim_answer after = s.open(path());
    EXPECT_EQ(after.status, 0u);
    s.send(new_sa(example_sa()), after.channel);
    serve();
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_EQ(server_->counters().broken_clients, 0u);
}

} // namespace
} // namespace esplane::xfrm
