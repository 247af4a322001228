// SPDX-License-Identifier: Apache-2.0
//
// Policies that change while a worker searches: it finds one for a flow that one always covers.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "fastpath/backend.h"
#include "fastpath/quiescence.h"

namespace esplane::fastpath {
namespace {

using namespace std::chrono_literals;

ipsec::selector covering(const char* source, const char* destination, std::uint8_t prefix) {
    ipsec::selector s;
    s.fam = ipsec::family::ipv4;
    s.source = *ipsec::address::parse(source);
    s.destination = *ipsec::address::parse(destination);
    s.source_prefix = s.destination_prefix = prefix;
    return s;
}

/// Policies of more shapes than have a tuple of their own, so that two of different selectors are
/// one chain: `beside`, which does not cover the flow, and `mine`, which does.
class PolicyChange : public testing::Test {
  protected:
    PolicyChange() {
        for (std::uint8_t shape = 0; shape < 4; ++shape)
            add(covering("1.0.0.0", "2.0.0.0", static_cast<std::uint8_t>(8 + shape)), 1);
        add(covering("10.1.0.0", "20.1.0.0", 18), 5);
        mine_ = add(covering("10.1.128.0", "20.1.0.0", 18), 10);
    }

    ipsec::policy add(const ipsec::selector& s, std::uint32_t priority) {
        ipsec::policy p;
        p.dir = ipsec::policy_direction::out;
        p.action = ipsec::policy_action::block;
        p.sel = s;
        p.priority = priority;
        p.index = ++last_index_;
        p.position = ++last_position_;
        EXPECT_TRUE(backend_.add_policy(p));
        return p;
    }
    void update(std::uint32_t priority) {
        mine_.priority = priority;
        mine_.position = ++last_position_;
        ASSERT_TRUE(backend_.update_policy(mine_));
    }
    [[nodiscard]] const policy_entry* find() const {
        const ipsec::selector flow = covering("10.1.129.1", "20.1.1.1", 32);
        return shared_.policies(ipsec::policy_direction::out).v4.find(key_of<v4_words>(flow).first);
    }
    [[nodiscard]] std::uint32_t found_priority() const {
        const policy_entry* const found = find();
        return found == nullptr ? 0 : static_cast<std::uint32_t>(found->rank >> 32);
    }
    /// Searches in a thread while `change` is called again and again; returns how often it found a
    /// policy of the priority `never`; 0: none.
    std::uint64_t misses_while(const std::function<void()>& change, std::uint32_t never = 0) {
        std::atomic<bool> stop{false};
        std::uint64_t misses = 0;
        std::thread worker([&] {
            reader self;
            while (!stop.load(std::memory_order_relaxed)) {
                for (int n = 0; n < 16; ++n)
                    misses += found_priority() == never ? 1 : 0;
                self.quiescent();
            }
        });
        const auto end = std::chrono::steady_clock::now() + 1s;
        while (std::chrono::steady_clock::now() < end)
            change();
        stop = true;
        worker.join();
        return misses;
    }

    tables shared_;
    user_backend backend_{shared_, [](std::span<std::uint8_t>) {}};
    ipsec::policy mine_;
    std::uint32_t last_index_ = 0;
    std::uint64_t last_position_ = 0;
};

TEST_F(PolicyChange, AnUpdateThatImprovesAPolicyHidesItFromNobody) {
    EXPECT_EQ(misses_while([&] {
                  update(1);
                  update(10);
              }),
              0u);
}

TEST_F(PolicyChange, ABatchOfUpdatesHidesAPolicyFromNobody) {
    EXPECT_EQ(misses_while([&] {
                  backend_.begin_batch();
                  for (const std::uint32_t priority : {10u, 7u, 1u, 3u})
                      update(priority);
                  backend_.end_batch();
              }),
              0u);
}

TEST_F(PolicyChange, APolicyThatIsAddedRelievesTheOneThatIsDeleted) {
    EXPECT_EQ(misses_while([&] {
                  const ipsec::policy before = mine_;
                  mine_ = add(before.sel, before.priority == 10 ? 1 : 10);
                  backend_.delete_policy(before.index);
              }),
              0u);
}

/// A search that began before the update must not come to what that relieves once the other, which
/// hid it, is gone.
TEST_F(PolicyChange, APolicyThatIsUpdatedRelievesAnotherThatIsDeletedInTheBatch) {
    for (unsigned beside = 0; beside < 200; ++beside) // a long way through the chain
        add(covering("10.1.0.0", "20.1.0.0", 18), 3);
    const ipsec::selector wider = covering("10.1.128.0", "20.1.0.0", 17);
    ipsec::policy other = add(wider, 5);
    EXPECT_EQ(misses_while(
                  [&] {
                      backend_.begin_batch();
                      update(1);
                      backend_.delete_policy(other.index);
                      backend_.end_batch();
                      const ipsec::policy last = add(wider, 20);
                      other = add(wider, 5);
                      backend_.delete_policy(last.index); // once all searches know `other`
                      update(10);
                  },
                  10),
              0u);
}

/// A search that began before the other was there must not come to what is worse now.
TEST_F(PolicyChange, APolicyThatIsAddedRelievesOneThatIsMadeWorse) {
    for (unsigned beside = 0; beside < 200; ++beside)
        add(covering("10.1.0.0", "20.1.0.0", 18), 3);
    const ipsec::selector wider = covering("10.1.128.0", "20.1.0.0", 17);
    update(1);
    EXPECT_EQ(misses_while(
                  [&] {
                      const ipsec::policy other = add(wider, 5);
                      update(20);
                      update(1);
                      backend_.delete_policy(other.index);
                  },
                  20),
              0u);
}

TEST_F(PolicyChange, WhileAWorkerIsStuckTheLatestVersionIsInForce) {
    reader stuck;
    update(1);
    EXPECT_EQ(found_priority(), 1u);
    update(20); // worse than the one that waits to go
    EXPECT_EQ(found_priority(), 20u);
    update(2);
    update(3);
    EXPECT_EQ(found_priority(), 3u);
    backend_.delete_policy(mine_.index);
    EXPECT_EQ(find(), nullptr) << "none that waited comes into force again";
    stuck.quiescent();
    EXPECT_TRUE(shared_.graveyard().reclaim());
    EXPECT_EQ(find(), nullptr);
}

TEST_F(PolicyChange, AmongEqualPrioritiesTheEarlierWinsAfterManyChanges) {
    last_position_ = 0xfffffffd;
    for (int n = 0; n < 6; ++n) {
        const ipsec::policy before = mine_;
        mine_ = add(before.sel, 10);
        EXPECT_EQ(find()->index, before.index);
        backend_.delete_policy(before.index);
    }
}

} // namespace
} // namespace esplane::fastpath
