// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <utility>

#include "lib/control/journal.h"
#include "lib/control/journal_format.h"

namespace esplane::control {

using namespace journal;

std::uint32_t journal::crc_of(std::span<const std::uint8_t> data) noexcept {
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < t.size(); ++i) {
            t[i] = i;
            for (int bit = 0; bit < 8; ++bit)
                t[i] = (t[i] >> 1) ^ ((t[i] & 1) != 0 ? 0xedb88320u : 0);
        }
        return t;
    }();
    std::uint32_t crc = ~0u;
    for (const std::uint8_t byte : data)
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xff];
    return ~crc;
}

bytes payload_of(const journal_session& s) {
    bytes payload;
    field_writer w(payload);
    w.raw(magic.data(), magic.size());
    w.number(version);
    describe_session(w, s);
    return payload;
}

journal_writer::journal_writer(const journal_session& session, std::unique_ptr<journal_seal> seal)
    : seal_(std::move(seal)) {
    append_frame(frame::session, payload_of(session));
}

journal_writer::~journal_writer() {
    wipe();
}

void journal_writer::wipe() noexcept {
    esplane::wipe(bytes_.data(), bytes_.size());
    bytes_.clear();
}

/// Room first: bytes that move must not leave a copy behind.
void journal_writer::make_room(std::size_t length) {
    const std::size_t needed = bytes_.size() + length;
    if (needed <= bytes_.capacity()) return;
    bytes larger;
    larger.reserve(std::bit_ceil(std::max<std::size_t>(needed, longest_record)));
    larger.assign(bytes_.begin(), bytes_.end());
    wipe();
    bytes_ = std::move(larger);
}

void journal_writer::append_frame(frame what, const bytes& payload) {
    const frame_head head{static_cast<std::uint32_t>(payload.size()), crc_of(payload), what};
    make_room(sizeof head + payload.size());
    field_writer w(bytes_);
    w.raw(&head, sizeof head);
    w.raw(payload.data(), payload.size());
}

template <typename Describe>
void journal_writer::record(Describe describe) {
    record_.reserve(longest_record); // it never moves
    field_writer w(record_);
    describe(w);
    if (seal_) seal_->seal(next_index_++, record_);
    append_frame(frame::record, record_);
    esplane::wipe(record_.data(), record_.size());
    record_.clear();
}

void journal_writer::put(const ipsec::sa& s, std::optional<std::uint64_t> order) {
    record([&](field_writer& w) {
        w.choice(kind::put_sa, kind::put_sa);
        w.optional(order, [&](const std::uint64_t& o) { w.number(o); });
        describe_sa(w, s);
    });
}

void journal_writer::remove(const ipsec::sa_id& id) {
    record([&](field_writer& w) {
        w.choice(kind::remove_sa, kind::remove_sa);
        describe_id(w, id);
    });
}

void journal_writer::remove_sas(std::uint8_t protocol) {
    record([&](field_writer& w) {
        w.choice(kind::remove_sas, kind::remove_sas);
        w.number(protocol);
    });
}

void journal_writer::put(const ipsec::policy& p) {
    record([&](field_writer& w) {
        w.choice(kind::put_policy, kind::put_policy);
        describe_policy(w, p);
    });
}

void journal_writer::remove_policy(ipsec::policy_type type, std::uint32_t index) {
    record([&](field_writer& w) {
        w.choice(kind::remove_policy, kind::remove_policy);
        w.choice(type, ipsec::policy_type::sub);
        w.number(index);
    });
}

void journal_writer::remove_policies(ipsec::policy_type type) {
    record([&](field_writer& w) {
        w.choice(kind::remove_policies, kind::remove_policies);
        w.choice(type, ipsec::policy_type::sub);
    });
}

void journal_writer::put(const ipsec::default_actions& defaults,
                         const spd_hash_thresholds& thresholds) {
    record([&](field_writer& w) {
        w.choice(kind::put_settings, kind::put_settings);
        describe_settings(w, defaults, thresholds);
    });
}

void journal_writer::begin_after(std::uint64_t order) {
    record([&](field_writer& w) {
        w.choice(kind::begin_after, kind::begin_after);
        w.number(order);
    });
}

} // namespace esplane::control
