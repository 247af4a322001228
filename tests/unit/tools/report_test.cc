// SPDX-License-Identifier: Apache-2.0
#include "tools/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tools/text.h"

namespace esplane::tools {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;

ipsec::address ip(const char* text) {
    return ipsec::address::parse(text).value();
}

ipsec::sa an_sa() {
    ipsec::sa s;
    s.source = ip("192.0.2.1");
    s.id = {ip("192.0.2.2"), wire::be32(0x1001), 50};
    s.reqid = 7;
    s.flags = ipsec::sa_flag::esn;
    s.replay_window = 32;
    s.encap = ipsec::udp_encapsulation{wire::be16(4500), wire::be16(4501), {}};
    std::vector<std::uint8_t> key(20);
    for (std::size_t i = 0; i < key.size(); ++i)
        key[i] = static_cast<std::uint8_t>(0xa0 + i);
    s.algs.aead = {"rfc4106(gcm(aes))", secret(key), 128};
    s.algs.run = ipsec::suite::aes128_gcm16;
    s.limits.hard_packets = 1000;
    s.limits.soft_add_s = 60;
    s.current.packets = 3;
    s.current.bytes = 300;
    s.current.add_time = 1'700'000'000;
    s.statistics.replay = 2;
    s.statistics.integrity_failed = 5;
    return s;
}

ipsec::policy a_policy() {
    ipsec::policy p;
    p.dir = ipsec::policy_direction::out;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = ip("10.1.0.0");
    p.sel.source_prefix = 24;
    p.sel.destination = ip("10.2.0.0");
    p.sel.destination_prefix = 24;
    p.sel.protocol = wire::proto_tcp;
    p.sel.destination_port = wire::be16(80);
    p.sel.destination_port_mask = wire::be16(0xffff);
    p.priority = 100;
    p.index = 9;
    ipsec::template_ t;
    t.id.destination = ip("192.0.2.2");
    t.source = ip("192.0.2.1");
    t.reqid = 7;
    p.templates.push_back(t);
    return p;
}

TEST(SaReport, HasThisShape) {
    EXPECT_EQ(report_sa(an_sa()), json::parse(R"({
        "source": "192.0.2.1", "destination": "192.0.2.2", "spi": "0x00001001",
        "protocol": "esp", "mode": "tunnel", "reqid": 7, "direction": null,
        "if_id": null, "mark": null, "output_mark": null, "cpu": null,
        "state": "valid", "dying": false, "algorithm": "AES-128-GCM-16",
        "esn": true, "replay_window": 32,
        "encapsulation": {"type": "espinudp", "source_port": 4500, "destination_port": 4501},
        "sent_sequence": 0, "received_sequence": 0,
        "packets": 3, "bytes": 300, "add_time": 1700000000, "use_time": null, "last_used": null,
        "limits": {"soft_bytes": null, "hard_bytes": null, "soft_packets": null,
                   "hard_packets": 1000, "soft_add_s": 60, "hard_add_s": null,
                   "soft_use_s": null, "hard_use_s": null},
        "errors": {"replay_duplicate": 2, "replay_too_old": 0, "icv_mismatch": 5}})"));
}

TEST(SaReport, OfALarvalSaNamesNoAlgorithm) {
    ipsec::sa s = an_sa();
    s.state = ipsec::sa_state::larval;
    EXPECT_EQ(report_sa(s)["algorithm"], nullptr);
    EXPECT_EQ(report_sa(s)["state"], "larval");
}

TEST(SaReport, TakesTheDirectionFromTheClientElseFromUse) {
    ipsec::sa s = an_sa();
    s.replay.sent = 5;
    EXPECT_EQ(report_sa(s)["direction"], "out");
    s.replay.received = 5;
    EXPECT_EQ(report_sa(s)["direction"], nullptr);
    s.replay.sent = 0;
    EXPECT_EQ(report_sa(s)["direction"], "in");
    s.dir = ipsec::direction::out;
    EXPECT_EQ(report_sa(s)["direction"], "out");
}

TEST(SaReport, NamesTheCpuOfAnSaForOne) {
    ipsec::sa s = an_sa();
    s.pcpu = 3;
    const json report = report_sa(s);
    EXPECT_EQ(report["cpu"], 3);
    EXPECT_THAT(text_of_reply("sa", {{"sas", {report}}}), HasSubstr("udp:4500>4501 cpu 3\n"));
}

TEST(PolicyReport, HasThisShape) {
    EXPECT_EQ(report_policy(a_policy()), json::parse(R"({
        "direction": "out", "action": "protect", "priority": 100, "index": 9, "if_id": null,
        "mark": null,
        "selector": {"source": "10.1.0.0/24", "destination": "10.2.0.0/24", "protocol": "tcp",
                     "source_port": null, "destination_port": 80},
        "templates": [{"source": "192.0.2.1", "destination": "192.0.2.2", "protocol": "esp",
                       "spi": null, "mode": "tunnel", "reqid": 7, "optional": false}],
        "packets": 0, "bytes": 0, "add_time": 0, "use_time": null,
        "limits": {"soft_bytes": null, "hard_bytes": null, "soft_packets": null,
                   "hard_packets": null, "soft_add_s": null, "hard_add_s": null,
                   "soft_use_s": null, "hard_use_s": null}})"));
}

TEST(PolicyReport, NamesWhatThePolicyDoes) {
    ipsec::policy p = a_policy();
    p.templates.clear();
    EXPECT_EQ(report_policy(p)["action"], "bypass");
    p.action = ipsec::policy_action::block;
    EXPECT_EQ(report_policy(p)["action"], "discard");
}

TEST(DropReport, HasEveryReasonOnceAndNotTheAbsentOne) {
    fastpath::worker_counters c;
    c.dropped[static_cast<std::size_t>(fastpath::drop_reason::icv_mismatch)].add(4);
    const json drops = report_drops(c);
    EXPECT_EQ(drops.size(), fastpath::drop_reason_count - 1);
    std::set<std::string> reasons;
    for (const json& d : drops) {
        EXPECT_TRUE(reasons.insert(d["reason"].get<std::string>()).second);
        EXPECT_EQ(d["packets"], d["reason"] == "icv_mismatch" ? 4 : 0);
    }
    EXPECT_EQ(reasons.count("none"), 0u);
}

TEST(ReportText, ShowsAnSaInOneLine) {
    const std::string text = text_of_reply("sa", {{"sas", {report_sa(an_sa())}}});
    EXPECT_THAT(text, HasSubstr("DIR  SOURCE     DESTINATION  SPI         REQID  STATE"));
    EXPECT_THAT(text, HasSubstr("-    192.0.2.1  192.0.2.2    0x00001001      7  valid"));
    EXPECT_THAT(text, HasSubstr("esn udp:4500>4501"));
    EXPECT_EQ(text_of_reply("sa", {{"sas", json::array()}}), "no SAs\n");
}

TEST(ReportText, ShowsAPolicyInOneLine) {
    const std::string text = text_of_reply("policy", {{"policies", {report_policy(a_policy())}}});
    EXPECT_THAT(text,
                HasSubstr("out       100      9      -  -     protect  10.1.0.0/24  10.2.0.0/24  "
                          "tcp any > 80  esp tunnel 192.0.2.1 > 192.0.2.2 reqid 7\n"));
    EXPECT_EQ(text_of_reply("policy", {{"policies", json::array()}}), "no policies\n");
}

TEST(ReportText, ShowsTheDropsThatHappenedMostFrequentFirst) {
    fastpath::worker_counters c;
    c.dropped[static_cast<std::size_t>(fastpath::drop_reason::fragment)].add(1);
    c.dropped[static_cast<std::size_t>(fastpath::drop_reason::icv_mismatch)].add(40);
    const std::string text = text_of_reply("drops", {{"drops", report_drops(c)}});
    EXPECT_LT(text.find("icv_mismatch       40"), text.find("fragment            1"));
    EXPECT_THAT(text, Not(HasSubstr("sa_unknown")));
    EXPECT_EQ(text_of_reply("drops", {{"drops", report_drops({})}}), "no drops\n");
}

TEST(ReportText, ShowsTheAccountsWithoutWhatIsZero) {
    fastpath::worker_counters c;
    EXPECT_EQ(text_of_packets(report_packets(c)), "none");
    c.received.add(3);
    c.sent.add(2);
    c.dropped[1].add(1);
    EXPECT_EQ(text_of_packets(report_packets(c)), "received 3, sent 2, dropped 1");
}

TEST(ReportText, NeverShowsAKey) {
    const json report = report_sa(an_sa());
    const std::string all = report.dump() + text_of_reply("sa", {{"sas", {report}}});
    EXPECT_THAT(all, Not(HasSubstr("a0a1a2")));
    EXPECT_THAT(all, Not(HasSubstr("rfc4106")));
    EXPECT_THAT(all, Not(HasSubstr("160,161")));
}

} // namespace
} // namespace esplane::tools
