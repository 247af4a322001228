// SPDX-License-Identifier: Apache-2.0
#include "tools/table.h"

#include <gtest/gtest.h>

namespace esplane::tools {
namespace {

TEST(Table, ColumnsAreAsWideAsTheirWidestCell) {
    table t({{"NAME"}, {"PACKETS", align::right}, {"NOTE"}});
    t.add({"lan", "12345678", "a"});
    t.add({"wan-two", "1", "-"});
    EXPECT_EQ(t.to_string(), "NAME      PACKETS  NOTE\n"
                             "lan      12345678  a\n"
                             "wan-two         1  -\n");
}

TEST(Table, NoLineEndsInASpace) {
    table t({{"A"}, {"LONG HEADING"}});
    t.add({"x", "y"});
    t.add({"x", ""});
    EXPECT_EQ(t.to_string(), "A  LONG HEADING\nx  y\nx\n");
}

TEST(Table, SaysWhetherThereAreRows) {
    table t({{"A"}});
    EXPECT_TRUE(t.empty());
    t.add({"x"});
    EXPECT_FALSE(t.empty());
}

} // namespace
} // namespace esplane::tools
