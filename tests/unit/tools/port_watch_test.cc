// SPDX-License-Identifier: Apache-2.0
#include "tools/port_watch.h"

#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/tools/temporary_directory.h"

namespace esplane::tools::port_watch_test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t second = 1'000'000'000;

/// Is as up as the test says, and counts how often it is tended to.
class frail_port final : public fastpath::port {
  public:
    explicit frail_port(bool apart)
        : apart_(apart) {}

    [[nodiscard]] bool up() const noexcept override { return why.empty(); }
    [[nodiscard]] std::string why_down() const override { return why; }
    [[nodiscard]] bool twin_apart() const noexcept override { return apart_; }
    [[nodiscard]] result<bool> tend() override {
        ++tended;
        if (!trouble.empty()) return fail(EBUSY, trouble);
        return false;
    }

    std::size_t receive(unsigned, std::span<fastpath::packet>) noexcept override { return 0; }
    std::size_t send(unsigned, std::span<fastpath::packet* const>) noexcept override { return 0; }
    std::size_t punt(unsigned, std::span<fastpath::packet* const>) noexcept override { return 0; }
    void flush(unsigned) noexcept override {}
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] fastpath::port_counters counters() const noexcept override { return {}; }
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "frail"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] fastpath::port_role role() const noexcept override {
        return fastpath::port_role::plain;
    }

    std::string why, trouble;
    int tended = 0;

  private:
    std::string name_ = "wan";
    bool apart_;
};

class PortWatch : public ::testing::Test {
  protected:
    /// It has been looked at once, at the first second.
    void watch(bool apart = false, const std::string& why = {}) {
        port = std::make_unique<frail_port>(apart);
        port->why = why;
        watched = std::make_unique<port_watch>(
            std::vector<fastpath::port*>{port.get()}, [this] { return devices; }, directory.path(),
            [this](const std::string& line) { said.push_back(line); });
        (void)watched->tend(second, false);
        port->tended = 0;
    }
    std::vector<std::string> told() { return std::exchange(said, {}); }

    temporary_directory directory;
    std::unique_ptr<frail_port> port;
    std::vector<guarded_device> devices;
    std::unique_ptr<port_watch> watched;

  private:
    std::vector<std::string> said;
};

TEST_F(PortWatch, LooksOnceASecondAndWhenLinksChange) {
    watch();
    for (std::uint64_t ms = 1; ms < 1000; ++ms)
        (void)watched->tend(second + ms * 1'000'000, false);
    EXPECT_EQ(port->tended, 0);
    (void)watched->tend(second + 1'000'000, true);
    EXPECT_EQ(port->tended, 1);
    (void)watched->tend(2 * second, false);
    EXPECT_EQ(port->tended, 2);
}

TEST_F(PortWatch, LooksForALostDeviceThatIsNoLinkOnceASecondWhateverLinksDo) {
    watch(true);
    port->why = "its device is gone";
    for (std::uint64_t ms = 0; ms < 3000; ++ms)
        (void)watched->tend(2 * second + ms * 1'000'000, true);
    EXPECT_EQ(port->tended, 3);
}

TEST_F(PortWatch, SaysWhyAPortIsDownAndThatItIsUpAgain) {
    watch();
    port->why = "its device has no link";
    EXPECT_TRUE(watched->tend(second, true));
    EXPECT_THAT(told(), ElementsAre("port wan (wan): is down: its device has no link"));
    EXPECT_EQ(watched->why_down(*port), "its device has no link");
    port->why = "";
    EXPECT_TRUE(watched->tend(second, true));
    EXPECT_THAT(told(), ElementsAre("port wan (wan): is up again"));
    EXPECT_EQ(watched->why_down(*port), "");
}

TEST_F(PortWatch, NamesTheWorkerThatAReturnedPortWaitsFor) {
    watch();
    port->why = "its device is gone";
    (void)watched->tend(second, true);
    (void)told();
    port->why = "worker 1 has not let go of it";
    (void)watched->tend(second, true);
    EXPECT_THAT(told(), IsEmpty()) << "it may let go in a moment";
    (void)watched->tend(2 * second, false);
    EXPECT_THAT(told(), ElementsAre("port wan (wan): is down: worker 1 has not let go of it"));
    (void)watched->tend(3 * second, false);
    EXPECT_THAT(told(), IsEmpty());
}

TEST_F(PortWatch, SaysWhatKeepsADeviceFromBeingTakenUpOnce) {
    watch();
    port->why = "its device cannot be taken up";
    port->trouble = "another program is on it";
    (void)watched->tend(2 * second, false);
    (void)watched->tend(3 * second, false);
    EXPECT_THAT(told(), ElementsAre("port wan (wan): is down: another program is on it"));
    EXPECT_EQ(watched->why_down(*port), "another program is on it");
}

TEST_F(PortWatch, HasNothingToSayOfAPortThatIsUp) {
    watch();
    port->trouble = "another program is on it";
    (void)watched->tend(2 * second, false);
    EXPECT_EQ(watched->why_down(*port), "");
    EXPECT_THAT(told(), IsEmpty());
}

TEST_F(PortWatch, NamesAPortThatIsDownFromTheStart) {
    watch(false, "its device has no link");
    EXPECT_THAT(told(), ElementsAre("port wan (wan): is down: its device has no link"));
}

TEST_F(PortWatch, RecordsADeviceUnderItsNewNumber) {
    watch();
    // Of another namespace: nothing asks whether it is there.
    devices = {{"wan", "xdp", "wan", 7, 1, 0}};
    EXPECT_TRUE(watched->tend(second, true));
    EXPECT_EQ(read_guarded(directory.path()).value(), devices);
    EXPECT_FALSE(watched->tend(second, true));
}

} // namespace
} // namespace esplane::tools::port_watch_test
