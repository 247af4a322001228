// SPDX-License-Identifier: Apache-2.0
//
// The built `esplane`, as a user calls it.  Its path is in ESPLANE_BINARY.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pcap/pcap.h>
#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"
#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct outcome {
    int status = -1;
    std::string output; ///< what was said, on either channel
};

/// Runs `esplane ARGUMENTS`, which a shell takes apart.
outcome esplane(const std::string& arguments) {
    const char* binary = std::getenv("ESPLANE_BINARY");
    const std::string command =
        std::string(binary != nullptr ? binary : "esplane") + " " + arguments;
    std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    outcome o;
    std::array<char, 4096> chunk;
    while (const std::size_t n = std::fread(chunk.data(), 1, chunk.size(), pipe))
        o.output.append(chunk.data(), n);
    const int status = ::pclose(pipe);
    o.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return o;
}

using frame = std::vector<std::uint8_t>;
struct record {
    frame bytes;
    long seconds = 0;

    friend bool operator==(const record&, const record&) = default;
};

void write_capture(const std::string& path, int link_type, const std::vector<record>& records) {
    pcap_t* shape = pcap_open_dead(link_type, 65535);
    pcap_dumper_t* out = pcap_dump_open(shape, path.c_str());
    for (const record& r : records) {
        pcap_pkthdr header{};
        header.ts.tv_sec = r.seconds;
        header.caplen = header.len = static_cast<bpf_u_int32>(r.bytes.size());
        pcap_dump(reinterpret_cast<u_char*>(out), &header, r.bytes.data());
    }
    pcap_dump_close(out);
    pcap_close(shape);
}

std::vector<record> read_capture(const std::string& path, int link_type) {
    char text[PCAP_ERRBUF_SIZE];
    pcap_t* in = pcap_open_offline(path.c_str(), text);
    if (in == nullptr) return {};
    EXPECT_EQ(pcap_datalink(in), link_type);
    std::vector<record> records;
    pcap_pkthdr* header = nullptr;
    const u_char* bytes = nullptr;
    while (pcap_next_ex(in, &header, &bytes) == 1)
        records.push_back({frame(bytes, bytes + header->caplen), header->ts.tv_sec});
    pcap_close(in);
    return records;
}

/// An IPv4 packet of protocol 253 from 10.1.0.`from` to 10.2.0.9.
frame ip_packet(std::uint8_t from, std::uint8_t ttl, std::size_t payload) {
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.total_length.set(static_cast<std::uint16_t>(sizeof ip + payload));
    ip.id.set(from);
    ip.ttl = ttl;
    ip.protocol = 253;
    ip.source.set(0x0a010000u + from);
    ip.destination.set(0x0a020009u);
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    frame f(sizeof ip + payload, from);
    wire::store(f.data(), ip);
    return f;
}

frame in_ethernet(const frame& ip) {
    const wire::ethernet_header ethernet{
        {2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 1}, wire::be16(wire::ethertype_ipv4)};
    frame f(sizeof ethernet + ip.size());
    wire::store(f.data(), ethernet);
    std::copy(ip.begin(), ip.end(), f.begin() + sizeof ethernet);
    return f;
}

/// ip xfrm lines of one tunnel, seen from the gateway that sends or receives.
std::string setup(const std::string& policies) {
    return "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001 reqid 7 "
           "mode tunnel replay-window 32 aead \"rfc4106(gcm(aes))\" "
           "0x0102030405060708090a0b0c0d0e0f1011121314 128 && for dir in " +
           policies +
           "; do ip xfrm policy add src 10.1.0.0/24 dst 10.2.0.0/24 dir $dir "
           "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp reqid 7 mode tunnel || exit 1; done";
}

class Pcap : public ::testing::Test {
  protected:
    void SetUp() override {
        if (std::system("command -v ip >/dev/null") != 0) GTEST_SKIP() << "needs iproute2's ip";
    }
    [[nodiscard]] std::string file(const std::string& name) const {
        return directory_.path() + "/" + name;
    }
    [[nodiscard]] outcome run(const std::string& direction, const std::string& policies,
                              const std::string& in, const std::string& out) const {
        return esplane("pcap --json --setup '" + setup(policies) + "' --direction " + direction +
                       " --in " + file(in) + " --out " + file(out));
    }

    temporary_directory directory_;
};

TEST_F(Pcap, WhatWasProtectedComesBackAsItWas) {
    for (const int link_type : {DLT_EN10MB, DLT_RAW}) {
        const bool ethernet = link_type == DLT_EN10MB;
        std::vector<record> sent, expected;
        for (std::uint8_t i = 1; i <= 200; ++i) {
            const frame before = ip_packet(i, 64, i * 7u), after = ip_packet(i, 62, i * 7u);
            sent.push_back({ethernet ? in_ethernet(before) : before, 1000 + i});
            expected.push_back({ethernet ? in_ethernet(after) : after, 1000 + i});
        }
        write_capture(file("clear"), link_type, sent);
        const outcome out = run("outbound", "out", "clear", "esp");
        ASSERT_EQ(out.status, 0) << out.output;
        EXPECT_EQ(json::parse(out.output)["packets"]["encrypted"], 200);
        const auto esp = read_capture(file("esp"), link_type);
        ASSERT_EQ(esp.size(), 200u);
        EXPECT_EQ(esp[0].bytes[ethernet ? 23 : 9], wire::proto_esp);

        const outcome in = run("inbound", "in fwd", "esp", "back");
        ASSERT_EQ(in.status, 0) << in.output;
        EXPECT_EQ(json::parse(in.output)["packets"]["decrypted"], 200);
        EXPECT_EQ(read_capture(file("back"), link_type), expected);
    }
}

