// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/xfrm/server_clients.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include <set>

#include "tests/unit/lib/no_descriptors.h"
#include "xfrm/dispatch.h"

namespace esplane::xfrm {
namespace {

TEST_F(XfrmServer, TheSocketIsForItsOwnerAlone) {
    struct stat st {};
    ASSERT_EQ(::stat(path().c_str(), &st), 0);
    EXPECT_EQ(st.st_mode & 0777, 0600u);
}

TEST_F(XfrmServer, ASecondServerOnOnePathIsRefused) {
    const auto second = open();
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EADDRINUSE);
}

TEST_F(XfrmServer, ASocketThatNobodyServesIsReplaced) {
    server_.reset();
    {
        const unique_fd left(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        path().copy(a.sun_path, sizeof a.sun_path - 1);
        ASSERT_EQ(::bind(left.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a), 0);
    }
    EXPECT_TRUE(open());
}

TEST_F(XfrmServer, AnEndedServerLeavesNoSocket) {
    server_.reset();
    EXPECT_FALSE(std::filesystem::exists(path()));
}

TEST_F(XfrmServer, APathThatIsTooLongIsSaidSo) {
    const auto s = server::open(layer_, std::string(200, 'x'), [this] { return now_; });
    ASSERT_FALSE(s);
    EXPECT_EQ(s.error().field, "path");
}

TEST_F(XfrmServer, AnotherUserIsTurnedAway) {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
    ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
    ASSERT_EQ(::chmod(path().c_str(), 0666), 0); // so that only the server is in the way
    const pid_t child = ::fork();
    if (child == 0) {
        if (::setuid(65534) != 0) ::_exit(2);
        const int fd = connected(path());
        pollfd p{fd, POLLIN, 0};
        ::poll(&p, 1, 5000);
        char byte = 0;
        ::_exit(fd >= 0 && ::recv(fd, &byte, 1, 0) == 0 ? 0 : 1);
    }
    pollfd p{server_->descriptor(), POLLIN, 0};
    ASSERT_EQ(::poll(&p, 1, 5000), 1);
    serve();
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_EQ(server_->counters().refused_peers, 1u);
}

TEST_F(XfrmClients, TheAnswerIsReadableBeforeTheTokenIs) {
    const auto c = client();
    c->send(new_sa(example_sa()));
    EXPECT_EQ(c->answer().kind, 0);
    server_->serve();
    EXPECT_EQ(c->answer().kind, shim_done);
    EXPECT_FALSE(c->receive().empty());
}

TEST_F(XfrmClients, APortIdIsTakenByTheFirstRequestAndNotBefore) {
    const auto a = client(), b = client();
    EXPECT_EQ(a->greeting.port_id, 0u);
    a->send(sa_by_id(XFRM_MSG_GETSA, 1));
    b->send(sa_by_id(XFRM_MSG_GETSA, 1));
    serve();
    const std::uint32_t first = a->answer().port_id, second = b->answer().port_id;
    EXPECT_EQ(first, static_cast<std::uint32_t>(::getpid()));
    EXPECT_NE(second, first);
    const datagram reply = b->receive();
    EXPECT_EQ(messages_of(reply).at(0).header.nlmsg_pid, second);
}

// As libreswan does: one socket without an address, then one with the process's own number.
TEST_F(XfrmClients, ASocketThatIsNotBoundYetLeavesTheProcessNumberToAnother) {
    const auto unbound = client(), b = client();
    const auto own = static_cast<std::uint32_t>(::getpid());
    EXPECT_EQ(b->control(shim_bind, own).status, 0u);
    unbound->send(sa_by_id(XFRM_MSG_GETSA, 1));
    serve();
    EXPECT_NE(unbound->answer().port_id, own);
}

TEST_F(XfrmClients, APortIdOnceTakenStays) {
    const auto c = client();
    EXPECT_EQ(c->control(shim_bind, 4242).port_id, 4242u);
    EXPECT_EQ(c->control(shim_bind, 4242, 1).groups, 1u);
    EXPECT_EQ(c->control(shim_bind, 4243).status, static_cast<std::uint32_t>(EINVAL));
}

TEST_F(XfrmClients, APortIdIsBoundToOneAtATime) {
    auto a = client();
    const auto b = client();
    EXPECT_EQ(a->control(shim_bind, 4242).port_id, 4242u);
    EXPECT_EQ(b->control(shim_bind, 4242).status, static_cast<std::uint32_t>(EADDRINUSE));
    a.reset();
    serve();
    EXPECT_EQ(b->control(shim_bind, 4242).status, 0u);
}

TEST_F(XfrmClients, EventsGoToTheGroupsAClientIsIn) {
    const auto asks = client(), listens = client();
    EXPECT_EQ(listens->control(shim_bind, 0, 1u << (XFRMNLGRP_SA - 1)).groups, 4u);
    EXPECT_EQ(asks->ask(new_sa(example_sa(1))), 0);
    EXPECT_EQ(asks->ask(new_policy(example_policy())), 0);
    const datagram event = listens->receive();
    EXPECT_EQ(messages_of(event).at(0).header.nlmsg_type, XFRM_MSG_NEWSA);
    EXPECT_TRUE(listens->receive().empty()); // not in the policy group
    EXPECT_EQ(listens->control(shim_join, XFRMNLGRP_POLICY).groups, 12u);
    EXPECT_EQ(asks->ask(new_policy(example_policy(9))), 0);
    EXPECT_FALSE(listens->receive().empty());
    EXPECT_EQ(listens->control(shim_leave, XFRMNLGRP_POLICY).groups, 4u);
    EXPECT_EQ(asks->ask(new_policy(example_policy(8))), 0);
    EXPECT_TRUE(listens->receive().empty());
    EXPECT_EQ(listens->control(shim_join, 33).status, static_cast<std::uint32_t>(EINVAL));
}

TEST_F(XfrmClients, EachKindOfEventGoesToItsGroupAlone) {
    std::vector<std::unique_ptr<shim>> members; ///< of group i + 1
    for (std::uint32_t group = XFRMNLGRP_ACQUIRE; group <= XFRMNLGRP_MAPPING; ++group) {
        members.push_back(client());
        members.back()->control(shim_join, group);
    }
    const auto heard = [&] {
        std::set<std::pair<std::uint32_t, std::uint16_t>> all; ///< group, message
        for (std::uint32_t group = XFRMNLGRP_ACQUIRE; group <= XFRMNLGRP_MAPPING; ++group)
            for (datagram d; !(d = members[group - 1]->receive()).empty();)
                for (const message& m : messages_of(d))
                    all.emplace(group, m.header.nlmsg_type);
        return all;
    };
    using events = std::set<std::pair<std::uint32_t, std::uint16_t>>;

    ipsec::sa s = resolved(example_sa());
    s.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4500), {}};
    ASSERT_TRUE(layer_.add_sa(s.clone(), {}, now_));
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_SA, XFRM_MSG_NEWSA}}));
    ASSERT_TRUE(layer_.add_policy(example_policy(), {}, now_));
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_POLICY, XFRM_MSG_NEWPOLICY}}));
    layer_.set_defaults({});
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_POLICY, XFRM_MSG_GETDEFAULT}}));
    layer_.announce_acquire(s.clone(), example_policy());
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_ACQUIRE, XFRM_MSG_ACQUIRE}}));
    layer_.report_packet({60, s.sel, std::nullopt});
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_REPORT, XFRM_MSG_REPORT}}));
    backend_.listener->on_mapping(s.id, s.source, wire::be16(4501));
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_MAPPING, XFRM_MSG_MAPPING}}));
    ipsec::migration m;
    m.selected.dir = example_policy().dir;
    m.selected.sel = example_policy().sel;
    m.moves.push_back({s.source, s.id.destination, ipsec::address::v4(wire::be32(1)),
                       s.id.destination, 50, ipsec::mode::tunnel, s.reqid});
    ASSERT_TRUE(layer_.migrate(m, {}, now_));
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_MIGRATE, XFRM_MSG_MIGRATE}}));
    backend_.listener->on_lifetime(s.id, false);
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_EXPIRE, XFRM_MSG_EXPIRE}}));
    ASSERT_TRUE(layer_.expire_policy({m.selected.dir, m.selected.sel}, false, {}));
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_EXPIRE, XFRM_MSG_POLEXPIRE}}));
    ASSERT_TRUE(layer_.give_replay(s.id, {}, {}, now_));
    EXPECT_EQ(heard(), (events{{XFRMNLGRP_AEVENTS, XFRM_MSG_NEWAE}}));
}

