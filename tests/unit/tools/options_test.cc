// SPDX-License-Identifier: Apache-2.0
#include "tools/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fastpath/mss.h"
#include "tests/unit/tools/temporary_directory.h"
#include "tools/ports_socket.h"

namespace esplane::tools {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string port_error(const std::string& text) {
    const auto port = parse_port(text);
    return port ? "" : port.error().text;
}

result<std::variant<daemon_options, text_answer>> parse(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "esplaned");
    return parse_daemon_options(static_cast<int>(arguments.size()), arguments.data());
}

daemon_options options_of(std::vector<const char*> arguments) {
    const auto parsed = parse(std::move(arguments));
    EXPECT_TRUE(parsed) << parsed.error().text;
    return parsed ? std::get<daemon_options>(*parsed) : daemon_options{};
}

std::string error_of(std::vector<const char*> arguments) {
    const auto parsed = parse(std::move(arguments));
    return parsed ? "" : parsed.error().text;
}

TEST(PortSpec, NamesKindDeviceAndRole) {
    const auto port = parse_port("wan=packet:veth2,role=secure");
    ASSERT_TRUE(port) << port.error().text;
    EXPECT_EQ(port->name, "wan");
    EXPECT_EQ(port->kind, "packet");
    EXPECT_EQ(port->device, "veth2");
    EXPECT_EQ(port->role, fastpath::port_role::secure);
}

TEST(PortSpec, IsPlainUnlessToldOtherwise) {
    EXPECT_EQ(parse_port("a=packet:b")->role, fastpath::port_role::plain);
    EXPECT_EQ(parse_port("a=packet:b,role=host")->role, fastpath::port_role::host);
    EXPECT_EQ(parse_port("a=packet:b,role=host,role=secure")->role, fastpath::port_role::secure);
}

TEST(PortSpec, KeepsEqualsSignsAndColonsOfTheDevice) {
    EXPECT_EQ(parse_port("a=packet:eth0:1")->device, "eth0:1");
    EXPECT_EQ(parse_port("a=packet:x=y")->device, "x=y");
}

TEST(PortSpec, EveryFaultHasALineThatNamesThePort) {
    for (const char* text : {"", "wan", "wan=", "wan=xdp", "packet:veth2", "packet:eth=0"})
        EXPECT_EQ(port_error(text),
                  std::string("--port ") + text +
                      ": not of the form NAME=KIND:DEVICE[,role=plain|secure|host]");
    EXPECT_EQ(
        port_error("=packet:veth2"),
        "--port =packet:veth2: bad name \"\": use up to 32 letters, digits, '-', '_' and '.'");
    EXPECT_THAT(port_error("w/n=packet:veth2"), HasSubstr("bad name \"w/n\""));
    EXPECT_THAT(port_error(std::string(33, 'a') + "=packet:veth2"), HasSubstr("bad name"));
    EXPECT_EQ(port_error("wan=carrier:0"),
              "--port wan=carrier:0: no port kind \"carrier\": this build has " + port_kinds());
    EXPECT_THAT(port_kinds(), HasSubstr("packet"));
    EXPECT_THAT(port_error("wan=:veth2"), HasSubstr("no port kind \"\""));
    EXPECT_EQ(port_error("wan=packet:"),
              "--port wan=packet:: bad device \"\": a device has 1 to 15 characters (ip link)");
    EXPECT_THAT(port_error("wan=packet:sixteencharacter"), HasSubstr("bad device"));
    EXPECT_EQ(
        port_error("wan=packet:veth2,role=outer"),
        "--port wan=packet:veth2,role=outer: no role \"outer\": choose plain, secure or host");
    for (const char* option : {"", "speed=10", "role"})
        EXPECT_EQ(port_error(std::string("wan=packet:veth2,") + option),
                  std::string("--port wan=packet:veth2,") + option + ": unknown option \"" +
                      option + "\": there is role=plain|secure|host, qdisc=...");
    EXPECT_EQ(parse_port("wan=packet:veth2,qdisc=bypass")->options.at(0),
              (std::pair<std::string, std::string>("qdisc", "bypass")));
}

TEST(CpuList, TakesNumbersAndRanges) {
    EXPECT_THAT(*parse_cpus("3"), ElementsAre(3));
    EXPECT_THAT(*parse_cpus("0,4-6,2"), ElementsAre(0, 4, 5, 6, 2));
    for (const char* text : {"", ",", "1,", "-1", "2-1", "1-", "a", "1 2", "1024", "99999999999"})
        EXPECT_FALSE(parse_cpus(text)) << text;
}

