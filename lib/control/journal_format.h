// SPDX-License-Identifier: Apache-2.0
//
// What a log consists of (journal.h): frames, and for each object its fields, once for writing and
// reading.
// Threads: any.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "lib/control/journal.h"
#include "lib/control/journal_fields.h"

namespace esplane::control::journal {

using frame = journal_frame;

inline constexpr std::array<char, 8> magic{'E', 'S', 'P', 'L', 'S', 'T', 'A', 'T'};
inline constexpr std::uint32_t version = 1;
inline constexpr std::uint32_t longest_record = 1u << 18; // a client's longest message and more

enum class kind : std::uint8_t {
    put_sa,
    remove_sa,
    remove_sas,
    put_policy,
    remove_policy,
    remove_policies,
    put_settings,
    begin_after,
};

struct frame_head {
    std::uint32_t length;
    std::uint32_t crc;
    frame what;
};

/// CRC-32 of IEEE 802.3.
[[nodiscard]] std::uint32_t crc_of(std::span<const std::uint8_t> data) noexcept;

// What each object consists of, once for both directions: T is const where it is written.

template <typename A, typename T>
void describe_address(A& a, T& x) {
    // 0, 4 or 6: what lies between is none
    a.choice(x.fam, ipsec::family::ipv6);
    a.raw(x.bytes.data(), x.bytes.size());
}

template <typename A, typename T>
void describe_mark(A& a, T& m) {
    a.number(m.value);
    a.number(m.mask);
}

template <typename A, typename T>
void describe_port(A& a, T& p) {
    a.raw(&p, sizeof p);
}

template <typename A, typename T>
void describe_id(A& a, T& id) {
    describe_address(a, id.destination);
    a.raw(&id.spi, sizeof id.spi);
    a.number(id.protocol);
    describe_mark(a, id.mark);
}

template <typename A, typename T>
void describe_selector(A& a, T& s) {
    describe_address(a, s.source);
    describe_address(a, s.destination);
    a.number(s.source_prefix);
    a.number(s.destination_prefix);
    describe_port(a, s.source_port);
    describe_port(a, s.source_port_mask);
    describe_port(a, s.destination_port);
    describe_port(a, s.destination_port_mask);
    a.number(s.protocol);
    a.choice(s.fam, ipsec::family::ipv6);
    a.number(s.ifindex);
    a.number(s.user);
}

template <typename A, typename T>
void describe_limits(A& a, T& l) {
    for (auto* one : {&l.soft_bytes, &l.hard_bytes, &l.soft_packets, &l.hard_packets, &l.soft_add_s,
                      &l.hard_add_s, &l.soft_use_s, &l.hard_use_s})
        a.number(*one);
}

template <typename A, typename T>
void describe_current(A& a, T& c) {
    for (auto* one : {&c.bytes, &c.packets, &c.add_time, &c.use_time})
        a.number(*one);
}

template <typename A, typename T>
void describe_security(A& a, T& s) {
    a.optional(s, [&](auto& context) {
        a.number(context.domain);
        a.number(context.algorithm);
        a.list(context.label);
    });
}

template <typename A, typename T>
void describe_algorithm(A& a, T& k) {
    a.text(k.name);
    a.hidden(k.key);
    a.number(k.icv_bits);
}

template <typename A, typename T>
void describe_addressing(A& a, T& s) {
    describe_id(a, s.id);
    describe_address(a, s.source);
    describe_selector(a, s.sel);
    a.choice(s.run_mode, ipsec::mode::tunnel);
    a.choice(s.dir, ipsec::direction::out);
    a.optional(s.encap, [&](auto& e) {
        describe_port(a, e.source_port);
        describe_port(a, e.destination_port);
        describe_address(a, e.original);
    });
    a.optional(s.care_of, [&](auto& c) { describe_address(a, c); });
}

template <typename A, typename T>
void describe_replay(A& a, T& s) {
    a.number(s.replay_window);
    a.number(s.replay_esn_form);
    a.number(s.replay.sent);
    a.number(s.replay.received);
    a.list(s.replay.bitmap);
    a.number(s.replay_threshold);
    a.number(s.replay_timer);
}

template <typename A, typename T>
void describe_sa(A& a, T& s) {
    describe_addressing(a, s);
    for (auto* one : {&s.reqid, &s.if_id, &s.seq, &s.extra_flags, &s.mapping_threshold,
                      &s.nat_keepalive, &s.tfc_pad})
        a.number(*one);
    a.number(s.flags);
    a.number(s.dying);
    describe_mark(a, s.output_mark);
    describe_security(a, s.security);
    a.optional(s.pcpu, [&](auto& cpu) { a.number(cpu); });
    for (auto* one : {&s.algs.aead, &s.algs.cipher, &s.algs.auth})
        describe_algorithm(a, *one);
    describe_replay(a, s);
    describe_limits(a, s.limits);
    describe_current(a, s.current);
    a.number(s.last_used);
    for (auto* one :
         {&s.statistics.replay_window, &s.statistics.replay, &s.statistics.integrity_failed})
        a.number(*one);
}

template <typename A, typename T>
void describe_template(A& a, T& t) {
    describe_id(a, t.id);
    describe_address(a, t.source);
    a.choice(t.fam, ipsec::family::ipv6);
    a.choice(t.run_mode, ipsec::mode::tunnel);
    a.number(t.share);
    a.number(t.optional);
    for (auto* one : {&t.reqid, &t.auth_algs, &t.cipher_algs, &t.comp_algs})
        a.number(*one);
}

template <typename A, typename T>
void describe_policy(A& a, T& p) {
    a.choice(p.dir, ipsec::policy_direction::fwd);
    a.choice(p.type, ipsec::policy_type::sub);
    a.choice(p.action, ipsec::policy_action::block);
    describe_selector(a, p.sel);
    describe_mark(a, p.mark);
    describe_security(a, p.security);
    for (auto* one : {&p.if_id, &p.priority, &p.index})
        a.number(*one);
    a.number(p.flags);
    a.number(p.share);
    a.each(p.templates, [&](auto& t) { describe_template(a, t); });
    describe_limits(a, p.limits);
    describe_current(a, p.current);
    a.number(p.position);
    a.number(p.dying);
}

template <typename A, typename D, typename H>
void describe_settings(A& a, D& defaults, H& thresholds) {
    for (auto& action : defaults)
        a.choice(action, ipsec::policy_action::block);
    for (auto* one :
         {&thresholds.local_v4, &thresholds.remote_v4, &thresholds.local_v6, &thresholds.remote_v6})
        a.number(*one);
}

template <typename A, typename T>
void describe_session(A& a, T& s) {
    a.raw(s.name.data(), s.name.size());
    a.number(s.nonce_base);
    a.number(s.sealed);
    a.raw(s.salt.data(), s.salt.size());
}

} // namespace esplane::control::journal