TEST_F(XfrmClients, TheOneWhoAsksSeesItsEventBeforeItsAck) {
    const auto c = client();
    c->control(shim_join, XFRMNLGRP_SA);
    c->send(new_sa(example_sa()));
    serve();
    const datagram first = c->receive(), second = c->receive();
    EXPECT_EQ(messages_of(first).at(0).header.nlmsg_type, XFRM_MSG_NEWSA);
    EXPECT_EQ(messages_of(second).at(0).header.nlmsg_type, NLMSG_ERROR);
}

TEST_F(XfrmClients, OptionsAreThoseOfTheClientThatSetThem) {
    const auto c = client();
    EXPECT_EQ(c->control(shim_option, NETLINK_EXT_ACK, 1).status, 0u);
    EXPECT_EQ(c->control(shim_option, NETLINK_CAP_ACK, 1).status, 0u);
    EXPECT_EQ(c->control(shim_option, 999, 1).status, static_cast<std::uint32_t>(ENOPROTOOPT));
    c->send(with_attribute(new_sa(example_sa()), XFRMA_OFFLOAD_DEV, std::vector<std::uint8_t>(8)));
    serve();
    const datagram reply = c->receive();
    const reply_view v = view(messages_of(reply).at(0));
    EXPECT_EQ(v.flags, NLM_F_CAPPED | NLM_F_ACK_TLVS);
    EXPECT_EQ(v.text, "XFRMA_OFFLOAD_DEV is not carried");
}

