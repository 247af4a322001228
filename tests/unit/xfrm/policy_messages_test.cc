// SPDX-License-Identifier: Apache-2.0
//
// Messages about policies beyond adding and deleting them: defaults, types, security contexts,
// MIGRATE, POLEXPIRE and ACQUIRE from clients.  Requests in, replies and events as messages out.
#include <gtest/gtest.h>

#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/xfrm/requests.h"
#include "xfrm/dispatch.h"
#include "xfrm/event_codec.h"
#include "xfrm/events.h"

namespace esplane::xfrm {
namespace {

const ipsec::address old_local = ipsec::address::v4(wire::be32(0x0a010001));
const ipsec::address new_local = ipsec::address::v4(wire::be32(0x0a01000b));
const ipsec::address peer = ipsec::address::v4(wire::be32(0x0a010002));

class PolicyMessages : public ::testing::Test, private ipsec::listener, private reply_sink {
  protected:
    PolicyMessages() {
        layer_.subscribe(this);
        client_.port_id = 77;
        client_.extended_acks = true;
    }
    ~PolicyMessages() override { layer_.unsubscribe(this); }

    /// The one answer.
    reply_view ask_for(const datagram& d) {
        replies_.clear();
        events_.clear();
        dispatcher_.request(d, client_, {1'000'000'000, 1'700'000'000}, *this);
        return replies_.empty() ? reply_view{} : view(messages_of(replies_.back()).at(0));
    }
    int error_of(const datagram& d) { return ask_for(d).error; }
    std::string text_of(const datagram& d) { return ask_for(d).text; }

    std::vector<std::uint16_t> event_types() {
        std::vector<std::uint16_t> types;
        for (const datagram& e : events_)
            types.push_back(messages_of(e).at(0).header.nlmsg_type);
        return types;
    }
    template <typename T>
    static T body_of(const datagram& d) {
        return read_fixed<T>(messages_of(d).at(0).payload()).value();
    }
    static attributes attributes_of(const datagram& d, std::size_t fixed) {
        return attributes::parse(messages_of(d).at(0), fixed).value();
    }

    /// Of example_sa() and example_policy(): the local end goes elsewhere.
    static ipsec::migration move_local(const ipsec::policy& p) {
        ipsec::migration m;
        m.selected.dir = p.dir;
        m.selected.sel = p.sel;
        m.moves.push_back({old_local, peer, new_local, peer, 50, ipsec::mode::tunnel, 1});
        return m;
    }
    static datagram migrate(const ipsec::migration& m) {
        return request(XFRM_MSG_MIGRATE, ask_ack, [&](message_writer& w) {
            xfrm_userpolicy_id id{};
            id.sel = selector_to(m.selected.sel);
            id.dir = static_cast<std::uint8_t>(m.selected.dir);
            w.fixed(id);
            std::vector<std::uint8_t> all;
            for (const ipsec::sa_move& move : m.moves) {
                xfrm_user_migrate out{};
                out.old_daddr = address_to(move.old_destination);
                out.old_saddr = address_to(move.old_source);
                out.new_daddr = address_to(move.new_destination);
                out.new_saddr = address_to(move.new_source);
                out.proto = move.protocol;
                out.mode = static_cast<std::uint8_t>(move.run_mode);
                out.reqid = move.reqid;
                out.old_family = out.new_family = AF_INET;
                const auto* at = reinterpret_cast<const std::uint8_t*>(&out);
                all.insert(all.end(), at, at + sizeof out);
            }
            if (!all.empty()) w.attribute_bytes(XFRMA_MIGRATE, all);
            if (m.encap) encode_encap(w, *m.encap);
        });
    }
    static datagram set_default(std::uint8_t in, std::uint8_t fwd, std::uint8_t out) {
        return request(XFRM_MSG_SETDEFAULT, ask_ack, [&](message_writer& w) {
            w.fixed(xfrm_userpolicy_default{in, fwd, out});
        });
    }

    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    dispatcher dispatcher_{layer_};
    client_state client_;
    std::vector<datagram> replies_;
    std::vector<datagram> events_;
    std::vector<std::uint32_t> groups_;

