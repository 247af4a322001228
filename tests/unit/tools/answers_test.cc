// SPDX-License-Identifier: Apache-2.0
#include "tools/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fastpath/port_memory.h"
#include "tools/report.h"
#include "tools/scratch_directory.h"
#include "tools/text.h"

namespace esplane::tools {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

ipsec::address ip(const std::string& text) {
    return ipsec::address::parse(text).value();
}

/// An engine on a memory port, without a thread.
class Answers : public ::testing::Test {
  protected:
    void SetUp() override {
        buffers_ = fastpath::buffer_pool::make(64).value();
        port_ = std::make_unique<fastpath::memory_port>("lan", *buffers_, false);
        engine_ = engine::make(*buffers_, {port_.get()}, {fastpath::worker_options{}}).value();
    }

    void add_sa(std::uint32_t spi) {
        ipsec::sa s;
        s.source = ip("192.0.2.1");
        s.id = {ip("192.0.2.2"), wire::be32(spi), 50};
        const std::vector<std::uint8_t> key(20, 7);
        s.algs.aead = {"rfc4106(gcm(aes))", secret(key), 128};
        ASSERT_TRUE(ipsec::resolve(s.algs));
        const auto added = engine_->control().add_sa(std::move(s), {}, fastpath::now());
        ASSERT_TRUE(added) << added.error().text;
    }
    void add_policy(ipsec::policy_direction dir, const std::string& destination) {
        ipsec::policy p;
        p.dir = dir;
        p.sel.fam = ipsec::family::ipv4;
        p.sel.source = ip("0.0.0.0");
        p.sel.destination = ip(destination);
        p.sel.destination_prefix = 32;
        p.action = ipsec::policy_action::block;
        const auto added = engine_->control().add_policy(std::move(p), {}, fastpath::now());
        ASSERT_TRUE(added) << added.error().text;
    }
    json ask(const json& request) { return answer(*engine_, facts_, request); }
    /// Every page of a walk, and how many there were.
    std::pair<json, int> walk(const std::string& command, const std::string& key) {
        json all = json::array();
        json request = {{"command", command}};
        for (int pages = 1;; ++pages) {
            const json reply = ask(request);
            EXPECT_LE(reply.at(key).size(), page_size);
            all.insert(all.end(), reply.at(key).begin(), reply.at(key).end());
            if (reply.at("next").is_null()) return {all, pages};
            request["cursor"] = reply.at("next");
        }
    }