TEST_F(XfrmClients, ASlowReaderOfADumpDelaysNobodyAndLosesNothing) {
    fill(5000); // some 2 MB: more than a socket holds
    const auto slow = client(), other = client();
    slow->send(dump(XFRM_MSG_GETSA));
    serve();
    EXPECT_EQ(other->ask(new_sa(example_sa(0x9999))), 0);
    std::size_t seen = 0;
    for (bool done = false; !done;) {
        const datagram d = slow->receive();
        if (d.empty()) {
            pollfd p{server_->descriptor(), POLLIN, 0};
            ASSERT_EQ(::poll(&p, 1, 0), 1) << "the dump stopped after " << seen;
            serve();
            continue;
        }
        for (const message& m : messages_of(d)) {
            done = done || m.header.nlmsg_type == NLMSG_DONE;
            seen += m.header.nlmsg_type == XFRM_MSG_NEWSA ? 1 : 0;
        }
    }
    EXPECT_EQ(seen, 5000u);
}

TEST_F(XfrmClients, ADumpHasWhatIsThereThroughoutOnceWhateverComesAndGoes) {
    constexpr std::uint32_t count = 3000, step = 7;
    fill(count);
    const auto reader = client(), other = client();
    reader->send(dump(XFRM_MSG_GETSA));
    serve();
    std::vector<int> seen(count + 1);
    std::uint32_t gone = 0, came = 10'000;
    for (bool done = false; !done;) {
        const datagram d = reader->receive();
        ASSERT_LE(d.size(), max_dump_datagram);
        for (const message& m : messages_of(d)) {
            done = done || m.header.nlmsg_type == NLMSG_DONE;
            if (m.header.nlmsg_type != XFRM_MSG_NEWSA) continue;
            const auto info = read_fixed<xfrm_usersa_info>(m.payload()).value();
            const std::uint32_t spi = wire::be32::from_network(info.id.spi).host();
            if (spi <= count) ++seen[spi];
        }
        if (gone + step <= count) {
            ASSERT_EQ(other->ask(sa_by_id(XFRM_MSG_DELSA, gone += step, ask_ack)), 0);
        }
        ASSERT_EQ(other->ask(new_sa(example_sa(++came))), 0);
    }
    for (std::uint32_t spi = 1; spi <= count; ++spi)
        ASSERT_TRUE(seen[spi] == 1 || (seen[spi] == 0 && spi % step == 0)) << spi;
}

