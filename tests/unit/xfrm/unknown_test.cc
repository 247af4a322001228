// SPDX-License-Identifier: Apache-2.0
//
// Attributes that mean nothing: refused by name, or passed over as the kernel does.  What the
// kernel does was seen on Linux 6.18.
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/lib/fake_backend.h"
#include "tests/unit/xfrm/requests.h"
#include "xfrm/dispatch.h"

namespace esplane::xfrm {
namespace {

using value = std::vector<std::uint8_t>;

class UnknownAttributes : public ::testing::Test, private reply_sink {
  protected:
    UnknownAttributes() { client_.extended_acks = true; }

    struct verdict {
        int error = -1;
        std::string text;

        friend bool operator==(const verdict&, const verdict&) = default;
    };
    verdict ask_for(const datagram& d) {
        last_.clear();
        dispatcher_.request(d, client_, {1'000'000'000, 1'700'000'000}, *this);
        for (const message& m : messages_of(last_))
            if (m.header.nlmsg_type == NLMSG_ERROR) return {view(m).error, view(m).text};
        return {0, {}};
    }
    static datagram spi_for_cpu(std::uint32_t cpu) {
        value v(4);
        std::memcpy(v.data(), &cpu, sizeof cpu);
        return with_attribute(allocate_spi(0x1000, 0x2000), xfrma_sa_pcpu, v);
    }

    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 1); }};
    dispatcher dispatcher_{layer_};
    client_state client_;
    datagram last_;

  private:
    void reply(datagram&& d) override { last_ = std::move(d); }
};

TEST_F(UnknownAttributes, BeyondThoseOfTheKernelAreRefusedByName) {
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), 42, value(4))),
              (verdict{EOPNOTSUPP, "XFRMA_42 is not carried"}));
    EXPECT_EQ(layer_.sa_count(), 0u);
}

TEST_F(UnknownAttributes, BeyondThoseOfTheKernelArePassedOverAsItDoes) {
    dispatcher_.set_strict(false);
    for (const std::uint16_t type : std::initializer_list<std::uint16_t>{42, 99, 0x3fff})
        EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa(type)), type, value(4))).error, 0);
    EXPECT_EQ(layer_.sa_count(), 3u);
    const auto by_id = sa_by_id(XFRM_MSG_GETSA, 0x9999);
    EXPECT_EQ(ask_for(with_attribute(by_id, 99, value(4))).error, ESRCH);
}

TEST_F(UnknownAttributes, OfAnotherKindOfMessageAreRefusedByName) {
    EXPECT_EQ(ask_for(with_attribute(new_policy(example_policy()), XFRMA_REPLAY_THRESH, value(4))),
              (verdict{EOPNOTSUPP, "XFRMA_REPLAY_THRESH is not carried"}));
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), XFRMA_POLICY_TYPE, value(6))),
              (verdict{EOPNOTSUPP, "XFRMA_POLICY_TYPE is not carried"}));
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), XFRMA_PROTO, value(1))),
              (verdict{EOPNOTSUPP, "XFRMA_PROTO is not carried"}));
}

TEST_F(UnknownAttributes, OfAnotherKindOfMessageArePassedOverAsTheKernelDoes) {
    dispatcher_.set_strict(false);
    EXPECT_EQ(
        ask_for(with_attribute(new_policy(example_policy()), XFRMA_REPLAY_THRESH, value(4))).error,
        0);
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), XFRMA_POLICY_TYPE, value(6))).error, 0);
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa(2)), XFRMA_PROTO, value(1))).error, 0);
}

TEST_F(UnknownAttributes, ThatAClientReadsBackWithItsSaAreNoneOfThem) {
    const datagram d = with_attribute(new_sa(example_sa()), XFRMA_LASTUSED, value(8));
    EXPECT_EQ(ask_for(with_attribute(d, XFRMA_LTIME_VAL, value(sizeof(xfrm_lifetime_cur)))).error,
              0);
}