TEST(DaemonOptions, DefaultsHoldWhereNothingIsSaid) {
    const daemon_options o = options_of({"--port", "lan=packet:veth1"});
    EXPECT_EQ(o.run_dir, "/run/esplane");
    EXPECT_TRUE(o.serve_xfrm);
    EXPECT_EQ(o.workers, 1u);
    EXPECT_TRUE(o.cpus.empty());
    ASSERT_EQ(o.ports.size(), 1u);
}

TEST(DaemonOptions, TakesPortsInOrder) {
    const daemon_options o =
        options_of({"--run-dir", "/run/a", "--port", "lan=packet:veth1,role=plain", "--port",
                    "wan=packet:veth2,role=secure", "--xfrm", "off", "--cpus", "1"});
    EXPECT_EQ(o.run_dir, "/run/a");
    EXPECT_FALSE(o.serve_xfrm);
    EXPECT_THAT(o.cpus, ElementsAre(1));
    ASSERT_EQ(o.ports.size(), 2u);
    EXPECT_EQ(o.ports[0].name, "lan");
    EXPECT_EQ(o.ports[1].name, "wan");
}

TEST(DaemonOptions, EveryFaultHasALine) {
    EXPECT_EQ(error_of({}), "no port: give at least one, as in --port wan=xdp:eth0,role=secure");
    EXPECT_EQ(error_of({"--xfrm", "mirror", "--port", "a=packet:b"}),
              "--xfrm mirror: not in this version: choose serve or off");
    EXPECT_EQ(error_of({"--xfrm", "x", "--port", "a=packet:b"}), "--xfrm x: choose serve or off");
    EXPECT_EQ(error_of({"--workers", "65", "--port", "a=packet:b"}),
              "--workers 65: choose 1 to 64");
    EXPECT_EQ(error_of({"--cpus", "1,2", "--port", "a=packet:b"}),
              "--cpus 1,2: name one CPU for each of the 1 workers");
    EXPECT_EQ(error_of({"--poll", "never", "--port", "a=packet:b"}),
              "--poll never: choose adaptive or always");
    EXPECT_THAT(error_of({"--run-dir", "", "--port", "a=packet:b"}), HasSubstr("--run-dir"));
    EXPECT_THAT(error_of({"--port", "a=packet:b", "--port", "a=packet:c"}),
                HasSubstr("there is a port \"a\" already"));
    EXPECT_THAT(error_of({"--port", "a=packet:b", "--port", "c=packet:b"}),
                HasSubstr("device b is another port's"));
    EXPECT_THAT(error_of({"--colour"}), HasSubstr("see esplaned --help"));
    EXPECT_THAT(error_of({"--workers", "many"}), HasSubstr("see esplaned --help"));
}

TEST(DaemonOptions, HelpAndVersionAskForTextAlone) {
    EXPECT_EQ(std::get<text_answer>(*parse({"--version"})).text, "esplaned " ESPLANE_VERSION "\n");
    EXPECT_THAT(std::get<text_answer>(*parse({"--help"})).text,
                HasSubstr("NAME=KIND:DEVICE[,role=plain|secure|host]"));
}

TEST(Options, APuntLimitChangesTheClassesItNames) {
    const auto rates = parse_punt_limit("ike=10,other=0");
    ASSERT_TRUE(rates) << rates.error().text;
    EXPECT_EQ(rates->of(fastpath::punt_class::ike), 10u);
    EXPECT_EQ(rates->of(fastpath::punt_class::other), 0u);
    for (const auto same : {fastpath::punt_class::arp_nd, fastpath::punt_class::icmp})
        EXPECT_EQ(rates->of(same), fastpath::default_punt_rates.of(same));
    EXPECT_EQ(options_of({"--port", "lan=packet:a"}).punts, fastpath::default_punt_rates);
}

TEST(Options, AFaultyPuntLimitIsNamed) {
    for (const auto& [text, what] :
         {std::pair{"bgp=1", "\"bgp\""}, std::pair{"ike", "\"ike\""},
          std::pair{"ike=x", "\"ike=x\""}, std::pair{"ike=1,,", "no class \"\""},
          std::pair{"ike=9999999999", "\"ike=9999999999\""}})
        EXPECT_THAT(error_of({"--punt-limit", text, "--port", "lan=packet:a"}),
                    ::testing::AllOf(HasSubstr(std::string("--punt-limit ") + text + ": "),
                                     HasSubstr(what)));
}

