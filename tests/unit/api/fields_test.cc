// SPDX-License-Identifier: Apache-2.0
//
// SAs, policies and what names them with a field that cannot be: refused, the field is named, and
// nothing has changed.
#include <cerrno>
#include <cstdint>
#include <string>

#include <gtest/gtest.h>

#include "tests/unit/api/gateway.h"

namespace esplane::tests {
namespace {

/// What esplane_sa_add() says of an SA that one thing is wrong with.
void expect_refused(int code, const std::string& field, void (*change)(esplane_sa&)) {
    const gateway g(1);
    esplane_sa s = make_sa(1, g.key);
    change(s);
    EXPECT_EQ(esplane_sa_add(g.engine, &s, at(1)), code) << field;
    EXPECT_EQ(esplane_error_field(), field) << esplane_error_text();
    EXPECT_STRNE(esplane_error_text(), "") << field;
    std::uint64_t cursor = UINT64_MAX;
    esplane_sa_init(&s);
    EXPECT_EQ(esplane_sa_next(g.engine, &cursor, &s), 0) << field << ": nothing may have changed";
}

TEST(Fields, ThatCannotBeInAnSaAreNamed) {
    expect_refused(-EINVAL, "size", [](esplane_sa& s) { s.size = 8; });
    expect_refused(-EOPNOTSUPP, "protocol", [](esplane_sa& s) { s.id.protocol = 51; });
    expect_refused(-EOPNOTSUPP, "mode", [](esplane_sa& s) { s.mode = 4; });
    expect_refused(-EINVAL, "direction", [](esplane_sa& s) { s.direction = 3; });
    expect_refused(-EINVAL, "id.spi", [](esplane_sa& s) { s.id.spi = 0; });
    expect_refused(-EINVAL, "id.destination",
                   [](esplane_sa& s) { s.id.destination.family = ESPLANE_ANY_FAMILY; });
    expect_refused(-EINVAL, "source", [](esplane_sa& s) { s.source = ip("fd77::1"); });
    expect_refused(-EINVAL, "source", [](esplane_sa& s) { s.source.family = 5; });
    expect_refused(-EINVAL, "selector.family", [](esplane_sa& s) { s.selector.family = 10; });
    expect_refused(-EINVAL, "selector.source_prefix", [](esplane_sa& s) {
        s.selector.family = ESPLANE_IPV4;
        s.selector.source_prefix = 33;
    });
    expect_refused(-EINVAL, "selector", [](esplane_sa& s) {
        s.selector.family = ESPLANE_IPV4;
        s.selector.source = ip("fd77::1");
    });
    expect_refused(-EINVAL, "selector.reserved", [](esplane_sa& s) { s.selector.reserved[1] = 1; });
    expect_refused(-EINVAL, "aead", [](esplane_sa& s) { s.aead = {}; });
    expect_refused(-EINVAL, "aead", [](esplane_sa& s) { s.auth = s.aead; });
    expect_refused(-EINVAL, "aead", [](esplane_sa& s) { s.aead.key = nullptr; });
    expect_refused(-EINVAL, "aead", [](esplane_sa& s) { s.aead.key_length = 513; });
    expect_refused(-EINVAL, "replay_window", [](esplane_sa& s) { s.replay_window = 4128; });
    expect_refused(-EINVAL, "replay_window", [](esplane_sa& s) { s.replay_window = 33; });
    expect_refused(-EINVAL, "replay_window", [](esplane_sa& s) {
        s.replay_window = 0;
        s.flags |= ESPLANE_SA_ESN;
    });
    expect_refused(-EINVAL, "bitmap_words", [](esplane_sa& s) { s.bitmap_words = 1; });
    expect_refused(-EINVAL, "bitmap", [](esplane_sa& s) { s.bitmap_words = 2; });
    expect_refused(-EOPNOTSUPP, "encapsulation.type",
                   [](esplane_sa& s) { s.encapsulation.type = 7; });
}

TEST(Fields, OfAlgorithmsThatAreNotBuiltInAreRefused) {
    const gateway g(1);
    esplane_sa s = make_sa(1, g.key);
    s.aead.name = "rfc7539esp(chacha20,poly1306)";
    EXPECT_EQ(esplane_sa_add(g.engine, &s, at(1)), -ENOSYS);
    s = make_sa(1, g.key);
    s.aead.key_length = 19;
    EXPECT_EQ(esplane_sa_add(g.engine, &s, at(1)), -EINVAL);
}

void expect_policy_refused(int code, const std::string& field, void (*change)(esplane_policy&),
                           void (*change_template)(esplane_template&) = nullptr) {
    const gateway g(1);
    esplane_template via;
    esplane_policy p = make_policy(ESPLANE_OUT, 1, via);
    if (change != nullptr) change(p);
    if (change_template != nullptr) change_template(via);
    EXPECT_EQ(esplane_policy_add(g.engine, &p, at(1)), code) << field;
    EXPECT_EQ(esplane_error_field(), field) << esplane_error_text();
    std::uint64_t cursor = UINT64_MAX;
    EXPECT_EQ(esplane_policy_next(g.engine, &cursor, &p), 0) << field;
}

TEST(Fields, ThatCannotBeInAPolicyAreNamed) {
    expect_policy_refused(-EINVAL, "direction", [](esplane_policy& p) { p.direction = 3; });
    expect_policy_refused(-EINVAL, "action", [](esplane_policy& p) { p.action = 2; });
    expect_policy_refused(-EINVAL, "index", [](esplane_policy& p) { p.index = 8; });
    expect_policy_refused(-EINVAL, "templates", [](esplane_policy& p) { p.templates = nullptr; });
    expect_policy_refused(-EOPNOTSUPP, "templates",
                          [](esplane_policy& p) { p.template_count = 2; });
    expect_policy_refused(-EINVAL, "selector.family",
                          [](esplane_policy& p) { p.selector.family = 0; });
    expect_policy_refused(-EOPNOTSUPP, "flags", [](esplane_policy& p) { p.flags = 1; });
    expect_policy_refused(-EOPNOTSUPP, "mode", nullptr, [](esplane_template& t) { t.mode = 4; });
    expect_policy_refused(-EOPNOTSUPP, "template.auth_algs", nullptr,
                          [](esplane_template& t) { t.auth_algs = 1; });
    expect_policy_refused(-EINVAL, "template.optional", nullptr,
                          [](esplane_template& t) { t.optional = 1; });
    expect_policy_refused(-EINVAL, "template", nullptr,
                          [](esplane_template& t) { t.source = ip("fd77::1"); });
}

TEST(Fields, ThatAreReservedMustBeZeroInAnSa) {
    expect_refused(-EINVAL, "reserved", [](esplane_sa& s) { s.reserved[2] = 1; });
    expect_refused(-EINVAL, "reserved", [](esplane_sa& s) { s.reserved_end = 1; });
    expect_refused(-EINVAL, "id.reserved", [](esplane_sa& s) { s.id.reserved[0] = 1; });
    expect_refused(-EINVAL, "id.destination.reserved",
                   [](esplane_sa& s) { s.id.destination.reserved[2] = 1; });
    expect_refused(-EINVAL, "source.reserved", [](esplane_sa& s) { s.source.reserved[0] = 1; });
    expect_refused(-EINVAL, "source.reserved", [](esplane_sa& s) {
        s.source = {};
        s.source.reserved[1] = 1;
    });
    expect_refused(-EINVAL, "care_of.reserved", [](esplane_sa& s) { s.care_of.reserved[1] = 1; });
    expect_refused(-EINVAL, "encapsulation.reserved",
                   [](esplane_sa& s) { s.encapsulation.reserved = 1; });
    expect_refused(-EINVAL, "encapsulation.original.reserved",
                   [](esplane_sa& s) { s.encapsulation.original.reserved[0] = 1; });
    expect_refused(-EINVAL, "selector.source.reserved",
                   [](esplane_sa& s) { s.selector.source.reserved[0] = 1; });
}

TEST(Fields, ThatAreReservedMustBeZeroInAPolicy) {
    expect_policy_refused(-EINVAL, "reserved", [](esplane_policy& p) { p.reserved[0] = 1; });
    expect_policy_refused(-EINVAL, "selector.reserved",
                          [](esplane_policy& p) { p.selector.reserved[0] = 1; });
    expect_policy_refused(-EINVAL, "template.id.reserved", nullptr,
                          [](esplane_template& t) { t.id.reserved[1] = 1; });
    expect_policy_refused(-EINVAL, "template.source.reserved", nullptr,
                          [](esplane_template& t) { t.source.reserved[1] = 1; });
}

TEST(Fields, ThatAreReservedMustBeZeroInWhatNamesThings) {
    const gateway g(1);
    esplane_sa_id id{};
    id.destination = ip("192.168.77.2");
    id.spi = 1;
    id.protocol = 50;
    id.reserved[0] = 1;
    EXPECT_EQ(esplane_sa_delete(g.engine, &id), -EINVAL);
    EXPECT_STREQ(esplane_error_field(), "id.reserved");

    esplane_policy_key key;
    for (const auto change : {+[](esplane_policy_key& k) { k.reserved[0] = 1; },
                              +[](esplane_policy_key& k) { k.reserved_end = 1; }}) {
        esplane_policy_key_init(&key);
        key.selector.family = ESPLANE_IPV4;
        change(key);
        EXPECT_EQ(esplane_policy_delete(g.engine, &key), -EINVAL);
        EXPECT_STREQ(esplane_error_field(), "reserved");
    }

    esplane_spi_request request;
    for (const auto change : {+[](esplane_spi_request& r) { r.reserved[1] = 1; },
                              +[](esplane_spi_request& r) { r.reserved_end = 1; }}) {
        esplane_spi_request_init(&request);
        request.destination = ip("192.168.77.1");
        request.min = request.max = 7;
        change(request);
        std::uint32_t spi = 0;
        EXPECT_EQ(esplane_spi_allocate(g.engine, &request, at(1), &spi), -EINVAL);
        EXPECT_STREQ(esplane_error_field(), "reserved");
    }

    esplane_address address = ip("192.168.77.1");
    address.reserved[0] = 1;
    EXPECT_EQ(esplane_set_addresses(g.engine, &address, 1), -EINVAL);
    EXPECT_STREQ(esplane_error_field(), "addresses.reserved");
}

} // namespace
} // namespace esplane::tests
