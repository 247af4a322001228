// SPDX-License-Identifier: Apache-2.0
#include "xfrm/dispatch.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/xfrm/requests.h"
#include "xfrm/events.h"

namespace esplane::xfrm {
namespace {

class Dispatch : public ::testing::Test, private ipsec::listener, private reply_sink {
  protected:
    Dispatch() {
        layer_.subscribe(this);
        client_.port_id = 77;
        client_.extended_acks = true;
    }

    std::vector<reply_view> ask_for(const datagram& d) {
        replies_.clear();
        dispatcher_.request(d, client_, {1'000'000'000, 1'700'000'000}, *this);
        std::vector<reply_view> views;
        for (const datagram& r : replies_)
            for (const message& m : messages_of(r))
                views.push_back(view(m));
        return views;
    }
    /// The error number of the one reply.
    int error_of(const datagram& d) {
        const auto views = ask_for(d);
        return views.size() == 1 && views[0].type == NLMSG_ERROR ? views[0].error : -1;
    }
    template <typename T>
    T body_of(std::size_t reply) {
        return read_fixed<T>(messages_of(replies_.at(reply)).at(0).payload()).value();
    }
    attributes attributes_of(std::size_t reply, std::size_t fixed) {
        return attributes::parse(messages_of(replies_.at(reply)).at(0), fixed).value();
    }

    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    dispatcher dispatcher_{layer_};
    client_state client_;
    std::vector<datagram> replies_;
    std::vector<std::string> order_;