TEST_F(XfrmClients, OneThatDiesInTheMiddleOfItsDumpHarmsNobody) {
    fill(5000); // more than a socket holds
    auto dies = client();
    const auto other = client();
    dies->send(dump(XFRM_MSG_GETSA));
    serve();
    ASSERT_FALSE(dies->receive().empty());
    dies.reset();
    serve();
    EXPECT_EQ(server_->counters().clients, 1u);
    EXPECT_EQ(other->ask(new_sa(example_sa(0x9999))), 0);
}

TEST_F(XfrmClients, EventsForOneWhoDoesNotReadAreLostAndCounted) {
    const auto sleeps = client(), asks = client();
    sleeps->control(shim_join, XFRMNLGRP_SA);
    for (std::uint32_t spi = 1; spi < 20000 && server_->counters().events_lost == 0; ++spi)
        ASSERT_EQ(asks->ask(new_sa(example_sa(spi))), 0);
    EXPECT_GT(server_->counters().events_lost, 0u);
    while (!sleeps->receive().empty()) {
    }
    serve();
    const std::uint64_t lost = server_->counters().events_lost;
    EXPECT_EQ(asks->ask(new_sa(example_sa(99999))), 0);
    EXPECT_EQ(server_->counters().events_lost, lost);
    EXPECT_FALSE(sleeps->receive().empty());
}

// Many questions in one datagram have more answers than the socket holds.
class XfrmTalkers : public XfrmClients {
  protected:
    static constexpr std::uint32_t questions = 1600;
    /// A client that has asked them all about an SA of that window, and reads nothing yet.
    std::unique_ptr<shim> talker(std::uint32_t window) {
        ipsec::sa big = example_sa();
        big.replay_esn_form = true;
        big.replay_window = window;
        EXPECT_TRUE(layer_.add_sa(resolved(std::move(big)), {}, now_));
        auto c = client();
        c->control(shim_join, XFRMNLGRP_SA);
        datagram all;
        for (std::uint32_t i = 0; i < questions; ++i) {
            const datagram one = request(
                XFRM_MSG_GETSA, ask, [](message_writer& w) { w.fixed(sa_id_to(example_sa().id)); },
                i);
            all.insert(all.end(), one.begin(), one.end());
        }
        c->send(all);
        serve();
        return c;
    }
};

TEST_F(XfrmTalkers, WhatIsKeptForASlowReaderComesInOrderAndNoEventOvertakesIt) {
    const auto c = talker(4096);
    EXPECT_EQ(c->answer().status, 0u);
    std::uint32_t seen = 0;
    for (; seen < 100; ++seen) // room in the socket, and some answers still kept
        ASSERT_EQ(messages_of(kept_ = c->receive()).at(0).header.nlmsg_seq, seen);
    ASSERT_TRUE(layer_.add_sa(resolved(example_sa(2)), {}, now_));
    EXPECT_EQ(server_->counters().events_lost, 1u);
    while (seen < questions) {
        const datagram d = c->receive();
        if (d.empty()) {
            serve();
            continue;
        }
        ASSERT_EQ(messages_of(d).at(0).header.nlmsg_seq, seen++);
    }
    EXPECT_EQ(server_->counters().replies_lost, 0u);
}

