// SPDX-License-Identifier: Apache-2.0
//
// Several threads of an embedder: whose SA is whose, and control beside them.
#include <atomic>
#include <cerrno>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/lab.h"
#include "tests/unit/api/gateway.h"

namespace esplane::tests {
namespace {

/// Runs `work` in a thread of its own, as a worker of `g`.
template <typename Work>
void in_worker(gateway& g, Work work) {
    std::thread([&] {
        esplane_worker* w = nullptr;
        ASSERT_EQ(esplane_worker_register(g.engine, &w), 0);
        work(w);
        ASSERT_EQ(esplane_worker_unregister(w), 0);
    }).join();
}

TEST(ApiWorkers, APacketOfAnotherWorkersSaComesBackWithItsIndex) {
    gateway near(1), far(2);
    near.add_tunnel();
    far.add_tunnel();
    buffer first(make_packet({.number = 1})), second(make_packet({.number = 2}));
    const bytes inner = second.content();
    near.working([&] {
        ASSERT_EQ(esplane_outbound(near.worker, &first.packet, 1, at(1), 0), 0);
        ASSERT_EQ(first.packet.verdict, ESPLANE_PROTECTED);
        in_worker(near, [&](esplane_worker* other) {
            EXPECT_EQ(esplane_worker_index(other), 1);
            ASSERT_EQ(esplane_outbound(other, &second.packet, 1, at(1), 0), 0);
            EXPECT_EQ(second.packet.verdict, ESPLANE_OTHER_WORKER);
            EXPECT_EQ(second.packet.worker, 0);
            EXPECT_TRUE(second.untouched());
        });
        ASSERT_EQ(esplane_outbound(near.worker, &second.packet, 1, at(1), 0), 0);
        ASSERT_EQ(second.packet.verdict, ESPLANE_PROTECTED);
    });
    EXPECT_EQ(near.counters().handed_over, 1u);
    EXPECT_EQ(near.counters().received, 3u);

    far.working([&] {
        ASSERT_EQ(esplane_inbound(far.worker, &first.packet, 1, at(1)), 0);
        ASSERT_EQ(first.packet.verdict, ESPLANE_DECRYPTED);
        buffer again(second.content());
        in_worker(far, [&](esplane_worker* other) {
            ASSERT_EQ(esplane_inbound(other, &again.packet, 1, at(1)), 0);
            EXPECT_EQ(again.packet.verdict, ESPLANE_OTHER_WORKER);
            EXPECT_EQ(again.packet.worker, 0);
            EXPECT_TRUE(again.untouched());
        });
        ASSERT_EQ(esplane_inbound(far.worker, &again.packet, 1, at(1)), 0);
        EXPECT_EQ(again.packet.verdict, ESPLANE_DECRYPTED);
        EXPECT_EQ(again.content(), inner);
    });
}

TEST(ApiWorkers, WhoTakesTheSeatOfOneThatLeftTakesItsSas) {
    gateway g(1);
    g.add_tunnel();
    for (int i = 0; i < 2; ++i)
        in_worker(g, [&](esplane_worker* w) {
            EXPECT_EQ(esplane_worker_index(w), 0);
            buffer b(make_packet({}));
            ASSERT_EQ(esplane_outbound(w, &b.packet, 1, at(1), 0), 0);
            EXPECT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
        });
}

/// What worker `w` of `g` gets for a packet.
esplane_packet send_by(gateway& g, esplane_worker* w) {
    buffer b(make_packet({}));
    EXPECT_EQ(esplane_outbound(w, &b.packet, 1, at(g.clock), 0), 0);
    EXPECT_EQ(esplane_worker_quiescent(w), 0);
    return b.packet;
}

TEST(ApiWorkers, AnSaMovesWhereControlAsks) {
    gateway g(1);
    g.add_tunnel();
    const esplane_sa_id id = make_sa(1, g.key).id;
    EXPECT_EQ(esplane_sa_move(g.engine, &id, 1), -EINVAL);
    EXPECT_STREQ(esplane_error_field(), "index");
    g.working([&] {
        EXPECT_EQ(send_by(g, g.worker).verdict, ESPLANE_PROTECTED);
        in_worker(g, [&](esplane_worker* other) {
            EXPECT_EQ(send_by(g, other).verdict, ESPLANE_OTHER_WORKER);
        });
        ASSERT_EQ(esplane_sa_move(g.engine, &id, 1), 0);
        EXPECT_EQ(send_by(g, g.worker).verdict, ESPLANE_PROTECTED); // the last one
        const esplane_packet p = send_by(g, g.worker);
        EXPECT_EQ(p.verdict, ESPLANE_OTHER_WORKER);
        EXPECT_EQ(p.worker, 1);
        in_worker(g, [&](esplane_worker* other) {
            EXPECT_EQ(send_by(g, other).verdict, ESPLANE_PROTECTED);
        });
    });
    const esplane_sa_id unknown{ip("10.9.9.9"), 7, 50, {}};
    EXPECT_EQ(esplane_sa_move(g.engine, &unknown, 0), -ESRCH);
}

TEST(ApiWorkers, AnotherTakesOverFromOneThatIsStuckAndRepeatsNoNumber) {
    gateway g(1);
    g.add_tunnel();
    std::set<std::uint32_t> numbers;
    const auto remember = [&](esplane_worker* w) {
        buffer b(make_packet({}));
        ASSERT_EQ(esplane_outbound(w, &b.packet, 1, at(1), 0), 0);
        ASSERT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
        EXPECT_TRUE(numbers.insert(wire::load<wire::be32>(b.packet.data + 24).host()).second);
    };
    EXPECT_EQ(esplane_worker_abandon(g.engine, 0), -EINVAL);
    g.working([&] {
        remember(g.worker);
        EXPECT_EQ(esplane_worker_abandon(g.engine, 0), 1);
        in_worker(g, [&](esplane_worker* other) { remember(other); });
        EXPECT_EQ(send_by(g, g.worker).verdict, ESPLANE_OTHER_WORKER);
    });
    EXPECT_EQ(esplane_worker_abandon(g.engine, 2), -EINVAL);
}

TEST(ApiWorkers, SasOfOneThatLeftAreReleasedByATick) {
    gateway g(1);
    g.add_tunnel();
    g.working([&] {
        in_worker(g, [&](esplane_worker* other) {
            EXPECT_EQ(send_by(g, other).verdict, ESPLANE_PROTECTED);
        });
        EXPECT_EQ(send_by(g, g.worker).verdict, ESPLANE_OTHER_WORKER);
        ASSERT_EQ(esplane_tick(g.engine, at(1)), 0);
        EXPECT_EQ(send_by(g, g.worker).verdict, ESPLANE_PROTECTED);
    });
}

TEST(ApiWorkers, ControlChangesTablesWhileTheyWork) {
    gateway g(1);
    g.add_tunnel();
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> total{0};
    const auto work = [&](unsigned number) {
        esplane_worker* w = nullptr;
        ASSERT_EQ(esplane_worker_register(g.engine, &w), 0);
        while (!stop) {
            std::vector<buffer> buffers;
            std::vector<esplane_packet> packets;
            for (unsigned i = 0; i < 8; ++i)
                buffers.emplace_back(make_packet({.number = number}));
            for (buffer& b : buffers)
                packets.push_back(b.packet);
            ASSERT_EQ(esplane_outbound(w, packets.data(), packets.size(), at(1), 0), 0);
            for (const esplane_packet& p : packets)
                ASSERT_NE(p.verdict, ESPLANE_BYPASS) << "in clear";
            total += packets.size();
            ASSERT_EQ(esplane_worker_quiescent(w), 0);
        }
        ASSERT_EQ(esplane_worker_unregister(w), 0);
    };
    std::thread one(work, 1), other(work, 2);
    const esplane_sa sa = make_sa(1, g.key);
    esplane_template via;
    esplane_policy policy = make_policy(ESPLANE_OUT, 1, via);
    const auto before = total.load();
    for (unsigned i = 0; i < 200 || total - before < 1000; ++i) {
        ASSERT_EQ(esplane_sa_delete(g.engine, &sa.id), 0);
        ASSERT_EQ(esplane_sa_add(g.engine, &sa, at(1)), 0);
        policy.priority = i;
        ASSERT_EQ(esplane_policy_update(g.engine, &policy, at(1)), 0);
        ASSERT_EQ(esplane_set_mtu(g.engine, 1400 + i % 100), 0);
        ASSERT_EQ(esplane_tick(g.engine, at(1)), 0);
    }
    stop = true;
    one.join();
    other.join();
    const esplane_counters c = g.counters();
    EXPECT_EQ(c.received, total);
    EXPECT_EQ(c.received, c.passed + c.for_machine + c.dropped + c.handed_over);
}

} // namespace
} // namespace esplane::tests