  private:
    void on_event(const ipsec::event& e) override {
        events_.emplace_back();
        groups_.push_back(encode_event(e, events_.back()));
    }
    void reply(datagram&& d) override { replies_.push_back(std::move(d)); }
};

TEST_F(PolicyMessages, DefaultsAreAcceptUntilTheyAreSetAndUnspecLeavesThemAlone) {
    const datagram get = request(XFRM_MSG_GETDEFAULT, ask,
                                 [](message_writer& w) { w.fixed(xfrm_userpolicy_default{}); });
    ask_for(get);
    auto now = body_of<xfrm_userpolicy_default>(replies_.at(0));
    EXPECT_EQ(now.in, XFRM_USERPOLICY_ACCEPT);
    EXPECT_EQ(error_of(set_default(XFRM_USERPOLICY_BLOCK, XFRM_USERPOLICY_UNSPEC, 9)), 0);
    ASSERT_EQ(event_types(), std::vector<std::uint16_t>{XFRM_MSG_GETDEFAULT});
    EXPECT_EQ(groups_.back(), static_cast<std::uint32_t>(XFRMNLGRP_POLICY));
    ask_for(get);
    now = body_of<xfrm_userpolicy_default>(replies_.at(0));
    EXPECT_EQ(now.in, XFRM_USERPOLICY_BLOCK);
    EXPECT_EQ(now.fwd, XFRM_USERPOLICY_ACCEPT);
    EXPECT_EQ(now.out, XFRM_USERPOLICY_ACCEPT);
    EXPECT_EQ(backend_.taken_calls().back(), "set_defaults 100");
}

TEST_F(PolicyMessages, APolicyOfEachTypeHasTheSameNameAndItsOwnFlush) {
    ipsec::policy sub = example_policy();
    sub.templates.clear();
    sub.type = ipsec::policy_type::sub;
    EXPECT_EQ(error_of(new_policy(example_policy())), 0);
    EXPECT_EQ(error_of(new_policy(sub)), 0);
    EXPECT_EQ(error_of(new_policy(sub)), EEXIST);
    EXPECT_EQ(layer_.policy_counts().in + layer_.policy_counts().out, 2u);

    const datagram flush = request(XFRM_MSG_FLUSHPOLICY, ask_ack, [](message_writer& w) {
        encode_policy_type(w, ipsec::policy_type::sub);
    });
    EXPECT_EQ(error_of(flush), 0);
    EXPECT_EQ(event_types(), std::vector<std::uint16_t>{XFRM_MSG_FLUSHPOLICY});
    EXPECT_EQ(error_of(flush), 0);
    EXPECT_TRUE(events_.empty()) << "there was nothing left to flush";
    EXPECT_EQ(error_of(policy_by(XFRM_MSG_GETPOLICY, example_policy(), false)), 0);
}

TEST_F(PolicyMessages, ATypeThatIsNoneIsInvalid) {
    const xfrm_userpolicy_type type{2, 0, 0};
    const bytes value(reinterpret_cast<const std::uint8_t*>(&type), sizeof type);
    EXPECT_EQ(text_of(with_attribute(policy_by(XFRM_MSG_GETPOLICY, example_policy(), false),
                                     XFRMA_POLICY_TYPE, value)),
              "Invalid policy type");
}

TEST_F(PolicyMessages, TemplatesOfBothTypesOverOnePacketAreRefusedByName) {
    ipsec::policy sub = example_policy();
    sub.type = ipsec::policy_type::sub;
    EXPECT_EQ(error_of(new_policy(example_policy())), 0);
    EXPECT_EQ(text_of(new_policy(sub)),
              "XFRMA_TMPL of a sub-policy beside that of a main policy is not carried");
    sub.sel.source = ipsec::address::v4(wire::be32(0xc0a80900)); // nothing in common
    EXPECT_EQ(error_of(new_policy(sub)), 0);
    EXPECT_EQ(error_of(new_policy(example_policy(9))), EOPNOTSUPP);
}

TEST_F(PolicyMessages, ASecurityContextIsPartOfTheName) {
    ipsec::policy labelled = example_policy();
    labelled.security = ipsec::security_context{1, 1, {'a', ':', 'b'}};
    EXPECT_EQ(error_of(new_policy(example_policy())), 0);
    EXPECT_EQ(error_of(new_policy(labelled)), 0);
    EXPECT_EQ(error_of(new_policy(labelled)), EEXIST);
    ask_for(dump(XFRM_MSG_GETPOLICY));
    const std::vector<message> all = messages_of(replies_.at(0));
    ASSERT_EQ(all.size(), 2u);
    const auto newest = attributes::parse(all[0], sizeof(xfrm_userpolicy_info)).value();
    EXPECT_EQ(newest.get(XFRMA_SEC_CTX).size(), sizeof(xfrm_user_sec_ctx) + 3);

    const bytes value = newest.get(XFRMA_SEC_CTX);
    const std::vector<std::uint8_t> context(value.begin(), value.end());
    const datagram by_name = policy_by(XFRM_MSG_DELPOLICY, example_policy(), false, ask_ack);
    EXPECT_EQ(error_of(with_attribute(by_name, XFRMA_SEC_CTX, context)), 0);
    EXPECT_EQ(error_of(with_attribute(by_name, XFRMA_SEC_CTX, context)), ENOENT);
    EXPECT_EQ(error_of(by_name), 0);
}

TEST_F(PolicyMessages, ASecurityContextWhoseLengthsDisagreeIsInvalid) {
    xfrm_user_sec_ctx head{};
    head.len = sizeof head + 4;
    const bytes value(reinterpret_cast<const std::uint8_t*>(&head), sizeof head);
    EXPECT_EQ(text_of(with_attribute(new_policy(example_policy()), XFRMA_SEC_CTX, value)),
              "Invalid security context length");
}

TEST_F(PolicyMessages, FlagsAreCarried) {
    ipsec::policy p = example_policy();
    p.flags = ipsec::policy_flag::local_ok | ipsec::policy_flag::icmp;
    EXPECT_EQ(error_of(new_policy(p)), 0);
    ask_for(policy_by(XFRM_MSG_GETPOLICY, p, false));
    EXPECT_EQ(body_of<xfrm_userpolicy_info>(replies_.at(0)).flags,
              XFRM_POLICY_LOCALOK | XFRM_POLICY_ICMP);
}

TEST_F(PolicyMessages, AMigrationMovesTheSaAndTheTemplateAndIsAnnounced) {
    ipsec::sa s = example_sa();
    s.replay.sent = 1000;
    s.replay_window = 32;
    ask_for(new_sa(s));
    ask_for(new_policy(example_policy()));
    backend_.usage[s.id].replay = {2000, 70, {0xffff}};
    const ipsec::migration m = move_local(example_policy());
    EXPECT_EQ(error_of(migrate(m)), 0);
    ASSERT_EQ(event_types(), std::vector<std::uint16_t>{XFRM_MSG_MIGRATE});
    EXPECT_EQ(groups_.back(), static_cast<std::uint32_t>(XFRMNLGRP_MIGRATE));

    const ipsec::sa* const moved = layer_.get_sa(s.id);
    ASSERT_NE(moved, nullptr);
    EXPECT_EQ(moved->source, new_local);
    EXPECT_EQ(moved->replay, (ipsec::replay_state{2000, 70, {0xffff}}));
    const ipsec::policy* const p =
        layer_.get_policy({example_policy().dir, example_policy().sel, 0});
    EXPECT_EQ(p->templates.front().source, new_local);
    EXPECT_EQ(p->templates.front().id.destination, peer);
}

TEST_F(PolicyMessages, AMigrationIsAnnouncedAsItWasAskedFor) {
    ask_for(new_policy(example_policy()));
    ipsec::migration m = move_local(example_policy());
    m.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4500), {}};
    xfrm_user_kmaddress km{};
    km.local = address_to(new_local);
    km.family = AF_INET;
    const bytes value(reinterpret_cast<const std::uint8_t*>(&km), sizeof km);
    EXPECT_EQ(error_of(with_attribute(migrate(m), XFRMA_KMADDRESS, value)), 0);
    const attributes a = attributes_of(events_.at(0), sizeof(xfrm_userpolicy_id));
    EXPECT_TRUE(a.has(XFRMA_ENCAP));
    EXPECT_EQ(a.load<xfrm_user_kmaddress>(XFRMA_KMADDRESS)->local.a4, km.local.a4);
    const auto move = a.load<xfrm_user_migrate>(XFRMA_MIGRATE).value();
    EXPECT_EQ(move.new_saddr.a4, address_to(new_local).a4);
    EXPECT_EQ(move.reqid, 1u);
}