TEST(Options, AFaultyFilterRuleIsNamed) {
    EXPECT_THAT(error_of({"--filter", "deny proto tpc", "--port", "lan=packet:a"}),
                HasSubstr("--filter \"deny proto tpc\": unknown protocol \"tpc\""));
    std::vector<const char*> many{"--port", "lan=packet:a"};
    for (std::size_t i = 0; i <= fastpath::rule_filter::most_rules; ++i)
        many.insert(many.end(), {"--filter", "deny"});
    EXPECT_THAT(error_of(many), HasSubstr("257 rules"));
}

class ConfigFile : public ::testing::Test {
  protected:
    const char* write(const std::string& text) {
        path_ = directory_.write("esplaned.toml", text);
        return path_.c_str();
    }
    std::string error_in(const std::string& text) {
        const std::string line = error_of({"--config", write(text)});
        const std::string start = "--config " + path_ + ": ";
        EXPECT_EQ(line.substr(0, start.size()), start);
        return line.substr(std::min(line.size(), start.size()));
    }

  private:
    temporary_directory directory_;
    std::string path_;
};

TEST_F(ConfigFile, UsesTheNamesOfTheCommandLine) {
    const daemon_options o =
        options_of({"--config", write("run-dir = \"/run/b\"\n"
                                      "xfrm = \"off\"\n"
                                      "workers = 1\n"
                                      "cpus = \"0\"\n"
                                      "port = [\"lan=packet:veth1\",\n"
                                      "  \"wan=packet:veth2,role=secure\"]\n")});
    EXPECT_EQ(o.run_dir, "/run/b");
    EXPECT_FALSE(o.serve_xfrm);
    EXPECT_THAT(o.cpus, ElementsAre(0));
    ASSERT_EQ(o.ports.size(), 2u);
    EXPECT_EQ(o.ports[1].device, "veth2");
}

TEST_F(ConfigFile, HasPuntLimitsAndAFilter) {
    const char* file = write("port = [\"lan=packet:veth1\"]\n"
                             "punt-limit = \"icmp=7\"\n"
                             "filter = [\"allow in\", \"deny out dport 25\"]\n");
    const daemon_options o = options_of({"--config", file});
    EXPECT_EQ(o.punts.of(fastpath::punt_class::icmp), 7u);
    ASSERT_EQ(o.filter.size(), 2u);
    EXPECT_EQ(o.filter[1].text, "deny out dport 25");
    EXPECT_EQ(options_of({"--filter", "deny in", "--config", file}).filter.size(), 1u);
}

TEST_F(ConfigFile, HasArgumentsForEalWhereThisBuildHasDpdk) {
    const char* file = write("port = [\"lan=packet:veth1\"]\neal = \"--no-huge -m 64\"\n");
    if (!parse_port("a=dpdk:net_null0")) {
        EXPECT_THAT(error_of({"--config", file}), HasSubstr("-Ddpdk=enabled"));
        return;
    }
    EXPECT_EQ(options_of({"--config", file}).eal, "--no-huge -m 64");
    EXPECT_EQ(options_of({"--config", file, "--eal", "-m 32"}).eal, "-m 32");
}

TEST_F(ConfigFile, YieldsToTheCommandLine) {
    const daemon_options o = options_of(
        {"--run-dir", "/run/c", "--port", "only=packet:veth3", "--config",
         write("run-dir = \"/run/b\"\nxfrm = \"off\"\nport = [\"lan=packet:veth1\"]\n")});
    EXPECT_EQ(o.run_dir, "/run/c");
    EXPECT_FALSE(o.serve_xfrm);
    ASSERT_EQ(o.ports.size(), 1u);
    EXPECT_EQ(o.ports[0].name, "only");
}

TEST(Options, RefuseUnknownAttributesUnlessToldOtherwise) {
    EXPECT_TRUE(options_of({"--port", "a=packet:b"}).strict_xfrm);
    EXPECT_FALSE(options_of({"--port", "a=packet:b", "--xfrm-unknown", "kernel-like"}).strict_xfrm);
    EXPECT_EQ(error_of({"--port", "a=packet:b", "--xfrm-unknown", "lenient"}),
              "--xfrm-unknown lenient: choose strict or kernel-like");
}