    daemon_facts facts_{"/run/x", fastpath::now().monotonic_ns - 5'000'000'000};
    std::unique_ptr<fastpath::buffer_pool> buffers_;
    std::unique_ptr<fastpath::memory_port> port_;
    std::unique_ptr<engine> engine_;
};

TEST_F(Answers, FilterShowsItsRulesInOrderWithWhatTheyDecided) {
    EXPECT_EQ(text_of_reply("filter", ask({{"command", "filter"}})), "no filter\n");
    engine_->set_filter({*fastpath::parse_filter_rule("allow in"),
                         *fastpath::parse_filter_rule("deny out dport 25")});
    const json reply = ask({{"command", "filter"}});
    ASSERT_EQ(reply["rules"].size(), 2u);
    EXPECT_EQ(reply["rules"][1],
              (json{{"rule", "deny out dport 25"}, {"packets", 0}, {"bytes", 0}}));
    EXPECT_THAT(text_of_reply("filter", reply), HasSubstr("deny out dport 25"));
    engine_->set_filter({});
    EXPECT_TRUE(ask({{"command", "filter"}})["rules"].empty());
}

TEST_F(Answers, SysctlsAreShownAndSet) {
    const json all = ask({{"command", "sysctl"}})["sysctls"];
    EXPECT_EQ(all.size(), 4u);
    EXPECT_EQ(all["xfrm_larval_drop"], 0);
    const json set = ask({{"command", "sysctl"}, {"name", "xfrm_acq_expires"}, {"value", "165"}});
    EXPECT_EQ(set, (json{{"sysctls", {{"xfrm_acq_expires", 165}}}}));
    EXPECT_EQ(text_of_reply("sysctl", set), "xfrm_acq_expires = 165\n");
    EXPECT_EQ(engine_->control().current_sysctls().acq_expires, 165u);
}

TEST_F(Answers, SysctlsThatAreNoneAreNamed) {
    EXPECT_EQ(ask({{"command", "sysctl"}, {"name", "colour"}})["error"],
              "colour: no such sysctl of XFRM");
    EXPECT_EQ(ask({{"command", "sysctl"}, {"name", "colour"}, {"value", "1"}})["error"],
              "colour: no such sysctl of XFRM");
    EXPECT_EQ(
        ask({{"command", "sysctl"}, {"name", "xfrm_acq_expires"}, {"value", "soon"}})["error"],
        "xfrm_acq_expires: must be a number from 0 to 2147483647");
}

TEST_F(Answers, StatusCountsWhatIsThere) {
    add_sa(0x1000);
    add_policy(ipsec::policy_direction::out, "10.0.0.1");
    add_policy(ipsec::policy_direction::out, "10.0.0.2");
    add_policy(ipsec::policy_direction::fwd, "10.0.0.1");
    const json status = ask({{"command", "status"}});
    EXPECT_EQ(status["version"], ESPLANE_VERSION);
    EXPECT_EQ(status["run_dir"], "/run/x");
    EXPECT_EQ(status["uptime_s"], 5);
    EXPECT_EQ(status["xfrm"], nullptr);
    EXPECT_EQ(status["ports"], 1);
    EXPECT_EQ(status["sas"], 1);
    EXPECT_EQ(status["routes"]["next_hops"], 1); // that of no route
    EXPECT_EQ(status["routes"]["refused"], 0);
    EXPECT_EQ(status["policies"], json({{"in", 0}, {"out", 2}, {"fwd", 1}}));
    EXPECT_THAT(text_of_reply("status", status), HasSubstr("up 5s\n"));
}

TEST_F(Answers, StatusCountsClientsAndWhatTheyLost) {
    EXPECT_EQ(ask({{"command", "status"}})["clients"], nullptr); // nobody is served
    const auto directory = scratch_directory::make();
    ASSERT_TRUE(directory);
    ASSERT_TRUE(engine_->open_xfrm(directory->path() + "/xfrm"));
    json status = ask({{"command", "status"}});
    EXPECT_EQ(status["clients"], json({{"connected", 0},
                                       {"requests", 0},
                                       {"events_lost", 0},
                                       {"replies_lost", 0},
                                       {"refused", 0},
                                       {"broken", 0}}));
    EXPECT_THAT(text_of_reply("status", status), HasSubstr("clients   0\n"));
    status["clients"]["events_lost"] = 3;
    status["clients"]["replies_lost"] = 1;
    EXPECT_THAT(text_of_reply("status", status),
                HasSubstr("clients   0, 3 events lost, 1 replies lost\n"));
}

TEST_F(Answers, PagesHoldEverySaOnce) {
    constexpr unsigned count = 3 * page_size + 1;
    for (unsigned i = 0; i < count; ++i)
        add_sa(0x1000 + i);
    const auto [sas, pages] = walk("sa", "sas");
    std::set<std::string> spis;
    for (const json& sa : sas)
        EXPECT_TRUE(spis.insert(sa["spi"].get<std::string>()).second);
    EXPECT_EQ(spis.size(), count);
    EXPECT_EQ(pages, 4);
}

TEST_F(Answers, AFullPageWithNothingBehindItEndsTheWalk) {
    for (unsigned i = 0; i < page_size; ++i)
        add_policy(ipsec::policy_direction::out, "10.0.0." + std::to_string(i));
    EXPECT_EQ(walk("policy", "policies").first.size(), page_size);
}

TEST_F(Answers, PortsAndDropsHaveTheirShape) {
    const json ports = ask({{"command", "ports"}});
    ASSERT_EQ(ports["ports"].size(), 1u);
    EXPECT_EQ(ports["ports"][0]["name"], "lan");
    EXPECT_EQ(ports["ports"][0]["role"], "plain");
    EXPECT_THAT(text_of_reply("ports", ports), HasSubstr("lan   memory  lan     plain"));
    const json drops = ask({{"command", "drops"}});
    EXPECT_EQ(drops["packets"]["received"], 0);
    EXPECT_EQ(drops["drops"].size(), fastpath::drop_reason_count - 1);
}

TEST_F(Answers, WorkersHaveALineEach) {
    const json unwatched = ask({{"command", "workers"}})["workers"];
    ASSERT_EQ(unwatched.size(), 1u);
    EXPECT_EQ(unwatched[0]["busy"], nullptr);
    EXPECT_EQ(unwatched[0]["cpu"], nullptr);
    EXPECT_EQ(unwatched[0]["state"], "asleep");
    EXPECT_EQ(unwatched[0]["handed_out"], 0);
    worker_care care(*engine_, [](const std::string& line) { FAIL() << line; });
    care.tend(fastpath::now().monotonic_ns);
    facts_.workers = &care;
    EXPECT_EQ(ask({{"command", "workers"}})["workers"][0]["busy"], 0.0);
    EXPECT_TRUE(ask({{"command", "status"}})["stuck_workers"].empty());
    EXPECT_THAT(text_of_reply("workers", ask({{"command", "workers"}})),
                HasSubstr("0    -  asleep    0%"));
}

TEST_F(Answers, AFrameThatIsDroppedIsReported) {
    const std::vector<std::uint8_t> no_ip{0xff, 0xff, 0xff};
    ASSERT_TRUE(port_->inject(no_ip));
    engine_->workers().front()->run_once(fastpath::now());
    EXPECT_THAT(text_of_reply("drops", ask({{"command", "drops"}})), HasSubstr("ip_malformed"));
}

TEST_F(Answers, WhatIsNotUnderstoodGetsALine) {
    EXPECT_THAT(ask({{"command", "x"}})["error"].get<std::string>(), HasSubstr("unknown command"));
    EXPECT_THAT(ask({{"command", 5}})["error"].get<std::string>(), HasSubstr("unknown command"));
    EXPECT_THAT(ask(json::object())["error"].get<std::string>(), HasSubstr("unknown command"));
    for (const json& cursor : {json(-1), json("1"), json(1.5), json()})
        EXPECT_EQ(ask({{"command", "sa"}, {"cursor", cursor}})["error"],
                  "cursor: must be a number");
    EXPECT_TRUE(ask({{"command", "sa"}, {"cursor", 0}})["sas"].empty());
}

} // namespace
} // namespace esplane::tools