TEST_F(PolicyMessages, AMigrationPutsItsSasIntoUdp) {
    ask_for(new_sa(example_sa()));
    ask_for(new_policy(example_policy()));
    ipsec::migration m = move_local(example_policy());
    m.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4501), {}};
    EXPECT_EQ(error_of(migrate(m)), 0);
    EXPECT_EQ(layer_.get_sa(example_sa().id)->encap->destination_port, wire::be16(4501));
}

TEST_F(PolicyMessages, AMigrationToADeviceIsRefusedAndMovesNothing) {
    ask_for(new_sa(example_sa()));
    ask_for(new_policy(example_policy()));
    const datagram m = with_attribute(migrate(move_local(example_policy())), XFRMA_OFFLOAD_DEV,
                                      std::vector<std::uint8_t>(8));
    EXPECT_EQ(text_of(m), "XFRMA_OFFLOAD_DEV is not carried");
    EXPECT_EQ(error_of(m), EOPNOTSUPP);
    EXPECT_EQ(layer_.get_sa(example_sa().id)->source, example_sa().source);
}

TEST_F(PolicyMessages, MigrationErrorsAreThoseOfTheKernel) {
    ipsec::migration m = move_local(example_policy());
    EXPECT_EQ(text_of(migrate(m)), "Target policy not found");
    EXPECT_EQ(error_of(migrate(m)), ENOENT);
    ask_for(new_policy(example_policy()));

    ipsec::migration none = m;
    none.moves.clear();
    EXPECT_EQ(text_of(migrate(none)), "Missing required MIGRATE attribute");
    ipsec::migration many = m;
    many.moves.resize(7, m.moves[0]);
    EXPECT_EQ(text_of(migrate(many)),
              "Invalid number of SAs to migrate, must be 0 < num <= XFRM_MAX_DEPTH (6)");
    ipsec::migration twice = m;
    twice.moves.push_back(m.moves[0]);
    EXPECT_EQ(text_of(migrate(twice)), "Entries in the MIGRATE attribute's list must be unique");
    ipsec::migration nowhere = m;
    nowhere.moves[0].new_source = ipsec::address::v4({});
    EXPECT_EQ(text_of(migrate(nowhere)),
              "Addresses in the MIGRATE attribute's list cannot be null");
    ipsec::migration elsewhere = m;
    elsewhere.moves[0].old_source = new_local; // no template begins there
    EXPECT_EQ(error_of(migrate(elsewhere)), ENODATA);
}