  private:
    void on_event(const ipsec::event&) override { order_.emplace_back("event"); }
    void reply(datagram&& d) override {
        order_.emplace_back("reply");
        replies_.push_back(std::move(d));
    }
};

TEST_F(Dispatch, TheEventComesBeforeTheAck) {
    EXPECT_EQ(error_of(new_sa(example_sa())), 0);
    EXPECT_EQ(order_, (std::vector<std::string>{"event", "reply"}));
}

TEST_F(Dispatch, RepliesCarryTheClientsPortId) {
    ask_for(new_sa(example_sa()));
    const auto views = ask_for(sa_by_id(XFRM_MSG_GETSA, 0x1001));
    ASSERT_EQ(views.size(), 1u);
    EXPECT_EQ(views[0].type, XFRM_MSG_NEWSA);
    EXPECT_EQ(views[0].port_id, 77u);
}

TEST_F(Dispatch, AnAckFollowsAnAnswerWhereItIsAskedFor) {
    ask_for(new_sa(example_sa()));
    const auto views = ask_for(sa_by_id(XFRM_MSG_GETSA, 0x1001, ask_ack));
    ASSERT_EQ(views.size(), 2u);
    EXPECT_EQ(views[1].type, NLMSG_ERROR);
    EXPECT_EQ(views[1].error, 0);
}

TEST_F(Dispatch, ARefusedAttributeIsNamedAndFound) {
    const datagram plain = new_sa(example_sa());
    const auto views =
        ask_for(with_attribute(plain, XFRMA_OFFLOAD_DEV, std::vector<std::uint8_t>(8)));
    ASSERT_EQ(views.size(), 1u);
    EXPECT_EQ(views[0].error, EOPNOTSUPP);
    EXPECT_EQ(views[0].text, "XFRMA_OFFLOAD_DEV is not carried");
    EXPECT_EQ(views[0].offset, plain.size());
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(Dispatch, WithoutExtendedAcksAnErrorIsJustANumber) {
    client_.extended_acks = false;
    const auto views = ask_for(
        with_attribute(new_sa(example_sa()), XFRMA_OFFLOAD_DEV, std::vector<std::uint8_t>(8)));
    EXPECT_EQ(views.at(0).error, EOPNOTSUPP);
    EXPECT_EQ(views.at(0).flags, 0);
}

TEST_F(Dispatch, AnErrorEchoesTheRequestUnlessTheClientCappedIt) {
    const datagram d = sa_by_id(XFRM_MSG_GETSA, 0x9999);
    EXPECT_EQ(ask_for(d).at(0).echoed, sizeof(xfrm_usersa_id));
    client_.capped_acks = true;
    const auto views = ask_for(d);
    EXPECT_EQ(views.at(0).error, ESRCH);
    EXPECT_EQ(views.at(0).flags, NLM_F_CAPPED);
    EXPECT_EQ(views.at(0).echoed, 0u);
}

TEST_F(Dispatch, ErrorsAreThoseOfTheKernel) {
    EXPECT_EQ(error_of(new_sa(example_sa(), XFRM_MSG_UPDSA)), ESRCH);
    EXPECT_EQ(error_of(new_sa(example_sa())), 0);
    EXPECT_EQ(error_of(new_sa(example_sa())), EEXIST);
    EXPECT_EQ(error_of(sa_by_id(XFRM_MSG_DELSA, 0x9999)), ESRCH);
    EXPECT_EQ(error_of(new_policy(example_policy())), 0);
    EXPECT_EQ(error_of(new_policy(example_policy())), EEXIST);
    EXPECT_EQ(error_of(policy_by(XFRM_MSG_DELPOLICY, example_policy(9), false)), ENOENT);
    EXPECT_EQ(error_of(policy_by(XFRM_MSG_GETPOLICY, example_policy(9), false)), ENOENT);
    EXPECT_EQ(error_of(allocate_spi(2, 1)), EINVAL);
    EXPECT_EQ(error_of(request(0x99, ask, [](message_writer&) {})), EINVAL);
    EXPECT_EQ(error_of(request(XFRM_MSG_NEWSA, ask, [](message_writer&) {})), EINVAL);
}

TEST_F(Dispatch, AnUnknownAlgorithmHasTheKernelsTextAndNoOffset) {
    ipsec::sa s = example_sa();
    s.algs.aead.name = "rfc4309(ccm(aes))";
    const auto views = ask_for(new_sa(s));
    EXPECT_EQ(views.at(0).error, ENOSYS);
    EXPECT_EQ(views.at(0).text, "Requested AEAD algorithm not found");
    EXPECT_FALSE(views.at(0).offset);
}

TEST_F(Dispatch, WhatTheBackendCannotCarryIsNamed) {
    backend_.refuse = error{EINVAL, "", "replay_window"};
    const auto views = ask_for(new_sa(example_sa()));
    EXPECT_EQ(views.at(0).error, EINVAL);
    EXPECT_EQ(views.at(0).text, "replay_window is not carried");
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(Dispatch, WhatClientsOnlyHearIsInvalidFromThem) {
    const auto error_of_body = [this](const auto& body, std::uint16_t type) {
        return error_of(request(type, ask, [&](message_writer& w) { w.fixed(body); }));
    };
    EXPECT_EQ(error_of_body(xfrm_user_report{}, XFRM_MSG_REPORT), EINVAL);
    EXPECT_EQ(error_of_body(xfrm_user_mapping{}, XFRM_MSG_MAPPING), EINVAL);
    EXPECT_EQ(error_of_body(std::uint32_t{0}, XFRM_MSG_NEWSADINFO), EINVAL);
}

TEST_F(Dispatch, ADirectionIsForMessagesThatMakeSas) {
    const std::uint8_t in = xfrm_sa_dir_in;
    EXPECT_EQ(error_of(with_attribute(new_sa(example_sa()), xfrma_sa_dir, {&in, 1})), 0);
    EXPECT_EQ(error_of(with_attribute(sa_by_id(XFRM_MSG_DELSA, 0x1001), xfrma_sa_dir, {&in, 1})),
              EINVAL);
    EXPECT_EQ(layer_.get_sa(example_sa().id)->dir, ipsec::direction::in);
}

TEST_F(Dispatch, FiltersAreForDumps) {
    for (const std::uint16_t type : {XFRMA_PROTO, XFRMA_ADDRESS_FILTER}) {
        const std::vector<std::uint8_t> value(type == XFRMA_PROTO ? 1
                                                                  : sizeof(xfrm_address_filter));
        const auto views = ask_for(with_attribute(new_sa(example_sa()), type, value));
        ASSERT_EQ(views.size(), 1u);
        EXPECT_EQ(views[0].error, EOPNOTSUPP);
        EXPECT_EQ(views[0].text, attribute_name(type) + " is not carried");
    }
}

TEST_F(Dispatch, WhatOnlyEventsHoldIsRefusedInRequests) {
    const std::vector<std::uint8_t> value(sizeof(xfrm_usersa_info));
    EXPECT_EQ(error_of(with_attribute(new_sa(example_sa()), XFRMA_SA, value)), EOPNOTSUPP);
    EXPECT_EQ(error_of(with_attribute(new_sa(example_sa()), XFRMA_POLICY, value)), EOPNOTSUPP);
}

TEST_F(Dispatch, AThresholdThatIsNotKnownIsRefused) {
    const datagram d = request(XFRM_MSG_NEWSPDINFO, ask_ack, [](message_writer& w) {
        w.fixed(std::uint32_t{0});
        w.attribute(XFRMA_SPD_HINFO, xfrmu_spdhinfo{});
    });
    const auto views = ask_for(d);
    EXPECT_EQ(views.at(0).error, EOPNOTSUPP);
    EXPECT_EQ(views.at(0).text, "XFRMA_SPD_2 is not carried");
}

TEST_F(Dispatch, WhatAPolicyAsksForAndDoesNotGetIsNamed) {
    ipsec::policy choosy = example_policy();
    choosy.templates[0].cipher_algs = 1;
    EXPECT_EQ(ask_for(new_policy(choosy)).at(0).text,
              "XFRMA_TMPL with a choice of algorithms is not carried");
}

TEST_F(Dispatch, OfADumpOnlyAPolicyReplacedBeforeItsTurnIsMissing) {
    constexpr std::uint8_t count = 60; // several datagrams
    for (std::uint8_t i = 0; i < count; ++i)
        ASSERT_EQ(error_of(new_policy(example_policy(i))), 0);
    std::multiset<std::uint32_t> sources;
    const auto take = [&](const datagram& d) {
        for (const message& m : messages_of(d))
            if (m.header.nlmsg_type == XFRM_MSG_NEWPOLICY)
                sources.insert(read_fixed<xfrm_userpolicy_info>(m.payload())->sel.saddr.a4);
    };
    ask_for(dump(XFRM_MSG_GETPOLICY));
    take(replies_.at(0));
    ASSERT_LT(sources.size(), count);
    ASSERT_EQ(error_of(new_policy(example_policy(0), XFRM_MSG_UPDPOLICY)), 0);         // to come
    ASSERT_EQ(error_of(new_policy(example_policy(count - 1), XFRM_MSG_UPDPOLICY)), 0); // seen
    while (client_.dump)
        take(dispatcher_.continue_dump(client_));
    EXPECT_EQ(sources.size(), count - 1u);
    EXPECT_EQ(std::set(sources.begin(), sources.end()).size(), count - 1u);
    EXPECT_FALSE(sources.contains(selector_to(example_policy(0).sel).saddr.a4));
}

TEST_F(Dispatch, AnErrorDoesNotStopTheNextMessageOfADatagram) {
    datagram both = sa_by_id(XFRM_MSG_DELSA, 0x9999);
    const datagram second = new_sa(example_sa());
    both.insert(both.end(), second.begin(), second.end());
    const auto views = ask_for(both);
    ASSERT_EQ(views.size(), 2u);
    EXPECT_EQ(views[0].error, ESRCH);
    EXPECT_EQ(views[1].error, 0);
    EXPECT_EQ(layer_.sa_count(), 1u);
}

TEST_F(Dispatch, WhatIsNoRequestIsNotCarriedOut) {
    datagram d = new_sa(example_sa());
    const std::uint16_t flags = 0;
    std::memcpy(d.data() + offsetof(nlmsghdr, nlmsg_flags), &flags, sizeof flags);
    EXPECT_TRUE(ask_for(d).empty());
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(Dispatch, AnAllocatedSpiIsFilledByAnUpdate) {
    ASSERT_EQ(ask_for(allocate_spi(0x5000, 0x50ff)).at(0).type, XFRM_MSG_NEWSA);
    const auto info = body_of<xfrm_usersa_info>(0);
    const std::uint32_t spi = wire::be32::from_network(info.id.spi).host();
    EXPECT_GE(spi, 0x5000u);
    EXPECT_LE(spi, 0x50ffu);
    EXPECT_EQ(info.sel.prefixlen_d, 32);
    EXPECT_EQ(error_of(new_sa(example_sa(spi), XFRM_MSG_UPDSA)), 0);
    EXPECT_EQ(backend_.sas.size(), 1u);
}

// charon's MOBIKE: what GETSA gave goes back in NEWSA, with the replay state twice and counters.
TEST_F(Dispatch, AnSaGivenBackAsItWasReadIsTheSameSa) {
    ipsec::sa s = example_sa();
    s.replay_window = 32;
    ask_for(new_sa(s));
    control::sa_usage& u = backend_.usage[s.id];
    u.current = {1000, 10, 0, 1'700'000'001};
    u.last_used = 1'700'000'002;
    u.replay.sent = 10;
    u.replay.received = 20;
    u.replay.bitmap = {0xff};
    ask_for(sa_by_id(XFRM_MSG_GETSA, 0x1001));
    datagram back = replies_.at(0);
    const std::uint16_t flags = ask_ack;
    std::memcpy(back.data() + offsetof(nlmsghdr, nlmsg_flags), &flags, sizeof flags);
    const xfrm_replay_state replay{10, 20, 0xff};
    back = with_attribute(std::move(back), XFRMA_REPLAY_VAL,
                          {reinterpret_cast<const std::uint8_t*>(&replay), sizeof replay});
    const xfrm_lifetime_cur lifetime{1000, 10, 1'700'000'000, 1'700'000'001};
    back = with_attribute(std::move(back), XFRMA_LTIME_VAL,
                          {reinterpret_cast<const std::uint8_t*>(&lifetime), sizeof lifetime});
    EXPECT_EQ(error_of(sa_by_id(XFRM_MSG_DELSA, 0x1001, ask_ack)), 0);
    EXPECT_EQ(error_of(back), 0);
    const ipsec::sa* again = layer_.get_sa(s.id);
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(again->replay.sent, 10u);
    EXPECT_EQ(again->replay.received, 20u);
    EXPECT_EQ(again->replay.bitmap, std::vector<std::uint32_t>{0xff});
    EXPECT_EQ(again->current.packets, 10u);
    EXPECT_TRUE(again->algs.aead.key.equals(s.algs.aead.key));
}

TEST_F(Dispatch, ADumpHoldsEverySaOnceInDatagramsThatCharonCanRead) {
    for (std::uint32_t spi = 1; spi <= 300; ++spi)
        ask_for(new_sa(example_sa(0x1000 + spi)));
    ask_for(dump(XFRM_MSG_GETSA));
    while (client_.dump)
        replies_.push_back(dispatcher_.continue_dump(client_));
    std::set<std::uint32_t> spis;
    for (std::size_t i = 0; i + 1 < replies_.size(); ++i) {
        EXPECT_LE(replies_[i].size(), max_dump_datagram);
        for (const message& m : messages_of(replies_[i])) {
            EXPECT_EQ(m.header.nlmsg_flags, NLM_F_MULTI);
            const auto info = read_fixed<xfrm_usersa_info>(m.payload()).value();
            EXPECT_TRUE(spis.insert(info.id.spi).second);
        }
    }
    EXPECT_EQ(spis.size(), 300u);
    EXPECT_EQ(messages_of(replies_.back()).at(0).header.nlmsg_type, NLMSG_DONE);
}

TEST_F(Dispatch, ASecondDumpMustWaitForTheFirst) {
    for (std::uint32_t spi = 1; spi <= 100; ++spi)
        ask_for(new_sa(example_sa(spi)));
    ask_for(dump(XFRM_MSG_GETSA));
    EXPECT_EQ(error_of(dump(XFRM_MSG_GETPOLICY)), EBUSY);
}

TEST_F(Dispatch, AnEmptyDumpIsDone) {
    const auto views = ask_for(dump(XFRM_MSG_GETPOLICY));
    ASSERT_EQ(views.size(), 1u);
    EXPECT_EQ(views[0].type, NLMSG_DONE);
    EXPECT_FALSE(client_.dump);
}

TEST_F(Dispatch, ADumpShowsWhatTheFilterLetsThrough) {
    ask_for(new_sa(example_sa(1)));
    ipsec::sa other = example_sa(2);
    other.source = ipsec::address::v4(wire::be32(0x0a020001));
    ask_for(new_sa(other));
    xfrm_address_filter filter{};
    filter.saddr = address_to(other.source);
    filter.family = AF_INET;
    filter.splen = 16;
    const auto* at = reinterpret_cast<const std::uint8_t*>(&filter);
    const auto views =
        ask_for(with_attribute(dump(XFRM_MSG_GETSA), XFRMA_ADDRESS_FILTER, {at, sizeof filter}));
    ASSERT_EQ(views.size(), 1u);
    EXPECT_EQ(body_of<xfrm_usersa_info>(0).id.spi, other.id.spi.network());
    client_.dump.reset();
    filter.splen = 129;
    ask_for(with_attribute(dump(XFRM_MSG_GETSA), XFRMA_ADDRESS_FILTER, {at, sizeof filter}));
    EXPECT_EQ(body_of<std::int32_t>(0), -EINVAL) << "the end of the dump says it";
    const std::uint8_t ah = 51;
    EXPECT_EQ(ask_for(with_attribute(dump(XFRM_MSG_GETSA), XFRMA_PROTO, {&ah, 1})).at(0).type,
              NLMSG_DONE);
}

TEST_F(Dispatch, APolicyIsFoundByItsIndex) {
    ask_for(new_policy(example_policy()));
    ask_for(policy_by(XFRM_MSG_GETPOLICY, example_policy(), false));
    ipsec::policy p = example_policy(9);
    p.index = body_of<xfrm_userpolicy_info>(0).index;
    EXPECT_EQ(p.index & 7, 1u);
    EXPECT_EQ(error_of(policy_by(XFRM_MSG_DELPOLICY, p, true, ask_ack)), 0);
    EXPECT_EQ(error_of(policy_by(XFRM_MSG_DELPOLICY, p, true, ask_ack)), ENOENT);
}

ipsec::policy of_interface(std::uint32_t if_id) {
    ipsec::policy p = example_policy();
    p.if_id = if_id;
    return p;
}

/// With XFRMA_IF_ID where `if_id` is one.
datagram policy_of_interface(std::uint16_t type, const ipsec::policy& p, bool by_index,
                             std::uint32_t if_id) {
    const datagram d = policy_by(type, p, by_index, ask_ack);
    if (if_id == 0) return d;
    return with_attribute(d, XFRMA_IF_ID,
                          {reinterpret_cast<const std::uint8_t*>(&if_id), sizeof if_id});
}

TEST_F(Dispatch, PoliciesOfTwoInterfacesMayHaveOneSelector) {
    for (const std::uint32_t if_id : {0u, 7u, 8u})
        EXPECT_EQ(error_of(new_policy(of_interface(if_id))), 0) << if_id;
    EXPECT_EQ(error_of(new_policy(of_interface(7))), EEXIST);
    EXPECT_EQ(error_of(policy_of_interface(XFRM_MSG_DELPOLICY, example_policy(), false, 9)),
              ENOENT);
    for (const std::uint32_t if_id : {0u, 7u, 8u})
        EXPECT_EQ(error_of(policy_of_interface(XFRM_MSG_DELPOLICY, example_policy(), false, if_id)),
                  0)
            << if_id;
}

TEST_F(Dispatch, APolicyIsNotFoundUnderAnInterfaceThatIsNotItsOwn) {
    ask_for(new_policy(of_interface(7)));
    ask_for(policy_of_interface(XFRM_MSG_GETPOLICY, example_policy(), false, 7));
    ipsec::policy p = example_policy();
    p.index = body_of<xfrm_userpolicy_info>(0).index;
    EXPECT_EQ(attributes_of(0, sizeof(xfrm_userpolicy_info)).load<std::uint32_t>(XFRMA_IF_ID), 7u);
    EXPECT_EQ(error_of(policy_of_interface(XFRM_MSG_GETPOLICY, p, true, 0)), ENOENT);
    EXPECT_EQ(error_of(policy_of_interface(XFRM_MSG_DELPOLICY, p, true, 8)), ENOENT);
    EXPECT_EQ(error_of(policy_of_interface(XFRM_MSG_DELPOLICY, p, true, 7)), 0);
}

TEST_F(Dispatch, AnUpdateMovesAnSaToAnotherInterfaceOnlyWhereItNamesOne) {
    const auto if_id_of_sa = [this] {
        ask_for(sa_by_id(XFRM_MSG_GETSA, 0x1001));
        return attributes_of(0, sizeof(xfrm_usersa_info)).load<std::uint32_t>(XFRMA_IF_ID);
    };
    ipsec::sa s = example_sa();
    s.if_id = 7;
    EXPECT_EQ(error_of(new_sa(s)), 0);
    EXPECT_EQ(if_id_of_sa(), 7u);
    EXPECT_EQ(error_of(new_sa(example_sa(), XFRM_MSG_UPDSA)), 0);
    EXPECT_EQ(if_id_of_sa(), 7u);
    s.if_id = 8;
    EXPECT_EQ(error_of(new_sa(s, XFRM_MSG_UPDSA)), 0);
    EXPECT_EQ(if_id_of_sa(), 8u);
}

TEST_F(Dispatch, AnSpiIsOneWhateverTheInterface) {
    ipsec::sa s = example_sa();
    s.if_id = 7;
    EXPECT_EQ(error_of(new_sa(s)), 0);
    EXPECT_EQ(error_of(new_sa(example_sa())), EEXIST);
}

TEST_F(Dispatch, AnAllocatedSpiBelongsToTheInterfaceItWasAskedFor) {
    const std::uint32_t if_id = 7;
    ask_for(with_attribute(allocate_spi(0x100, 0x1ff), XFRMA_IF_ID,
                           {reinterpret_cast<const std::uint8_t*>(&if_id), sizeof if_id}));
    EXPECT_EQ(attributes_of(0, sizeof(xfrm_usersa_info)).load<std::uint32_t>(XFRMA_IF_ID), 7u);
}

TEST_F(Dispatch, CountsAreOfAllThatIsThere) {
    ask_for(new_sa(example_sa(1)));
    ask_for(new_sa(example_sa(2)));
    ask_for(new_policy(example_policy()));
    const auto info = [](message_writer& w) { w.fixed(~std::uint32_t{0}); };
    ask_for(request(XFRM_MSG_GETSADINFO, ask, info));
    std::uint32_t count = 0;
    for_each_attribute(messages_of(replies_[0]).at(0).after(4), [&](std::uint16_t t, bytes v) {
        if (t == XFRMA_SAD_CNT) count = read_fixed<std::uint32_t>(v).value();
        return true;
    });
    EXPECT_EQ(count, 2u);
    ask_for(request(XFRM_MSG_GETSPDINFO, ask, info));
    xfrmu_spdinfo counts{};
    for_each_attribute(messages_of(replies_[0]).at(0).after(4), [&](std::uint16_t t, bytes v) {
        if (t == XFRMA_SPD_INFO) counts = read_fixed<xfrmu_spdinfo>(v).value();
        return true;
    });
    EXPECT_EQ(counts.outcnt, 1u);
    EXPECT_EQ(counts.incnt, 0u);
}

TEST_F(Dispatch, ThresholdsAreSetAllOrNone) {
    const auto set = [this](xfrmu_spdhthresh v4, xfrmu_spdhthresh v6) {
        return error_of(request(XFRM_MSG_NEWSPDINFO, ask_ack, [&](message_writer& w) {
            w.fixed(std::uint32_t{0});
            w.attribute(XFRMA_SPD_IPV4_HTHRESH, v4);
            w.attribute(XFRMA_SPD_IPV6_HTHRESH, v6);
        }));
    };
    EXPECT_EQ(set({24, 32}, {64, 129}), EINVAL);
    EXPECT_EQ(layer_.hash_thresholds().local_v4, 32);
    EXPECT_EQ(set({24, 32}, {64, 128}), 0);
    EXPECT_EQ(layer_.hash_thresholds().local_v4, 24);
    EXPECT_EQ(layer_.hash_thresholds().local_v6, 64);
}

TEST_F(Dispatch, AnExpiryHasAPortIdButNoSequence) {
    const ipsec::sa s = example_sa();
    const ipsec::policy p = example_policy();
    for (const ipsec::event& e : {ipsec::event(ipsec::sa_expired{s, true, {5, 9}}),
                                  ipsec::event(ipsec::policy_expired{p, true, {5, 9}})}) {
        datagram d;
        encode_event(e, d);
        EXPECT_EQ(messages_of(d).at(0).header.nlmsg_pid, 5u);
        EXPECT_EQ(messages_of(d).at(0).header.nlmsg_seq, 0u);
    }
}

TEST_F(Dispatch, AnExpiryAnnouncesTheDirection) {
    ipsec::sa s = example_sa();
    s.dir = ipsec::direction::out;
    datagram d;
    EXPECT_EQ(encode_event(ipsec::sa_expired{s, true, {}}, d),
              static_cast<std::uint32_t>(XFRMNLGRP_EXPIRE));
    const auto a = attributes::parse(messages_of(d).at(0), sizeof(xfrm_user_expire));
    EXPECT_EQ(a->load<std::uint8_t>(xfrma_sa_dir), xfrm_sa_dir_out);
}

TEST_F(Dispatch, AnExpiryAnnouncesTheInterface) {
    ipsec::sa s = example_sa();
    s.if_id = 7;
    datagram d;
    encode_event(ipsec::sa_expired{s, true, {}}, d);
    const auto of_sa = attributes::parse(messages_of(d).at(0), sizeof(xfrm_user_expire));
    EXPECT_EQ(of_sa->load<std::uint32_t>(XFRMA_IF_ID), 7u);
    datagram e;
    encode_event(ipsec::policy_expired{of_interface(7), true, {}}, e);
    const auto of_policy = attributes::parse(messages_of(e).at(0), sizeof(xfrm_user_polexpire));
    EXPECT_EQ(of_policy->load<std::uint32_t>(XFRMA_IF_ID), 7u);
}

} // namespace
} // namespace esplane::xfrm
