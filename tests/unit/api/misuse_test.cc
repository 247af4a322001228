// SPDX-License-Identifier: Apache-2.0
//
// What an embedder can do wrong and the library can see: an error value or a counted drop.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <future>
#include <thread>

#include <gtest/gtest.h>

#include "tests/support/lab.h"
#include "tests/unit/api/gateway.h"

namespace esplane::tests {
namespace {

esplane_engine_options default_options() {
    esplane_engine_options o;
    esplane_engine_options_init(&o);
    return o;
}

int create(const esplane_engine_options& o) {
    esplane_engine* e = nullptr;
    const int returned = esplane_engine_create(&o, &e);
    EXPECT_EQ(returned == 0, e != nullptr);
    if (e != nullptr) {
        EXPECT_EQ(esplane_engine_destroy(e), 0);
    }
    return returned;
}

/// Every function that takes an engine, with arguments that are right otherwise.
std::vector<int> all_with(esplane_engine* e) {
    const bytes key = gcm_key();
    const esplane_sa sa = make_sa(1, key);
    esplane_template via;
    const esplane_policy policy = make_policy(ESPLANE_OUT, 1, via);
    esplane_policy_key name;
    esplane_policy_key_init(&name);
    name.selector = policy.selector;
    name.direction = policy.direction;
    esplane_spi_request request;
    esplane_spi_request_init(&request);
    esplane_sa sa_out;
    esplane_sa_init(&sa_out);
    esplane_policy policy_out;
    esplane_policy_init(&policy_out);
    esplane_counters counters;
    esplane_counters_init(&counters);
    esplane_worker* worker = nullptr;
    std::uint64_t number = UINT64_MAX;
    std::uint32_t spi = 0;
    const esplane_address own = ip("10.0.0.1");
    return {esplane_engine_destroy(e),
            esplane_tick(e, at(1)),
            esplane_next_deadline(e, &number),
            esplane_set_mtu(e, 1500),
            esplane_set_addresses(e, &own, 1),
            esplane_set_filter(e, nullptr, nullptr),
            esplane_sa_add(e, &sa, at(1)),
            esplane_sa_update(e, &sa, at(1)),
            esplane_sa_delete(e, &sa.id),
            esplane_sa_move(e, &sa.id, 0),
            esplane_sa_flush(e),
            esplane_sa_get(e, &sa.id, &sa_out),
            esplane_sa_next(e, &number, &sa_out),
            esplane_spi_allocate(e, &request, at(1), &spi),
            esplane_policy_add(e, &policy, at(1)),
            esplane_policy_update(e, &policy, at(1)),
            esplane_policy_delete(e, &name),
            esplane_policy_flush(e),
            esplane_policy_get(e, &name, &policy_out),
            esplane_policy_next(e, &number, &policy_out),
            esplane_worker_register(e, &worker),
            esplane_worker_abandon(e, 0),
            esplane_counters_get(e, &counters),
            esplane_drops(e, 1, &number)};
}

/// Every function that takes a worker.
std::vector<int> all_with(esplane_worker* w) {
    esplane_packet p{};
    return {esplane_inbound(w, &p, 1, at(1)), esplane_outbound(w, &p, 1, at(1), 0),
            esplane_worker_quiescent(w),      esplane_worker_offline(w),
            esplane_worker_online(w),         esplane_worker_index(w),
            esplane_worker_unregister(w)};
}

void expect_all(const std::vector<int>& returned, int code) {
    for (std::size_t i = 0; i < returned.size(); ++i)
        EXPECT_EQ(returned[i], code) << "function " << i;
}

TEST(Misuse, AnEngineOfAnotherAbiIsRefused) {
    esplane_engine_options o = default_options();
    o.abi_version = ESPLANE_ABI_VERSION + 1;
    EXPECT_EQ(create(o), -EPROTONOSUPPORT);
    EXPECT_STREQ(esplane_error_field(), "abi_version");
    EXPECT_NE(std::string(esplane_error_text()).find("build again"), std::string::npos);
}

TEST(Misuse, OptionsOutsideTheirRangesAreRefused) {
    const auto refused = [](void (*change)(esplane_engine_options&), const char* field) {
        esplane_engine_options o = default_options();
        change(o);
        EXPECT_EQ(create(o), -EINVAL) << field;
        EXPECT_STREQ(esplane_error_field(), field);
    };
    refused([](auto& o) { o.size = offsetof(esplane_engine_options, library_gcm) - 1; }, "size");
    refused([](auto& o) { o.size = 0; }, "size");
    refused([](auto& o) { o.size = SIZE_MAX; }, "size");
    refused([](auto& o) { o.packet_size = sizeof(esplane_packet) - 8; }, "packet_size");
    refused([](auto& o) { o.packet_size = sizeof(esplane_packet) + 1; }, "packet_size");
    refused([](auto& o) { o.mtu = 67; }, "mtu");
    refused([](auto& o) { o.mtu = 65536; }, "mtu");
    refused([](auto& o) { o.max_workers = 0; }, "max_workers");
    refused([](auto& o) { o.max_workers = 65; }, "max_workers");
    refused([](auto& o) { o.library_gcm = 2; }, "library_gcm");
    refused([](auto& o) { o.reserved[0] = 1; }, "reserved");
    refused([](auto& o) { o.reserved[6] = 1; }, "reserved");
    EXPECT_EQ(create(default_options()), 0);
}

TEST(Misuse, OptionsOfTheFirstVersionAreTaken) {
    esplane_engine_options o = default_options();
    o.size = offsetof(esplane_engine_options, library_gcm);
    std::memset(&o.library_gcm, 0xff, sizeof o - o.size); // not theirs
    EXPECT_EQ(create(o), 0);
}

TEST(Misuse, AStructOfALaterVersionIsTakenUnlessItSaysSomethingNew) {
    struct {
        esplane_engine_options known = default_options();
        std::uint64_t later = 0;
    } o;
    o.known.size = sizeof o;
    EXPECT_EQ(create(o.known), 0);
    o.later = 1;
    EXPECT_EQ(create(o.known), -E2BIG);
}

TEST(Misuse, AnAnswerGoesNoFurtherThanItsStruct) {
    const gateway g(1);
    struct {
        esplane_counters known;
        std::uint64_t later = ~std::uint64_t{0};
        std::uint64_t beyond = ~std::uint64_t{0};
    } c;
    esplane_counters_init(&c.known);
    c.known.size = sizeof c - sizeof c.beyond;
    EXPECT_EQ(esplane_counters_get(g.engine, &c.known), 0);
    EXPECT_EQ(c.later, 0u);
    EXPECT_EQ(c.beyond, ~std::uint64_t{0});
    EXPECT_EQ(c.known.size, sizeof c - sizeof c.beyond);
    for (const std::size_t never_set : {sizeof c.known - 1, std::size_t{1} << 47}) {
        c.known.size = never_set;
        EXPECT_EQ(esplane_counters_get(g.engine, &c.known), -EINVAL);
    }
}

TEST(Misuse, HandlesThatNameNothingAreErrors) {
    long local = 0;
    expect_all(all_with(static_cast<esplane_engine*>(nullptr)), -EBADF);
    expect_all(all_with(reinterpret_cast<esplane_engine*>(&local)), -EBADF);
    expect_all(all_with(reinterpret_cast<esplane_engine*>(std::uintptr_t{0xdeadbeef})), -EBADF);
    expect_all(all_with(static_cast<esplane_worker*>(nullptr)), -EBADF);
    expect_all(all_with(reinterpret_cast<esplane_worker*>(&local)), -EBADF);
    const gateway g(1);
    expect_all(all_with(reinterpret_cast<esplane_worker*>(g.engine)), -EBADF);
    const auto inside = reinterpret_cast<std::uintptr_t>(g.engine) + 1;
    expect_all(all_with(reinterpret_cast<esplane_engine*>(inside)), -EBADF);
}

TEST(Misuse, HandlesOfWhatIsGoneAreErrors) {
    esplane_engine* engine = nullptr;
    esplane_worker* worker = nullptr;
    const esplane_engine_options o = default_options();
    ASSERT_EQ(esplane_engine_create(&o, &engine), 0);
    ASSERT_EQ(esplane_worker_register(engine, &worker), 0);
    ASSERT_EQ(esplane_worker_unregister(worker), 0);
    expect_all(all_with(worker), -EBADF);
    ASSERT_EQ(esplane_engine_destroy(engine), 0);
    expect_all(all_with(engine), -EBADF);
    expect_all(all_with(worker), -EBADF);
}

TEST(Misuse, ArgumentsThatAreMissingAreErrors) {
    const gateway g(1);
    esplane_engine* e = g.engine;
    EXPECT_EQ(esplane_engine_create(nullptr, &e), -EINVAL);
    e = g.engine;
    const esplane_engine_options o = default_options();
    EXPECT_EQ(esplane_engine_create(&o, nullptr), -EINVAL);
    EXPECT_EQ(esplane_next_deadline(e, nullptr), -EINVAL);
    EXPECT_EQ(esplane_set_addresses(e, nullptr, 1), -EINVAL);
    EXPECT_EQ(esplane_set_addresses(e, nullptr, 0), 0);
    EXPECT_EQ(esplane_sa_add(e, nullptr, at(1)), -EINVAL);
    EXPECT_EQ(esplane_sa_update(e, nullptr, at(1)), -EINVAL);
    EXPECT_EQ(esplane_sa_delete(e, nullptr), -EINVAL);
    EXPECT_EQ(esplane_sa_move(e, nullptr, 0), -EINVAL);
    EXPECT_EQ(esplane_sa_get(e, nullptr, nullptr), -EINVAL);
    EXPECT_EQ(esplane_sa_next(e, nullptr, nullptr), -EINVAL);
    EXPECT_EQ(esplane_spi_allocate(e, nullptr, at(1), nullptr), -EINVAL);
    EXPECT_EQ(esplane_policy_add(e, nullptr, at(1)), -EINVAL);
    EXPECT_EQ(esplane_policy_update(e, nullptr, at(1)), -EINVAL);
    EXPECT_EQ(esplane_policy_delete(e, nullptr), -EINVAL);
    EXPECT_EQ(esplane_policy_get(e, nullptr, nullptr), -EINVAL);
    EXPECT_EQ(esplane_policy_next(e, nullptr, nullptr), -EINVAL);
    EXPECT_EQ(esplane_worker_register(e, nullptr), -EINVAL);
    EXPECT_EQ(esplane_counters_get(e, nullptr), -EINVAL);
    EXPECT_EQ(esplane_drops(e, 1, nullptr), -EINVAL);
    std::uint64_t n = 0;
    EXPECT_EQ(esplane_drops(e, 0, &n), -EINVAL);
    EXPECT_EQ(esplane_drops(e, esplane_reason_count(), &n), -EINVAL);
    EXPECT_STREQ(esplane_reason_name(0), "");
    EXPECT_STREQ(esplane_reason_text(65535), "");
}

TEST(Misuse, ABurstOfNothingIsFineAndOneWithoutPacketsIsNot) {
    gateway g(1);
    g.working([&] {
        EXPECT_EQ(esplane_inbound(g.worker, nullptr, 0, at(1)), 0);
        EXPECT_EQ(esplane_inbound(g.worker, nullptr, 1, at(1)), -EINVAL);
        EXPECT_EQ(esplane_outbound(g.worker, nullptr, 1, at(1), 0), -EINVAL);
        EXPECT_EQ(esplane_outbound(g.worker, nullptr, 0, at(1), 2), -EINVAL);
    });
}

TEST(Misuse, AnotherThreadsWorkerIsNotToBeUsed) {
    gateway g(1);
    g.add_tunnel();
    buffer b(make_packet({}));
    g.working([&] {
        std::thread([&] {
            EXPECT_EQ(esplane_outbound(g.worker, &b.packet, 1, at(1), 0), -EPERM);
            EXPECT_EQ(esplane_inbound(g.worker, &b.packet, 1, at(1)), -EPERM);
            EXPECT_EQ(esplane_worker_quiescent(g.worker), -EPERM);
            EXPECT_EQ(esplane_worker_offline(g.worker), -EPERM);
            EXPECT_EQ(esplane_worker_online(g.worker), -EPERM);
            EXPECT_EQ(esplane_worker_unregister(g.worker), -EPERM);
        }).join();
    });
    EXPECT_TRUE(b.untouched());
    EXPECT_EQ(b.packet.verdict, 0);
}

TEST(Misuse, AThreadIsOneWorkerAtATime) {
    gateway g(1);
    g.working([&] {
        esplane_worker* second = g.worker;
        EXPECT_EQ(esplane_worker_register(g.engine, &second), -EALREADY);
        EXPECT_EQ(second, nullptr);
    });
}

TEST(Misuse, AnEngineWithWorkersStays) {
    gateway g(1);
    g.working([&] { EXPECT_EQ(esplane_engine_destroy(g.engine), -EBUSY); });
}

TEST(Misuse, ABurstOfAWorkerThatIsOfflineIsRefused) {
    gateway g(1);
    buffer b(make_packet({}));
    g.working([&] {
        ASSERT_EQ(esplane_worker_offline(g.worker), 0);
        ASSERT_EQ(esplane_worker_offline(g.worker), 0);
        EXPECT_EQ(esplane_worker_quiescent(g.worker), 0);
        EXPECT_EQ(esplane_outbound(g.worker, &b.packet, 1, at(1), 0), -EPERM);
        ASSERT_EQ(esplane_worker_online(g.worker), 0);
        EXPECT_EQ(esplane_outbound(g.worker, &b.packet, 1, at(1), 0), 0);
    });
}

TEST(Misuse, AThreadThatEndsAsAWorkerIsTakenOff) {
    gateway g(1, [](esplane_engine_options& o) { o.max_workers = 1; });
    g.add_tunnel();
    esplane_worker* worker = nullptr;
    std::thread([&] { EXPECT_EQ(esplane_worker_register(g.engine, &worker), 0); }).join();
    EXPECT_EQ(esplane_worker_index(worker), -EBADF);
    EXPECT_EQ(esplane_sa_flush(g.engine), 0); // waits for nobody
    g.working([&] { EXPECT_EQ(esplane_worker_index(g.worker), 0); });
}

TEST(Misuse, MoreWorkersThanAgreedAreRefused) {
    gateway g(1, [](esplane_engine_options& o) { o.max_workers = 1; });
    g.working([&] {
        std::thread([&] {
            esplane_worker* second = nullptr;
            EXPECT_EQ(esplane_worker_register(g.engine, &second), -ENOBUFS);
        }).join();
    });
}

TEST(Misuse, MoreEnginesThanAProcessMayHaveAreRefused) {
    std::vector<esplane_engine*> all;
    const esplane_engine_options o = default_options();
    for (esplane_engine* e = nullptr; esplane_engine_create(&o, &e) == 0; all.push_back(e))
        ASSERT_LE(all.size(), 16u);
    EXPECT_EQ(all.size(), 16u);
    EXPECT_EQ(create(o), -ENOBUFS);
    for (esplane_engine* e : all)
        EXPECT_EQ(esplane_engine_destroy(e), 0);
}

TEST(Misuse, TheEventCallbackMayReadAndNotChange) {
    static esplane_engine* engine;
    static int reading, changing, ticking, destroying;
    gateway g(1, [](esplane_engine_options& o) {
        o.event = [](void*, const esplane_event* event) {
            if (event->sa == nullptr) return;
            esplane_sa s;
            esplane_sa_init(&s);
            reading = esplane_sa_get(engine, &event->sa->id, &s);
            changing = esplane_sa_delete(engine, &event->sa->id);
            ticking = esplane_tick(engine, at(1));
            destroying = esplane_engine_destroy(engine);
        };
    });
    engine = g.engine;
    g.add_sa(1);
    EXPECT_EQ(reading, 0);
    EXPECT_EQ(changing, -EBUSY);
    EXPECT_EQ(ticking, -EBUSY);
    EXPECT_EQ(destroying, -EBUSY);
    EXPECT_EQ(esplane_sa_flush(g.engine), 0);
}

TEST(Misuse, AFilterMayReadAndNotChangeOrPush) {
    static gateway* g;
    static std::vector<int> refused;
    static int reading;
    gateway near(1);
    near.add_tunnel();
    g = &near;
    const auto filter = [](void*, std::uint32_t, std::uint32_t, const std::uint8_t*, std::uint32_t,
                           void*) {
        esplane_packet p{};
        esplane_worker* w = nullptr;
        esplane_counters c;
        esplane_counters_init(&c);
        reading = esplane_counters_get(g->engine, &c);
        refused = {esplane_sa_flush(g->engine),
                   esplane_tick(g->engine, at(1)),
                   esplane_outbound(g->worker, &p, 1, at(1), 0),
                   esplane_inbound(g->worker, &p, 1, at(1)),
                   esplane_worker_quiescent(g->worker),
                   esplane_worker_offline(g->worker),
                   esplane_worker_unregister(g->worker),
                   esplane_worker_register(g->engine, &w)};
        return 0;
    };
    ASSERT_EQ(esplane_set_filter(near.engine, filter, nullptr), 0);
    buffer b(make_packet({}));
    near.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
    EXPECT_EQ(reading, 0);
    EXPECT_EQ(refused, (std::vector<int>{-EBUSY, -EBUSY, -EBUSY, -EBUSY, -EBUSY, -EBUSY, -EBUSY,
                                         -EALREADY}));
}

TEST(Misuse, AWorkerThatMakesAControlCallDoesNotWaitForItself) {
    std::uint64_t fastest = UINT64_MAX; // of several: the machine may be busy
    for (int i = 0; i < 5; ++i) {
        gateway g(1);
        g.add_tunnel();
        g.working([&] {
            const esplane_sa_id id = make_sa(1, g.key).id;
            const std::uint64_t before = esplane_now().monotonic_ns;
            ASSERT_EQ(esplane_sa_delete(g.engine, &id), 0);
            fastest = std::min(fastest, esplane_now().monotonic_ns - before);
            buffer b(make_packet({}));
            ASSERT_EQ(esplane_outbound(g.worker, &b.packet, 1, at(1), 0), 0);
            EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
        });
    }
    EXPECT_LT(fastest, 50'000'000u); // control waits 100 ms for a worker that does not come by
}

TEST(Misuse, TwoThreadsInControlCallsAreToldSo) {
    static std::promise<void> inside, go_on;
    gateway g(1, [](esplane_engine_options& o) {
        o.event = [](void*, const esplane_event* event) {
            if (event->kind != ESPLANE_SA_ADDED) return;
            inside.set_value();
            go_on.get_future().wait();
        };
    });
    std::thread first([&] { g.add_sa(1); });
    inside.get_future().wait();
    EXPECT_EQ(esplane_sa_flush(g.engine), -EBUSY);
    std::uint64_t ns = 0;
    EXPECT_EQ(esplane_next_deadline(g.engine, &ns), -EBUSY);
    esplane_counters c;
    esplane_counters_init(&c);
    EXPECT_EQ(esplane_counters_get(g.engine, &c), 0); // any thread's
    go_on.set_value();
    first.join();
    EXPECT_EQ(esplane_sa_flush(g.engine), 0);
}

TEST(Misuse, ShortRoomIsAVerdictAndThePacketStaysWhole) {
    gateway g(1);
    g.add_tunnel();
    for (const auto& [head, tail] : {std::pair{0, 128}, {71, 128}, {128, 0}, {128, 17}}) {
        buffer b(make_packet({}), static_cast<std::uint16_t>(head),
                 static_cast<std::uint16_t>(tail));
        g.outbound(b);
        EXPECT_EQ(b.packet.verdict, ESPLANE_NO_ROOM) << head << " " << tail;
        EXPECT_TRUE(b.untouched()) << head << " " << tail;
    }
    EXPECT_EQ(g.dropped("no_room"), 4u);
    buffer b(make_packet({}), ESPLANE_HEADROOM, ESPLANE_TAILROOM);
    g.outbound(b);
    EXPECT_EQ(b.packet.verdict, ESPLANE_PROTECTED);
    EXPECT_EQ(g.counters().encrypted, 1u);
}

TEST(Misuse, ThePromisedRoomIsEnoughForEverySuiteAndOuterHeader) {
    const bytes cipher_key(32, 1), auth_key(32, 2);
    for (unsigned which = 0; which < 8; ++which) {
        const bool v6 = (which & 1) != 0, cbc = (which & 2) != 0, in_udp = (which & 4) != 0;
        gateway g(1);
        esplane_sa sa = make_sa(1, g.key);
        if (v6) {
            sa.source = ip("2001:db8::1");
            sa.id.destination = ip("2001:db8::2");
        }
        if (cbc) {
            sa.aead = {};
            sa.cipher = {"cbc(aes)", cipher_key.data(), 32, 0};
            sa.auth = {"hmac(sha256)", auth_key.data(), 32, 128};
        }
        if (in_udp) {
            sa.encapsulation.type = 2;
            sa.encapsulation.source_port = sa.encapsulation.destination_port = 4500;
        }
        ASSERT_EQ(esplane_sa_add(g.engine, &sa, at(1)), 0) << esplane_error_text();
        esplane_template via;
        const esplane_policy policy = make_policy(ESPLANE_OUT, 1, via);
        via.family = sa.source.family;
        via.source = sa.source;
        via.id.destination = sa.id.destination;
        ASSERT_EQ(esplane_policy_add(g.engine, &policy, at(1)), 0) << esplane_error_text();
        for (std::uint32_t length = 64; length < 80; ++length) {
            buffer b(make_packet({.length = length}), ESPLANE_HEADROOM, ESPLANE_TAILROOM);
            g.outbound(b);
            EXPECT_EQ(b.packet.verdict, ESPLANE_PROTECTED)
                << (v6 ? "IPv6 " : "IPv4 ") << (in_udp ? "UDP " : "") << (cbc ? "CBC " : "GCM ")
                << length;
        }
    }
}

TEST(Misuse, WhatCannotBeAPacketIsDroppedAndCounted) {
    gateway g(1);
    g.add_tunnel();
    const auto dropped = [&](auto change) {
        for (const bool out : {true, false}) {
            buffer b(make_packet({}));
            const esplane_packet before = b.packet;
            change(b.packet);
            out ? g.outbound(b) : g.inbound(b);
            EXPECT_EQ(b.packet.verdict, ESPLANE_DISCARD);
            EXPECT_STREQ(esplane_reason_name(b.packet.reason), "ip_malformed");
            b.packet.data = before.data;
            b.packet.length = before.length;
            EXPECT_TRUE(b.untouched());
        }
    };
    dropped([](esplane_packet& p) { p.data = nullptr; });
    dropped([](esplane_packet& p) { p.length = 0; });
    dropped([](esplane_packet& p) { p.length = 1; });
    dropped([](esplane_packet& p) { p.length = 19; });
    dropped([](esplane_packet& p) { p.length = 63; });
    dropped([](esplane_packet& p) { p.length = 65536; });
    dropped([](esplane_packet& p) { p.length = UINT32_MAX; });
    EXPECT_EQ(g.dropped("ip_malformed"), 14u);
    EXPECT_EQ(g.counters().dropped, 14u);
    EXPECT_EQ(g.counters().received, 14u);
}

TEST(Misuse, MoreThanAgreedIsRefused) {
    gateway g(1, [](esplane_engine_options& o) {
        o.max_sas = 1;
        o.max_policies = 2;
    });
    g.add_sa(1);
    const esplane_sa second = make_sa(2, g.key);
    EXPECT_EQ(esplane_sa_add(g.engine, &second, at(1)), -ENOBUFS);
    EXPECT_STREQ(esplane_error_field(), "max_sas");
    esplane_spi_request r;
    esplane_spi_request_init(&r);
    r.destination = ip("192.168.77.1");
    r.min = r.max = 7;
    std::uint32_t spi = 0;
    EXPECT_EQ(esplane_spi_allocate(g.engine, &r, at(1), &spi), -ENOBUFS);
    g.add_policy(ESPLANE_OUT, 1);
    g.add_policy(ESPLANE_FORWARD, 2);
    esplane_template via;
    const esplane_policy third = make_policy(ESPLANE_IN, 2, via);
    EXPECT_EQ(esplane_policy_add(g.engine, &third, at(1)), -ENOBUFS);
    EXPECT_EQ(esplane_policy_update(g.engine, &third, at(1)), -ENOBUFS);
    const esplane_policy known = make_policy(ESPLANE_OUT, 1, via);
    EXPECT_EQ(esplane_policy_update(g.engine, &known, at(1)), 0);
}

} // namespace
} // namespace esplane::tests