TEST_F(XfrmTalkers, ASendWhoseAnswersFindNoRoomFails) {
    const auto c = talker(32768);
    EXPECT_EQ(c->answer().status, static_cast<std::uint32_t>(ENOBUFS));
    EXPECT_GT(server_->counters().replies_lost, 0u);
}

TEST_F(XfrmClients, ARequestTakenAfterItsDeadlineIsNotCarriedOut) {
    const auto c = client();
    c->send(new_sa(example_sa()), now_.monotonic_ns - 1);
    serve();
    EXPECT_TRUE(c->receive().empty());
    EXPECT_EQ(c->answer().kind, 0);
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_EQ(server_->counters().replies_lost, 1u);
}

class long_work final : public ipsec::listener {
  public:
    explicit long_work(moment& now)
        : now_(now) {}
    void on_event(const ipsec::event&) override { now_.monotonic_ns += 11'000'000'000; }

  private:
    moment& now_;
};

TEST_F(XfrmClients, AnAnswerThatComesTooLateIsNotSent) {
    const auto c = client();
    long_work work(now_);
    layer_.subscribe(&work);
    c->send(new_sa(example_sa()), now_.monotonic_ns + 10'000'000'000);
    serve();
    layer_.unsubscribe(&work);
    EXPECT_EQ(layer_.sa_count(), 1u);
    EXPECT_TRUE(c->receive().empty());
    EXPECT_EQ(c->ask(new_sa(example_sa())), EEXIST); // the next one gets its own answer
}

TEST_F(XfrmClients, OneWhoDoesNotSpeakTheProtocolIsDisconnected) {
    const auto bare = client(), other = client();
    bare->raw(new_sa(example_sa())); // netlink without the shim's header
    serve();
    EXPECT_TRUE(bare->closed());
    EXPECT_EQ(server_->counters().broken_clients, 1u);
    EXPECT_EQ(server_->counters().clients, 1u);
    EXPECT_EQ(other->ask(new_sa(example_sa())), 0);
}

TEST_F(XfrmClients, ADatagramBeyondTheLimitEndsTheClient) {
    const auto c = client();
    c->send(datagram(SHIM_REQUEST_MAX + 1));
    serve();
    EXPECT_TRUE(c->closed());
}

TEST_F(XfrmClients, AnInheritedSocketGetsASideChannelOfItsOwn) {
    const auto c = client();
    const shim_answer first = c->greeting;
    c->control(shim_join, XFRMNLGRP_SA);
    for (int i = 0; i < 20; ++i)
        c->attach(); // more than are kept: the oldest go
    EXPECT_NE(c->greeting.channel, first.channel);
    EXPECT_EQ(c->greeting.port_id, first.port_id);
    EXPECT_EQ(c->greeting.groups, 4u);
    EXPECT_EQ(c->ask(sa_by_id(XFRM_MSG_DELSA, 1)), ESRCH);
}

TEST_F(XfrmClients, WhoReadsTooLateLearnsThatEventsWereLostBeforeTheNext) {
    const auto sleeps = client(), asks = client();
    sleeps->control(shim_join, XFRMNLGRP_SA);
    for (std::uint32_t spi = 1; spi < 20000 && server_->counters().events_lost == 0; ++spi)
        ASSERT_EQ(asks->ask(new_sa(example_sa(spi))), 0);
    const auto is_word = [](const datagram& d) {
        const auto word = read_fixed<std::uint32_t>(d);
        return d.size() == sizeof *word && *word == SHIM_OVERRUN;
    };
    datagram d;
    while (!is_word(d = sleeps->receive()) && !d.empty())
        serve(); // there is room
    EXPECT_TRUE(is_word(d));
    EXPECT_TRUE(sleeps->receive().empty()); // once
    EXPECT_EQ(asks->ask(new_sa(example_sa(0x77777))), 0);
    EXPECT_GT(sleeps->receive().size(), sizeof(nlmsghdr));
}

// What is told of sockets

TEST_F(XfrmClients, ASocketThatIsResetIsAsNew) {
    const auto c = client();
    c->control(shim_bind, 77, 4);
    c->control(shim_option, NETLINK_EXT_ACK, 1);
    const shim_answer a = c->control(shim_reset, 0);
    EXPECT_EQ(a.port_id, 0u);
    EXPECT_EQ(a.groups, 0u);
    EXPECT_EQ(client()->control(shim_bind, 77).status, 0u);
}

TEST_F(XfrmClients, ThePortIdOfAClientThatHasGoneIsFreeAtOnce) {
    auto gone = client();
    const auto c = client();
    EXPECT_EQ(gone->control(shim_bind, 77).status, 0u);
    gone.reset(); // the server has not looked yet
    EXPECT_EQ(c->control(shim_bind, 77).status, 0u);
}

TEST_F(XfrmClients, ADataSocketIsKnownAgainAndItsSecondProcessBecomesNoClient) {
    lasting_shim s([this] { serve(); });
    EXPECT_EQ(s.open(path()).status, 0u);
    EXPECT_EQ(s.open(path()).status, static_cast<std::uint32_t>(EALREADY));
    EXPECT_EQ(server_->counters().clients, 1u);
    EXPECT_EQ(server_->counters().broken_clients, 0u);
}

TEST_F(XfrmClients, WhatASocketHadAtAnEarlierServerIsGivenBack) {
    lasting_shim s([this] { serve(); });
    const shim_answer a =
        s.open(path(), {.edition = 2, .port_id = 77, .groups = 4, .options = 0, .pid = 0});
    EXPECT_EQ(a.kind, shim_open);
    EXPECT_EQ(a.port_id, 77u);
    EXPECT_EQ(a.groups, 4u);
    ASSERT_TRUE(layer_.add_sa(resolved(example_sa()), {}, now_));
    EXPECT_TRUE(s.has_received());
}

TEST_F(XfrmClients, OfWhatProcessesTellOfASocketTheLatestIsTakenExactly) {
    lasting_shim s([this] { serve(); });
    EXPECT_EQ(s.open(path(), {2, 77, 4, 0, 0}).groups, 4u);
    EXPECT_EQ(s.open(path(), {}).groups, 4u);                 // executed: it knows nothing
    EXPECT_EQ(s.open(path(), {1, 77, 8, 0, 0}).groups, 4u);   // forked before the change
    EXPECT_EQ(s.open(path(), {3, 77, 16, 0, 0}).groups, 16u); // it left a group, and joined one
}

TEST_F(XfrmClients, ARequestThatAServerLeftUnreadIsNotCarriedOutByTheNext) {
    lasting_shim s([this] { serve(); });
    const shim_answer before = s.open(path());
    s.send(new_sa(example_sa()), before.channel); // no serve(): it dies
    server_.reset();
    now_.monotonic_ns += 1'000'000;
    server_ = open().value();
    const shim_answer after = s.open(path());
    EXPECT_EQ(after.status, 0u);
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_FALSE(s.has_received());
    s.send(new_sa(example_sa()), after.channel);
    serve();
    EXPECT_EQ(layer_.sa_count(), 1u);
}

TEST_F(XfrmClients, APassedDescriptorThatIsNoSocketEndsTheClient) {
    lasting_shim s([this] { serve(); });
    const unique_fd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    EXPECT_EQ(s.open(path(), {}, file.get()).kind, 0u);
    EXPECT_EQ(server_->counters().clients, 0u);
}

TEST_F(XfrmClients, ASideChannelThatTheClientHoldsAtBothEndsDoesNotKeepTheServerBusy) {
    const auto quiet = [this] {
        pollfd p{server_->descriptor(), POLLIN, 0};
        return ::poll(&p, 1, 0) == 0;
    };
    auto c = client();
    c->keeps_server_end = true;
    c->attach();
    (void)c->take_side();
    serve();
    EXPECT_TRUE(quiet()) << "after its end";

    c->attach();
    unique_fd side = c->take_side();
    const unique_fd evicted = std::move(c->server_end);
    std::vector<unique_fd> others; // whose ends stay, so that none goes by itself
    for (int i = 0; i < 20; ++i) {
        c->attach();
        others.push_back(c->take_side());
    }
    side = unique_fd();
    serve();
    EXPECT_TRUE(quiet()) << "after others took its place";

    c->attach();
    side = c->take_side();
    const unique_fd last = std::move(c->server_end);
    c.reset();
    side = unique_fd();
    serve();
    EXPECT_TRUE(quiet()) << "after the client's end";
}

TEST_F(XfrmClients, DescriptorsThatNobodyAskedForDoNotStay) {
    const auto open_descriptors = [] {
        const std::filesystem::directory_iterator all("/proc/self/fd");
        return std::distance(begin(all), end(all));
    };
    const auto before = open_descriptors();
    for (const auto& passed : {std::vector<int>{0, 0}, {0, 0, 0, 0}}) {
        const auto c = client();
        c->send_attach(passed);
        serve();
    }
    serve();
    EXPECT_EQ(open_descriptors(), before);
}

TEST_F(XfrmServer, AConnectionThatFindsNoDescriptorIsTurnedAwayAndTheNextIsTaken) {
    const unique_fd waiting(connected(path()));
    {
        const no_descriptors left;
        serve();
        pollfd p{server_->descriptor(), POLLIN, 0};
        EXPECT_EQ(::poll(&p, 1, 0), 0);
    }
    char byte = 0;
    EXPECT_EQ(::recv(waiting.get(), &byte, 1, MSG_DONTWAIT), 0);
    const unique_fd next(connected(path()));
    serve();
    EXPECT_EQ(server_->counters().clients, 1u);
}

TEST_F(XfrmClients, ATapIsShownRequestsEventsAndRepliesInTheirOrder) {
    std::vector<std::pair<traced::direction, std::uint16_t>> shown;
    std::uint32_t pid = 0;
    server_->set_tap([&](const traced& what) {
        if (what.way == traced::direction::request) pid = what.pid;
        shown.emplace_back(what.way, read_fixed<nlmsghdr>(what.whole)->nlmsg_type);
    });
    const auto c = client();
    EXPECT_EQ(c->ask(new_sa(example_sa())), 0);
    const std::vector<std::pair<traced::direction, std::uint16_t>> expected = {
        {traced::direction::request, XFRM_MSG_NEWSA},
        {traced::direction::event, XFRM_MSG_NEWSA},
        {traced::direction::reply, NLMSG_ERROR}};
    EXPECT_EQ(shown, expected);
    EXPECT_EQ(pid, static_cast<std::uint32_t>(::getpid()));
    server_->set_tap(nullptr);
    EXPECT_EQ(c->ask(new_sa(example_sa(2))), 0);
    EXPECT_EQ(shown.size(), 3u);
}

TEST_F(XfrmClients, ATapIsShownADumpToItsEnd) {
    fill(50);
    std::uint32_t sas = 0, ends = 0;
    server_->set_tap([&](const traced& what) {
        for (bytes rest = what.whole; const auto m = next_message(rest);) {
            sas += m->header.nlmsg_type == XFRM_MSG_NEWSA ? 1 : 0;
            ends += m->header.nlmsg_type == NLMSG_DONE ? 1 : 0;
        }
    });
    const auto c = client();
    c->send(request(XFRM_MSG_GETSA, NLM_F_REQUEST | NLM_F_DUMP, [](message_writer&) {}));
    serve();
    EXPECT_EQ(sas, 50u);
    EXPECT_EQ(ends, 1u);
}

TEST_F(XfrmClients, OneThatLeavesIsForgotten) {
    { const auto c = client(); }
    serve();
    EXPECT_EQ(server_->counters().clients, 0u);
}

} // namespace
} // namespace esplane::xfrm