TEST_F(PolicyMessages, WhereOneSaCannotMoveAllAreAsTheyWere) {
    const ipsec::address other = ipsec::address::v4(wire::be32(0x0a010003));
    ipsec::sa taken = example_sa();
    taken.id.destination = other; // of the SPI that would move there
    ask_for(new_sa(example_sa()));
    ask_for(new_sa(taken));
    ipsec::sa second = example_sa(0x1002);
    second.reqid = 2;
    ask_for(new_sa(second));
    ask_for(new_policy(example_policy()));
    ipsec::migration m = move_local(example_policy());
    m.moves[0].reqid = 2;
    m.moves.push_back({old_local, peer, old_local, other, 50, ipsec::mode::tunnel, 1});
    EXPECT_EQ(error_of(migrate(m)), ENODATA);
    EXPECT_TRUE(events_.empty());
    EXPECT_EQ(layer_.get_sa(second.id)->source, old_local);
    EXPECT_NE(layer_.get_sa(example_sa().id), nullptr);
    EXPECT_EQ(layer_.sa_count(), 3u);
}

TEST_F(PolicyMessages, TheBestPolicyOfTheSelectorsOwnAddressesMigrates) {
    ipsec::policy wide = example_policy();
    wide.sel.source_prefix = 16;
    wide.priority = 1;
    ipsec::policy narrow = example_policy();
    narrow.priority = 2;
    ask_for(new_policy(narrow));
    ask_for(new_policy(wide));
    EXPECT_EQ(error_of(migrate(move_local(narrow))), 0);
    EXPECT_EQ(layer_.get_policy({wide.dir, wide.sel, 0})->templates[0].source, new_local);
    EXPECT_EQ(layer_.get_policy({narrow.dir, narrow.sel, 0})->templates[0].source, old_local);
}