TEST(Options, ClampTheMssByThePathOrToANumberOfBytes) {
    EXPECT_EQ(parse_mss_clamp("off"), 0u);
    EXPECT_EQ(parse_mss_clamp("on"), fastpath::mss_by_path);
    EXPECT_EQ(parse_mss_clamp("1400"), 1400u);
    for (const char* text : {"", "575", "65536", "yes", "1400 "})
        EXPECT_FALSE(parse_mss_clamp(text)) << text;
}

TEST(DaemonOptions, SayForHowManySAsMemoryIsPutAside) {
    EXPECT_EQ(options_of({"--port", "a=packet:b"}).reserve, 0u);
    EXPECT_EQ(options_of({"--port", "a=packet:b", "--reserve", "100000"}).reserve, 100'000u);
    EXPECT_EQ(error_of({"--port", "a=packet:b", "--reserve", "16777217"}),
              "--reserve 16777217: choose up to 16777216");
}

TEST(Options, RunSmallPacketsByTheirOwnKernelUnlessToldOtherwise) {
    EXPECT_TRUE(options_of({"--port", "a=packet:b"}).crypto.gcm_kernel);
    EXPECT_FALSE(options_of({"--port", "a=packet:b", "--gcm-kernel", "off"}).crypto.gcm_kernel);
    EXPECT_EQ(error_of({"--port", "a=packet:b", "--gcm-kernel", "no"}),
              "--gcm-kernel no: choose on or off");
}

TEST_F(ConfigFile, EveryFaultHasALineThatNamesTheFile) {
    EXPECT_EQ(error_in("colour = 1\n"),
              "unknown key \"colour\": there are run-dir, xfrm, xfrm-unknown, workers, cpus, poll, "
              "port, eal, punt-limit, mss-clamp, gcm-kernel, filter, reserve, routing, state and "
              "state-key");
    EXPECT_EQ(error_in("workers = \"1\"\n"), "workers: must be a number");
    EXPECT_EQ(error_in("workers = -1\n"), "workers: out of range");
    EXPECT_EQ(error_in("reserve = \"1\"\n"), "reserve: must be a number");
    EXPECT_EQ(error_in("run-dir = 5\n"), "run-dir: must be a text");
    EXPECT_EQ(error_in("cpus = 2\n"), "cpus: must be a text, as in cpus = \"2\"");
    EXPECT_EQ(error_in("gcm-kernel = 1\n"),
              "gcm-kernel: must be a text, as in gcm-kernel = \"off\"");
    for (const char* text : {"port = \"lan=packet:veth1\"\n", "port = [1]\n"})
        EXPECT_THAT(error_in(text), HasSubstr("port: must be an array of texts"));
    EXPECT_THAT(error_in("filter = \"deny\"\n"), HasSubstr("filter: must be an array of texts"));
    EXPECT_THAT(error_in("xfrm = \n"), HasSubstr("line 1: "));
    EXPECT_THAT(error_of({"--config", "/nonexistent.toml"}),
                HasSubstr("--config /nonexistent.toml"));
}

TEST(DaemonOptions, TheSocketsMarkIsWhatRoutingExempts) {
    const char* host = "host=tun:t0,role=host";
    const auto mark_of = [](const daemon_options& o) { return exempt_mark(o.ports, o.routing); };
    EXPECT_EQ(mark_of(options_of({"--port", host, "--port", "net=socket:4500"})), 0xe5u);
    EXPECT_EQ(mark_of(options_of(
                  {"--port", host, "--port", "net=socket:4500", "--routing", "fwmark=!0x77"})),
              0x77u);
    EXPECT_EQ(mark_of(options_of({"--port", host, "--port", "net=packet:eth0,role=secure",
                                  "--routing", "fwmark=!0x77"})),
              0x77u)
        << "no socket port: an IKE daemon's own packets must pass all the same";
    EXPECT_EQ(mark_of(options_of({"--port", "net=packet:eth0"})), 0u);
    EXPECT_EQ(mark_of(options_of({"--port", host, "--port", "net=socket:4500,mark=0x177",
                                  "--routing", "fwmark=!0x77/0xff"})),
              0x177u);
    EXPECT_EQ(error_of({"--port", host, "--port", "net=socket:4500,mark=0x10"}),
              "--port net=socket:4500,mark=0x10: routing exempts what has mark 229: leave mark= "
              "out, or give --routing fwmark=!0x10");
    EXPECT_EQ(error_of({"--port", host, "--port", "net=socket:4500,mark=0x10", "--routing",
                        "install_routes=no"}),
              "");
}

} // namespace
} // namespace esplane::tools
