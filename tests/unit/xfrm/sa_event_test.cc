// SPDX-License-Identifier: Apache-2.0
//
// NEWAE, GETAE and EXPIRE from clients, and the attributes of SAs that come with them.
#include <gtest/gtest.h>

#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/xfrm/requests.h"
#include "xfrm/dispatch.h"
#include "xfrm/event_codec.h"
#include "xfrm/events.h"
#include "xfrm/replay_codec.h"

namespace esplane::xfrm {
namespace {

constexpr std::uint16_t replace = ask_ack | NLM_F_REPLACE;

template <typename T>
bytes as_bytes(const T& value) {
    return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

class SaEvents : public ::testing::Test, private ipsec::listener, private reply_sink {
  protected:
    SaEvents() {
        layer_.subscribe(this);
        client_.port_id = 77;
        client_.extended_acks = true;
    }
    ~SaEvents() override { layer_.unsubscribe(this); }

    /// The one reply, and the events before it.
    reply_view ask_for(const datagram& d) {
        reply_.clear();
        events_.clear();
        dispatcher_.request(d, client_, {1'000'000'000, 1'700'000'000}, *this);
        return reply_.empty() ? reply_view{} : view(messages_of(reply_).at(0));
    }
    std::string refusal(const datagram& d, int code = EINVAL) {
        const reply_view v = ask_for(d);
        EXPECT_EQ(v.error, code);
        EXPECT_TRUE(events_.empty());
        return v.text;
    }
    template <typename... Given>
    static datagram new_ae(std::uint16_t flags, const Given&... given) {
        datagram d = request(XFRM_MSG_NEWAE, flags, [](message_writer& w) {
            xfrm_aevent_id id{};
            id.sa_id = sa_id_to(example_sa().id);
            w.fixed(id);
        });
        ((d = with_attribute(std::move(d), given.first, as_bytes(given.second))), ...);
        return d;
    }
    static datagram get_ae(std::uint32_t flags) {
        return request(XFRM_MSG_GETAE, ask, [flags](message_writer& w) {
            xfrm_aevent_id id{};
            id.sa_id = sa_id_to(example_sa().id);
            id.flags = flags;
            w.fixed(id);
        });
    }
    static datagram expire(std::uint32_t spi, bool hard) {
        return request(XFRM_MSG_EXPIRE, ask_ack, [&](message_writer& w) {
            xfrm_user_expire body{};
            body.state = sa_info(example_sa(spi));
            body.hard = hard ? 1 : 0;
            w.fixed(body);
        });
    }
    message reply() { return messages_of(reply_).at(0); }
    message event(std::size_t i = 0) { return messages_of(events_.at(i)).at(0); }
    template <typename T>
    static std::optional<T> value_in(const message& m, std::size_t fixed, std::uint16_t type) {
        return attributes::parse(m, fixed).value().load<T>(type);
    }
    const ipsec::sa& shown() { return *layer_.get_sa(example_sa().id); }

    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    dispatcher dispatcher_{layer_};
    client_state client_;
    datagram reply_;
    std::vector<datagram> events_;
    std::vector<std::uint32_t> groups_;

  private:
    void on_event(const ipsec::event& e) override {
        groups_.push_back(encode_event(e, events_.emplace_back()));
    }
    void reply(datagram&& d) override { reply_ = std::move(d); }
};

constexpr std::pair<std::uint16_t, xfrm_replay_state> a_state{XFRMA_REPLAY_VAL, {0x55, 0x77, 3}};
constexpr std::pair<std::uint16_t, xfrm_lifetime_cur> a_count{XFRMA_LTIME_VAL, {1234, 56, 78, 90}};

TEST_F(SaEvents, WhatIsGivenIsShownAndAnnouncedAsGiven) {
    ask_for(new_sa(example_sa()));
    const reply_view v = ask_for(new_ae(replace, a_state, a_count));
    EXPECT_EQ(v.error, 0) << v.text;
    ASSERT_EQ(events_.size(), 1u);
    EXPECT_EQ(groups_.back(), std::uint32_t{XFRMNLGRP_AEVENTS});
    EXPECT_EQ(event().header.nlmsg_seq, 7u);
    const auto id = read_fixed<xfrm_aevent_id>(event().payload()).value();
    EXPECT_EQ(id.flags, std::uint32_t{XFRM_AE_CU});
    EXPECT_EQ(id.reqid, 1u);
    EXPECT_EQ(shown().replay, (ipsec::replay_state{0x55, 0x77, {3}}));
    EXPECT_EQ(shown().current, (ipsec::lifetime_current{1234, 56, 78, 90}));
}

TEST_F(SaEvents, WhatIsNotGivenGoesOn) {
    ask_for(new_sa(example_sa()));
    backend_.usage[example_sa().id].replay.sent = 9;
    backend_.usage[example_sa().id].current.packets = 9;
    (void)backend_.taken_calls();
    ask_for(new_ae(replace, std::pair{std::uint16_t{XFRMA_REPLAY_THRESH}, 5u}));
    EXPECT_EQ(backend_.taken_calls(), std::vector<std::string>{}) << "workers have no part in it";
    EXPECT_EQ(shown().replay.sent, 9u);
    ask_for(new_ae(replace, a_count));
    EXPECT_EQ(shown().replay.sent, 9u);
    EXPECT_EQ(shown().current.packets, 56u);
}

TEST_F(SaEvents, ErrorsComeInTheKernelsOrderAndWords) {
    EXPECT_EQ(refusal(new_ae(ask_ack)), "Missing required attribute for AE");
    EXPECT_EQ(refusal(new_ae(ask_ack, a_state)), "NLM_F_REPLACE flag is required");
    EXPECT_EQ(refusal(new_ae(replace, a_state), ESRCH), "");
    ask_for(allocate_spi(0x1001, 0x1001));
    EXPECT_EQ(refusal(new_ae(replace, a_state)), "SA must be in VALID state");
}

/// XFRMA_REPLAY_ESN_VAL: struct xfrm_replay_state_esn.
struct esn_head {
    std::uint32_t bmp_len, oseq, seq, oseq_hi, seq_hi, replay_window;
};
struct esn_value {
    esn_head head;
    std::uint32_t bitmap[4];
};

TEST_F(SaEvents, AnEsnStateMustFitTheOneThatIsThere) {
    ipsec::sa s = example_sa();
    s.flags = ipsec::sa_flag::esn;
    s.replay_esn_form = true;
    s.replay_window = 32;
    s.replay.bitmap.resize(4);
    ASSERT_EQ(ask_for(new_sa(s)).error, 0);
    esn_value v{{4, 10, 20, 1, 2, 128}, {0xf, 0, 0, 0}};
    const auto with = [](const auto& value) {
        return new_ae(replace, std::pair{std::uint16_t{XFRMA_REPLAY_ESN_VAL}, value});
    };
    EXPECT_EQ(refusal(with(v.head)), "ESN attribute is too short");
    v.head.bmp_len = 3;
    EXPECT_EQ(refusal(with(v)), "New ESN size doesn't match the existing SA's ESN size");
    v.head.bmp_len = ~0u; // the kernel computes the length in 32 bits
    EXPECT_EQ(refusal(with(v)), "New ESN size doesn't match the existing SA's ESN size");
    v.head.bmp_len = 4 + (1u << 30);
    EXPECT_EQ(refusal(with(v)), "New ESN bitmap size doesn't match the existing SA's ESN bitmap");
    v.head.bmp_len = 4;
    v.head.replay_window = 129;
    EXPECT_EQ(refusal(with(v)), "ESN replay window is longer than the bitmap");
    v.head.replay_window = 128;
    EXPECT_EQ(ask_for(with(v)).error, 0);
    EXPECT_EQ(shown().replay.sent, (1ull << 32) + 10);
    EXPECT_EQ(shown().replay.received, (2ull << 32) + 20);
    EXPECT_EQ(shown().replay_window, 128u);
    EXPECT_EQ(ask_for(new_ae(replace, a_state)).error, 0) << "nothing to an SA with ESN";
    EXPECT_EQ(shown().replay.sent, (1ull << 32) + 10);
}

TEST_F(SaEvents, ThresholdsAreThoseOfTheSysctlsUnlessTheClientNamesOthers) {
    ask_for(new_sa(example_sa()));
    ask_for(get_ae(XFRM_AE_RTHR | XFRM_AE_ETHR));
    const auto threshold = [this](std::uint16_t type) {
        return value_in<std::uint32_t>(reply(), sizeof(xfrm_aevent_id), type);
    };
    EXPECT_EQ(threshold(XFRMA_REPLAY_THRESH), 2u);
    EXPECT_EQ(threshold(XFRMA_ETIMER_THRESH), 10u);
    ask_for(get_ae(0));
    EXPECT_EQ(threshold(XFRMA_REPLAY_THRESH), std::nullopt);
    EXPECT_EQ(threshold(XFRMA_ETIMER_THRESH), std::nullopt);

    ask_for(new_ae(replace, std::pair{std::uint16_t{XFRMA_REPLAY_THRESH}, 0u},
                   std::pair{std::uint16_t{XFRMA_ETIMER_THRESH}, 33u}));
    ask_for(get_ae(XFRM_AE_RTHR | XFRM_AE_ETHR));
    EXPECT_EQ(threshold(XFRMA_REPLAY_THRESH), 0u);
    EXPECT_EQ(threshold(XFRMA_ETIMER_THRESH), 33u);

    ASSERT_TRUE(layer_.delete_sa(example_sa().id, {}));
    const std::uint32_t seven = 7;
    ask_for(with_attribute(new_sa(example_sa()), XFRMA_REPLAY_THRESH, as_bytes(seven)));
    ask_for(get_ae(XFRM_AE_RTHR | XFRM_AE_ETHR));
    EXPECT_EQ(threshold(XFRMA_REPLAY_THRESH), 7u);
    EXPECT_EQ(threshold(XFRMA_ETIMER_THRESH), 10u);
}

TEST_F(SaEvents, AClientMayLetAnSaExpire) {
    EXPECT_EQ(refusal(expire(0x1001, false), ENOENT), "");
    ask_for(allocate_spi(0x2000, 0x2000));
    EXPECT_EQ(refusal(expire(0x2000, true)), "SA must be in VALID state");
    ask_for(new_sa(example_sa()));

    EXPECT_EQ(ask_for(expire(0x1001, false)).error, 0);
    ASSERT_EQ(events_.size(), 1u);
    EXPECT_EQ(groups_.back(), std::uint32_t{XFRMNLGRP_EXPIRE});
    EXPECT_EQ(event().header.nlmsg_seq, 0u);
    EXPECT_EQ(read_fixed<xfrm_user_expire>(event().payload())->hard, 0);
    EXPECT_FALSE(shown().dying) << "it is not what the client says";

    EXPECT_EQ(ask_for(expire(0x1001, true)).error, 0);
    ASSERT_EQ(events_.size(), 1u) << "no DELSA";
    EXPECT_EQ(read_fixed<xfrm_user_expire>(event().payload())->hard, 1);
    EXPECT_EQ(layer_.get_sa(example_sa().id), nullptr);
    EXPECT_FALSE(backend_.sas.contains(example_sa().id));
}

TEST_F(SaEvents, LabelsPaddingAndCareOfAddressesAreShownAgain) {
    ipsec::sa s = example_sa();
    s.security = ipsec::security_context{XFRM_SC_DOI_LSM, XFRM_SC_ALG_SELINUX, {'a', ':', 'b', 0}};
    s.tfc_pad = 256;
    s.care_of = *ipsec::address::parse("fd01::77");
    ASSERT_EQ(ask_for(new_sa(s)).error, 0);
    ask_for(sa_by_id(XFRM_MSG_GETSA, 0x1001));
    const auto again = decode_sa(read_fixed<xfrm_usersa_info>(reply().payload()).value(),
                                 attributes::parse(reply(), sizeof(xfrm_usersa_info)).value());
    ASSERT_TRUE(again);
    EXPECT_EQ(again->security, s.security);
    EXPECT_EQ(again->tfc_pad, 256u);
    ASSERT_TRUE(again->care_of);
    EXPECT_EQ(again->care_of->bytes, s.care_of->bytes);
}

TEST_F(SaEvents, LabelsOfTheWrongLengthAndPaddingInTransportModeAreRefused) {
    xfrm_user_sec_ctx label{sizeof label + 1, XFRMA_SEC_CTX, 1, 1, 0};
    EXPECT_EQ(refusal(with_attribute(new_sa(example_sa()), XFRMA_SEC_CTX, as_bytes(label))),
              "Invalid security context length");
    label.len = sizeof label;
    label.ctx_len = 4;
    EXPECT_EQ(refusal(with_attribute(new_sa(example_sa()), XFRMA_SEC_CTX, as_bytes(label))),
              "Invalid security context length");
    ipsec::sa s = example_sa();
    s.run_mode = ipsec::mode::transport;
    s.tfc_pad = 9;
    EXPECT_EQ(refusal(new_sa(s)), "TFC padding can only be used in tunnel mode");
}

TEST_F(SaEvents, FiltersOfDumpsAreNoAttributesOfOtherRequests) {
    const std::uint8_t protocol = 50;
    EXPECT_EQ(
        refusal(with_attribute(new_sa(example_sa()), XFRMA_PROTO, as_bytes(protocol)), EOPNOTSUPP),
        "XFRMA_PROTO is not carried");
}

} // namespace
} // namespace esplane::xfrm