TEST_F(UnknownAttributes, ThatAreKnownAndNotCarriedAreRefusedInAnyCase) {
    for (const bool strict : {true, false}) {
        dispatcher_.set_strict(strict);
        EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), XFRMA_OFFLOAD_DEV, value(8))),
                  (verdict{EOPNOTSUPP, "XFRMA_OFFLOAD_DEV is not carried"}));
        EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), xfrma_iptfs_pkt_size, value(4))),
                  (verdict{EOPNOTSUPP, "XFRMA_IPTFS_PKT_SIZE is not carried"}));
        EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), XFRMA_ALG_COMP, value(72))),
                  (verdict{EOPNOTSUPP, "XFRMA_ALG_COMP is not carried"}));
    }
}

TEST_F(UnknownAttributes, FromTheDirectionOnHaveAnExactLength) {
    const verdict wrong{EINVAL, "invalid attribute length"};
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), xfrma_sa_pcpu, value(2))), wrong);
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), xfrma_sa_pcpu, value(8))), wrong);
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), xfrma_nat_keepalive_interval, value(8))),
              wrong);
}

// What the kernel says of XFRMA_SA_PCPU.

TEST_F(UnknownAttributes, ACpuIsForMessagesThatMakeSas) {
    const verdict invalid{EINVAL, "Invalid attribute SA_PCPU"};
    for (const std::uint16_t type : {XFRM_MSG_GETSA, XFRM_MSG_DELSA})
        EXPECT_EQ(ask_for(with_attribute(sa_by_id(type, 0x1001), xfrma_sa_pcpu, value(4))),
                  invalid);
    EXPECT_EQ(ask_for(with_attribute(new_policy(example_policy()), xfrma_sa_pcpu, value(4))),
              invalid);
    EXPECT_EQ(ask_for(spi_for_cpu(0)).error, 0);
}

TEST_F(UnknownAttributes, ACpuNeedsADirectionInAnSa) {
    EXPECT_EQ(ask_for(with_attribute(new_sa(example_sa()), xfrma_sa_pcpu, value(4))),
              (verdict{EINVAL, "SA_PCPU only supported with SA_DIR"}));
}

TEST_F(UnknownAttributes, ACpuThatTheMachineCannotHaveIsTooBig) {
    ipsec::sa s = example_sa();
    s.dir = ipsec::direction::out;
    s.pcpu = 1u << 20;
    EXPECT_EQ(ask_for(new_sa(s)), (verdict{ERANGE, "pCPU number too big"}));
    EXPECT_EQ(ask_for(spi_for_cpu(1u << 20)), (verdict{EINVAL, "pCPU number too big"}));
}

TEST_F(UnknownAttributes, ACpuIsReadBackInFrontOfTheDirection) {
    ipsec::sa s = example_sa();
    s.dir = ipsec::direction::out;
    s.pcpu = 0;
    ASSERT_EQ(ask_for(new_sa(s)).error, 0);
    (void)ask_for(sa_by_id(XFRM_MSG_GETSA, 0x1001));
    const auto messages = messages_of(last_);
    ASSERT_EQ(messages.size(), 1u);
    std::vector<std::uint16_t> types;
    for_each_attribute(messages[0].after(sizeof(xfrm_usersa_info)),
                       [&types](std::uint16_t type, bytes) {
                           types.push_back(type);
                           return true;
                       });
    const auto cpu = std::ranges::find(types, xfrma_sa_pcpu);
    ASSERT_NE(cpu, types.end());
    ASSERT_NE(cpu + 1, types.end());
    EXPECT_EQ(cpu[1], xfrma_sa_dir);
}

TEST_F(UnknownAttributes, PoliciesMayAskForEachCpu) {
    ipsec::policy p = example_policy();
    p.flags = ipsec::policy_flag::cpu_acquire;
    EXPECT_EQ(ask_for(new_policy(p)).error, 0);
    control::cursor at;
    EXPECT_EQ(layer_.next_policy(at)->flags, ipsec::policy_flag::cpu_acquire);
}

} // namespace
} // namespace esplane::xfrm
