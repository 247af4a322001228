// SPDX-License-Identifier: Apache-2.0
//
// What a user may type behind `esplane interface`.  What comes of it: tests/interop/route_tunnel.
#include "tools/interfaces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/tools/temporary_directory.h"
#include "tools/run_dir.h"
#include "tools/text.h"

namespace esplane::tools {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string refusal_of(const std::string& action, const std::vector<std::string>& words) {
    const auto request = parse_interface_request(action, words);
    return request ? "taken: " + request->dump() : request.error().text;
}

TEST(InterfaceRequest, NamesTheInterfaceAndItsNumbers) {
    EXPECT_EQ(parse_interface_request("add", {"ipsec0", "if_id", "0x2a", "mtu", "1500"}).value(),
              json::parse(R"({"command": "interface_add", "name": "ipsec0", "if_id": 42,
                              "mtu": 1500})"));
    EXPECT_EQ(parse_interface_request("add", {"ipsec0", "mtu", "1500", "if_id", "42"}).value(),
              parse_interface_request("add", {"ipsec0", "if_id", "42", "mtu", "1500"}).value());
    EXPECT_EQ(parse_interface_request("del", {"ipsec0"}).value(),
              json::parse(R"({"command": "interface_del", "name": "ipsec0"})"));
}

TEST(InterfaceRequest, SaysWhatIsWrongInOneLine) {
    EXPECT_THAT(refusal_of("add", {}), HasSubstr("say: esplane interface add NAME if_id N"));
    EXPECT_THAT(refusal_of("add", {"ipsec0", "if_id"}), HasSubstr("say: esplane interface add"));
    EXPECT_THAT(refusal_of("add", {"ipsec0"}), HasSubstr("an interface needs an if_id"));
    EXPECT_THAT(refusal_of("add", {"ipsec0", "mark", "5"}), HasSubstr("\"mark\" is not known"));
    EXPECT_THAT(refusal_of("del", {"ipsec0", "if_id", "5"}), HasSubstr("interface del NAME"));
    for (const char* number : {"", "-1", "ten", "4294967296", "0x", "1 "})
        EXPECT_THAT(refusal_of("add", {"ipsec0", "if_id", number}), HasSubstr("must be a number"))
            << number;
}

TEST(InterfaceList, IsATable) {
    EXPECT_EQ(text_of_reply("interfaces", json::parse(R"({"interfaces": []})")), "no interfaces\n");
    EXPECT_THAT(text_of_reply("interfaces", json::parse(R"({"interfaces": [{"name": "ipsec0",
                    "if_id": 10, "ifindex": 7, "mtu": 1400, "up": true}]})")),
                HasSubstr("ipsec0     10  1400        7  up\n"));
}

TEST(InterfaceRecord, KeepsTheIfId) {
    const temporary_directory directory;
    const std::vector<guarded_device> devices = {{"lan", "xdp", "veth1", 5, 1},
                                                 {"ipsec0", "tun", "ipsec0", 7, 1, 4294967295}};
    ASSERT_TRUE(write_guarded(directory.path(), devices));
    EXPECT_EQ(read_guarded(directory.path()).value(), devices);
}

} // namespace
} // namespace esplane::tools