TEST_F(Pcap, AForgedPacketIsCountedAndDoesNotComeOut) {
    write_capture(file("clear"), DLT_RAW, {{ip_packet(1, 64, 100), 1}, {ip_packet(2, 64, 100), 2}});
    ASSERT_EQ(run("outbound", "out", "clear", "esp").status, 0);
    auto esp = read_capture(file("esp"), DLT_RAW);
    esp[0].bytes.back() ^= 1;
    write_capture(file("esp"), DLT_RAW, esp);
    const outcome in = run("inbound", "in fwd", "esp", "back");
    ASSERT_EQ(in.status, 0) << in.output;
    const json report = json::parse(in.output);
    for (const json& d : report["drops"])
        EXPECT_EQ(d["packets"], d["reason"] == "icv_mismatch" ? 1 : 0) << d;
    EXPECT_EQ(read_capture(file("back"), DLT_RAW).size(), 1u);
}

TEST_F(Pcap, PeopleAreToldWhatWasNotProtectedAndWhy) {
    frame arp = in_ethernet(frame(28));
    arp[13] = 6;
    frame elsewhere = ip_packet(1, 64, 8);
    elsewhere[17] = 3; // 10.3.0.9, and the checksum no longer holds
    write_capture(file("clear"), DLT_EN10MB,
                  {{in_ethernet(ip_packet(1, 64, 8)), 1}, {in_ethernet(elsewhere), 2}, {arp, 3}});
    const outcome o = esplane("pcap --setup '" + setup("out") + "' --direction outbound --in " +
                              file("clear") + " --out " + file("esp"));
    EXPECT_EQ(o.status, 0);
    EXPECT_THAT(o.output, HasSubstr("packets: received 2, sent 1, dropped 1, encrypted 1\n"));
    EXPECT_THAT(o.output, HasSubstr("frames not read: not_ip 1\n"));
    EXPECT_THAT(o.output, HasSubstr("ip_checksum        1  wrong IPv4 header checksum\n"));
}

TEST_F(Pcap, ASetupThatFailsStopsIt) {
    write_capture(file("clear"), DLT_RAW, {{ip_packet(1, 64, 8), 1}});
    const outcome o = esplane("pcap --setup 'exit 3' --direction outbound --in " + file("clear") +
                              " --out " + file("esp"));
    EXPECT_EQ(o.status, 1);
    EXPECT_EQ(o.output, "esplane: --setup COMMAND failed with exit status 3: nothing was sent "
                        "through\n");
}

TEST_F(Pcap, EveryFaultWithAFileHasALine) {
    const auto with = [&](const std::string& in, const std::string& out) {
        const outcome o = esplane("pcap --setup true --direction inbound --in " + file(in) +
                                  " --out " + file(out));
        EXPECT_EQ(o.status, 1);
        EXPECT_EQ(std::count(o.output.begin(), o.output.end(), '\n'), 1) << o.output;
        return o.output;
    };
    write_capture(file("clear"), DLT_RAW, {{ip_packet(1, 64, 8), 1}});
    write_capture(file("wifi"), DLT_IEEE802_11, {});
    directory_.write("text", "no capture, but long enough to look like one");
    EXPECT_THAT(with("none", "out"), HasSubstr("No such file"));
    EXPECT_THAT(with("text", "out"), HasSubstr("unknown file format"));
    EXPECT_THAT(with("wifi", "out"), HasSubstr("only Ethernet and raw IP"));
    EXPECT_THAT(with("clear", "clear"), HasSubstr("is the input"));
    EXPECT_THAT(with("clear", "none/out"), HasSubstr("No such file"));
}

TEST(Command, EveryMistakeHasALineAndAStatus) {
    const std::pair<const char*, const char*> mistakes[] = {
        {"", "no command given"},
        {"frobnicate", "frobnicate"},
        {"status --colour", "--colour"},
        {"status sa", "sa"},
        {"pcap --setup true --direction sideways --in a --out b", "sideways"},
        {"pcap --setup true --direction inbound --in a", "--out is required"},
        {"--run-dir", "--run-dir"},
        {"run --colour ip", "--colour"},
    };
    for (const auto& [arguments, word] : mistakes) {
        const outcome o = esplane(arguments);
        EXPECT_EQ(o.status, 2) << arguments;
        EXPECT_THAT(o.output, StartsWith("esplane: "));
        EXPECT_THAT(o.output, HasSubstr(word));
        EXPECT_EQ(std::count(o.output.begin(), o.output.end(), '\n'), 1) << o.output;
    }
}

TEST(Command, WithoutADaemonSaysHowToStartOne) {
    const temporary_directory directory;
    for (const char* command :
         {"status", "sa", "policy", "ports", "drops", "run -- ip xfrm state"}) {
        const outcome o = esplane("--run-dir " + directory.path() + " " + command);
        EXPECT_EQ(o.status, 1);
        EXPECT_EQ(o.output, "esplane: no esplaned at " + directory.path() +
                                "/control.sock: start it with `esplaned --run-dir " +
                                directory.path() + " …`\n");
    }
}

TEST(Command, VersionAndHelpSucceed) {
    EXPECT_EQ(esplane("--version").output, "esplane " ESPLANE_VERSION "\n");
    EXPECT_THAT(esplane("--help").output, HasSubstr("release"));
    EXPECT_THAT(esplane("pcap --help").output, HasSubstr("--direction outbound|inbound"));
    EXPECT_EQ(esplane("run --help").status, 0);
}

} // namespace
} // namespace esplane::tools