datagram policy_expire(const ipsec::policy& p, bool hard) {
    return request(XFRM_MSG_POLEXPIRE, ask_ack, [&](message_writer& w) {
        xfrm_user_polexpire body{};
        body.pol = policy_info(p);
        body.hard = hard ? 1 : 0;
        w.fixed(body);
    });
}

TEST_F(PolicyMessages, AClientsExpiryIsAnnouncedAndAHardOneDeletes) {
    EXPECT_EQ(error_of(policy_expire(example_policy(), true)), ENOENT);
    ask_for(new_policy(example_policy()));
    EXPECT_EQ(error_of(policy_expire(example_policy(), false)), 0);
    ASSERT_EQ(event_types(), std::vector<std::uint16_t>{XFRM_MSG_POLEXPIRE});
    EXPECT_EQ(groups_.back(), static_cast<std::uint32_t>(XFRMNLGRP_EXPIRE));
    EXPECT_EQ(layer_.policy_counts().out, 1u);
    EXPECT_EQ(error_of(policy_expire(example_policy(), true)), 0);
    EXPECT_EQ(body_of<xfrm_user_polexpire>(events_.at(0)).hard, 1);
    EXPECT_EQ(layer_.policy_counts().out, 0u);
}

TEST_F(PolicyMessages, AClientsAcquireIsAnnouncedToListenersAndLeavesNothing) {
    const auto acquire = [](const ipsec::policy& p) {
        return request(XFRM_MSG_ACQUIRE, ask_ack, [&](message_writer& w) {
            xfrm_user_acquire body{};
            body.saddr = address_to(old_local);
            body.sel = selector_to(p.sel);
            body.policy = policy_info(p);
            body.aalgos = body.ealgos = body.calgos = 3;
            w.fixed(body);
            encode_policy_attributes(w, p);
        });
    };
    EXPECT_EQ(error_of(acquire(example_policy())), 0);
    ASSERT_EQ(event_types(), std::vector<std::uint16_t>{XFRM_MSG_ACQUIRE});
    EXPECT_EQ(groups_.back(), static_cast<std::uint32_t>(XFRMNLGRP_ACQUIRE));
    const auto told = body_of<xfrm_user_acquire>(events_.at(0));
    EXPECT_EQ(told.id.daddr.a4, address_to(peer).a4);
    EXPECT_EQ(told.saddr.a4, address_to(old_local).a4);
    EXPECT_EQ(told.ealgos, 3u);
    EXPECT_NE(told.seq, 0u);
    EXPECT_EQ(layer_.sa_count(), 0u);
    EXPECT_EQ(layer_.policy_counts().out, 0u);

    ipsec::policy clear = example_policy();
    clear.templates.clear();
    EXPECT_EQ(error_of(acquire(clear)), 0);
    EXPECT_TRUE(events_.empty()) << "nothing is wanted";
    ipsec::policy nothing = example_policy();
    nothing.sel.fam = ipsec::family::unspecified;
    EXPECT_EQ(text_of(acquire(nothing)), "Invalid selector family");
}

TEST_F(PolicyMessages, AReportGoesToItsGroup) {
    const ipsec::selector sel = example_policy().sel;
    layer_.report_packet({60, sel, old_local});
    ASSERT_EQ(event_types(), std::vector<std::uint16_t>{XFRM_MSG_REPORT});
    EXPECT_EQ(groups_.back(), static_cast<std::uint32_t>(XFRMNLGRP_REPORT));
    EXPECT_EQ(body_of<xfrm_user_report>(events_.at(0)).proto, 60);
}

} // namespace
} // namespace esplane::xfrm
