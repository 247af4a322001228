// SPDX-License-Identifier: Apache-2.0
#include "xfrm/dispatch.h"

#include <algorithm>
#include <array>
#include <bit>
#include <string>

#include "xfrm/attributes.h"
#include "xfrm/event_codec.h"
#include "xfrm/mark_codec.h"
#include "xfrm/misplaced.h"
#include "xfrm/policy_codec.h"
#include "xfrm/replay_codec.h"

namespace esplane::xfrm {
namespace {

/// One message under way.
struct exchange {
    control::layer& layer;
    const message& m;
    const attributes& a;
    const client_state& who;
    moment now;
    reply_sink& out;
    bool strict;

    [[nodiscard]] ipsec::originator by() const { return {m.header.nlmsg_pid, m.header.nlmsg_seq}; }
    /// The fixed part: its length has been checked.
    template <typename T>
    [[nodiscard]] T fixed() const {
        return read_fixed<T>(m.payload()).value_or(T{});
    }
};

using answer = result<void>;
using handler = answer (*)(const exchange&);

/// Sends the one message that `write` fills.
template <typename Write>
void send(const exchange& x, std::uint16_t type, Write&& write) {
    datagram d;
    message_writer w(d, type, 0, x.m.header.nlmsg_seq, x.who.port_id);
    write(w);
    w.finish();
    x.out.reply(std::move(d));
}

void write_sa(message_writer& w, const ipsec::sa& s) {
    w.fixed(sa_info(s));
    encode_sa_attributes(w, s);
}

void write_policy(message_writer& w, const ipsec::policy& p) {
    w.fixed(policy_info(p));
    encode_policy_attributes(w, p);
}

// SAs

/// The kernel names no attribute where an algorithm is not found, so neither is one named here.
answer resolve_algorithms(ipsec::algorithms& a) {
    return ipsec::resolve(a).map_error([](error e) {
        e.field.clear();
        return e;
    });
}

answer put_sa(const exchange& x) {
    auto s = decode_sa(x.fixed<xfrm_usersa_info>(), x.a);
    if (!s) return tl::unexpected(std::move(s.error()));
    auto resolved = resolve_algorithms(s->algs);
    if (!resolved && resolved.error().code == ENOSYS) return resolved;
    if (auto ok = check_cpu(s->pcpu, ERANGE); !ok) return ok;
    if (auto ok = check_family_change(*s); !ok) return ok;
    if (!resolved) return resolved;
    if (auto ok = check_use(*s, x.a); !ok) return ok;
    const bool is_new = x.m.header.nlmsg_type == XFRM_MSG_NEWSA;
    if (is_new && s->id.spi == wire::be32()) // nobody could find it again
        return fail(EOPNOTSUPP, "SPI 0 is not carried", "id.spi");
    const control::sysctls& defaults = x.layer.current_sysctls();
    if (!x.a.has(XFRMA_REPLAY_THRESH)) s->replay_threshold = defaults.aevent_rseqth;
    if (!x.a.has(XFRMA_ETIMER_THRESH)) s->replay_timer = defaults.aevent_etime;
    return is_new ? x.layer.add_sa(std::move(*s), x.by(), x.now)
                  : x.layer.update_sa(std::move(*s), x.by(), x.now);
}

/// Mobile IPv6's "SAs" have no SPI and are found by source: without one the request is malformed.
answer check_lookup(const exchange& x, std::uint8_t protocol) {
    constexpr std::uint8_t any = 255; // IPSEC_PROTO_ANY
    const bool has_spi = protocol == 50 || protocol == 51 || protocol == 108 || protocol == any;
    if (!has_spi && !x.a.has(XFRMA_SRCADDR)) return fail(EINVAL);
    return {};
}

answer delete_sa(const exchange& x) {
    const auto id = decode_sa_id(x.fixed<xfrm_usersa_id>(), x.a);
    if (auto ok = check_lookup(x, id.protocol); !ok) return ok;
    return x.layer.delete_sa(id, x.by());
}

answer get_sa(const exchange& x) {
    const auto id = decode_sa_id(x.fixed<xfrm_usersa_id>(), x.a);
    if (auto ok = check_lookup(x, id.protocol); !ok) return ok;
    const ipsec::sa* s = x.layer.get_sa(id);
    if (s == nullptr) return fail(ESRCH);
    send(x, XFRM_MSG_NEWSA, [s](message_writer& w) { write_sa(w, *s); });
    return {};
}

answer allocate_spi(const exchange& x) {
    const auto request = decode_spi_request(x.fixed<xfrm_userspi_info>(), x.a);
    if (!request) return tl::unexpected(request.error());
    const auto s = x.layer.allocate_spi(*request, x.now);
    if (!s) return tl::unexpected(s.error());
    send(x, XFRM_MSG_NEWSA, [&s](message_writer& w) { write_sa(w, *s); });
    return {};
}

answer flush_sas(const exchange& x) {
    x.layer.flush_sas(x.fixed<xfrm_usersa_flush>().proto, x.by());
    return {};
}

answer get_sa_event(const exchange& x) {
    const auto id = x.fixed<xfrm_aevent_id>();
    const ipsec::sa* s = x.layer.get_sa(decode_sa_id(id.sa_id, x.a));
    if (s == nullptr) return fail(ESRCH);
    datagram d; // to the port id that the request says, as in the kernel
    message_writer w(d, XFRM_MSG_NEWAE, 0, x.m.header.nlmsg_seq, x.m.header.nlmsg_pid);
    encode_sa_event(w, *s, id.flags);
    w.finish();
    x.out.reply(std::move(d));
    return {};
}

answer change_sa(const exchange& x) {
    const auto is_given = [&x](std::uint16_t type) { return x.a.has(type); };
    if (std::ranges::none_of(std::array{XFRMA_LTIME_VAL, XFRMA_REPLAY_VAL, XFRMA_REPLAY_ESN_VAL,
                                        XFRMA_ETIMER_THRESH, XFRMA_REPLAY_THRESH},
                             is_given))
        return fail(EINVAL, "Missing required attribute for AE");
    if ((x.m.header.nlmsg_flags & NLM_F_REPLACE) == 0)
        return fail(EINVAL, "NLM_F_REPLACE flag is required");
    const auto id = decode_sa_id(x.fixed<xfrm_aevent_id>().sa_id, x.a);
    const ipsec::sa* s = x.layer.get_sa(id);
    if (s == nullptr) return fail(ESRCH);
    if (s->state != ipsec::sa_state::valid) return fail(EINVAL, "SA must be in VALID state");
    const auto gift = decode_gift(*s, x.a);
    if (!gift) return tl::unexpected(gift.error());
    return x.layer.give_replay(id, *gift, x.by(), x.now);
}

answer expire_sa(const exchange& x) {
    const auto body = x.fixed<xfrm_user_expire>();
    const xfrm_usersa_id id{body.state.id.daddr, body.state.id.spi, body.state.family,
                            body.state.id.proto};
    return x.layer.expire_sa(decode_sa_id(id, x.a), body.hard != 0, x.by());
}

// Policies

answer put_policy(const exchange& x) {
    auto p = decode_policy(x.fixed<xfrm_userpolicy_info>(), x.a);
    if (!p) return tl::unexpected(std::move(p.error()));
    return x.m.header.nlmsg_type == XFRM_MSG_NEWPOLICY
               ? x.layer.add_policy(std::move(*p), x.by(), x.now)
               : x.layer.update_policy(std::move(*p), x.by(), x.now);
}

answer delete_policy(const exchange& x) {
    const auto key = decode_policy_key(x.fixed<xfrm_userpolicy_id>(), x.a);
    if (!key) return tl::unexpected(key.error());
    return x.layer.delete_policy(*key, x.by());
}

answer get_policy(const exchange& x) {
    const auto key = decode_policy_key(x.fixed<xfrm_userpolicy_id>(), x.a);
    if (!key) return tl::unexpected(key.error());
    const ipsec::policy* p = x.layer.get_policy(*key);
    if (p == nullptr) return fail(ENOENT);
    send(x, XFRM_MSG_NEWPOLICY, [p](message_writer& w) { write_policy(w, *p); });
    return {};
}

answer flush_policies(const exchange& x) {
    const auto type = decode_policy_type(x.a);
    if (!type) return tl::unexpected(type.error());
    x.layer.flush_policies(*type, x.by());
    return {};
}

answer expire_policy(const exchange& x) {
    const auto body = x.fixed<xfrm_user_polexpire>();
    const auto key = decode_policy_key({body.pol.sel, body.pol.index, body.pol.dir}, x.a);
    if (!key) return tl::unexpected(key.error());
    return x.layer.expire_policy(*key, body.hard != 0, x.by());
}

answer announce_acquire(const exchange& x) {
    auto request = decode_acquire(x.fixed<xfrm_user_acquire>(), x.a);
    if (!request) return tl::unexpected(std::move(request.error()));
    x.layer.announce_acquire(std::move(request->wanted), request->what);
    return {};
}

answer migrate(const exchange& x) {
    const auto m = decode_migration(x.fixed<xfrm_userpolicy_id>(), x.a);
    if (!m) return tl::unexpected(m.error());
    return x.layer.migrate(*m, x.by(), x.now);
}

answer set_default(const exchange& x) {
    const auto wanted = x.fixed<xfrm_userpolicy_default>();
    x.layer.set_defaults(decode_defaults(wanted, x.layer.defaults()));
    return {};
}

answer get_default(const exchange& x) {
    send(x, XFRM_MSG_GETDEFAULT,
         [&x](message_writer& w) { w.fixed(defaults_to(x.layer.defaults())); });
    return {};
}

/// What clients only ever hear; the kernel has no more to say of it.
answer refuse(const exchange& /*x*/) {
    return fail(EINVAL);
}

// Counts and thresholds

constexpr std::uint32_t max_buckets = 1u << 20;

/// Buckets of a table that the kernel would have for `entries`: it starts with 8 and doubles.
std::uint32_t buckets(std::size_t entries) {
    return static_cast<std::uint32_t>(
        std::clamp<std::size_t>(std::bit_ceil(entries + 1), 8, max_buckets));
}

answer get_sad_info(const exchange& x) {
    const auto count = static_cast<std::uint32_t>(x.layer.sa_count());
    send(x, XFRM_MSG_NEWSADINFO, [&](message_writer& w) {
        w.fixed(x.fixed<std::uint32_t>());
        w.attribute(XFRMA_SAD_CNT, count);
        w.attribute(XFRMA_SAD_HINFO, xfrmu_sadhinfo{buckets(count), max_buckets});
    });
    return {};
}

answer get_spd_info(const exchange& x) {
    const control::spd_counts count = x.layer.policy_counts();
    const control::spd_hash_thresholds& t = x.layer.hash_thresholds();
    // The kernel shows its mask here, not its number of buckets.
    const std::uint32_t mask = buckets(std::size_t{count.in} + count.out + count.fwd) - 1;
    send(x, XFRM_MSG_NEWSPDINFO, [&](message_writer& w) {
        w.fixed(x.fixed<std::uint32_t>());
        w.attribute(XFRMA_SPD_INFO, xfrmu_spdinfo{count.in, count.out, count.fwd, 0, 0, 0});
        w.attribute(XFRMA_SPD_HINFO, xfrmu_spdhinfo{mask, max_buckets});
        w.attribute(XFRMA_SPD_IPV4_HTHRESH, xfrmu_spdhthresh{t.local_v4, t.remote_v4});
        w.attribute(XFRMA_SPD_IPV6_HTHRESH, xfrmu_spdhthresh{t.local_v6, t.remote_v6});
    });
    return {};
}

struct thresholds_given {
    std::optional<xfrmu_spdhthresh> v4, v6;
};

/// Of an attribute that comes twice the last counts.
result<thresholds_given> given_thresholds(const message& m, bool strict) {
    thresholds_given given;
    result<void> verdict;
    for_each_attribute(m.after(sizeof(std::uint32_t)), [&](std::uint16_t type, bytes value) {
        const std::string name = "XFRMA_SPD_" + std::to_string(type);
        const bool known = type == XFRMA_SPD_IPV4_HTHRESH || type == XFRMA_SPD_IPV6_HTHRESH;
        if (!known && type != XFRMA_SPD_UNSPEC && strict)
            verdict = fail(EOPNOTSUPP, name + " is not carried");
        if (!known) return verdict.has_value();
        const auto t = read_fixed<xfrmu_spdhthresh>(value);
        if (!t) verdict = fail(ERANGE, "Attribute failed policy validation", name);
        (type == XFRMA_SPD_IPV4_HTHRESH ? given.v4 : given.v6) = t;
        return verdict.has_value();
    });
    if (!verdict) return tl::unexpected(std::move(verdict.error()));
    return given;
}

answer set_spd_info(const exchange& x) {
    const auto given = given_thresholds(x.m, x.strict);
    if (!given) return tl::unexpected(given.error());
    const auto too_long = [](const std::optional<xfrmu_spdhthresh>& t, std::uint8_t most) {
        return t && (t->lbits > most || t->rbits > most);
    };
    if (too_long(given->v4, 32))
        return fail(EINVAL, "Invalid hash threshold (must be <= 32 for IPv4)");
    if (too_long(given->v6, 128))
        return fail(EINVAL, "Invalid hash threshold (must be <= 128 for IPv6)");
    control::spd_hash_thresholds& t = x.layer.hash_thresholds();
    if (given->v4) t.local_v4 = given->v4->lbits, t.remote_v4 = given->v4->rbits;
    if (given->v6) t.local_v6 = given->v6->lbits, t.remote_v6 = given->v6->rbits;
    return {};
}

struct message_type {
    std::uint16_t type;
    const char* name;
    std::uint16_t fixed;         ///< bytes before the attributes
    handler run;                 ///< nullptr: not carried
    bool own_attributes = false; ///< not those of enum xfrm_attr_type_t
};

constexpr message_type types[] = {
    {XFRM_MSG_NEWSA, "XFRM_MSG_NEWSA", sizeof(xfrm_usersa_info), put_sa},
    {XFRM_MSG_DELSA, "XFRM_MSG_DELSA", sizeof(xfrm_usersa_id), delete_sa},
    {XFRM_MSG_GETSA, "XFRM_MSG_GETSA", sizeof(xfrm_usersa_id), get_sa},
    {XFRM_MSG_NEWPOLICY, "XFRM_MSG_NEWPOLICY", sizeof(xfrm_userpolicy_info), put_policy},
    {XFRM_MSG_DELPOLICY, "XFRM_MSG_DELPOLICY", sizeof(xfrm_userpolicy_id), delete_policy},
    {XFRM_MSG_GETPOLICY, "XFRM_MSG_GETPOLICY", sizeof(xfrm_userpolicy_id), get_policy},
    {XFRM_MSG_ALLOCSPI, "XFRM_MSG_ALLOCSPI", sizeof(xfrm_userspi_info), allocate_spi},
    {XFRM_MSG_ACQUIRE, "XFRM_MSG_ACQUIRE", sizeof(xfrm_user_acquire), announce_acquire},
    {XFRM_MSG_EXPIRE, "XFRM_MSG_EXPIRE", sizeof(xfrm_user_expire), expire_sa},
    {XFRM_MSG_UPDPOLICY, "XFRM_MSG_UPDPOLICY", sizeof(xfrm_userpolicy_info), put_policy},
    {XFRM_MSG_UPDSA, "XFRM_MSG_UPDSA", sizeof(xfrm_usersa_info), put_sa},
    {XFRM_MSG_POLEXPIRE, "XFRM_MSG_POLEXPIRE", sizeof(xfrm_user_polexpire), expire_policy},
    {XFRM_MSG_FLUSHSA, "XFRM_MSG_FLUSHSA", sizeof(xfrm_usersa_flush), flush_sas},
    {XFRM_MSG_FLUSHPOLICY, "XFRM_MSG_FLUSHPOLICY", 0, flush_policies},
    {XFRM_MSG_NEWAE, "XFRM_MSG_NEWAE", sizeof(xfrm_aevent_id), change_sa},
    {XFRM_MSG_GETAE, "XFRM_MSG_GETAE", sizeof(xfrm_aevent_id), get_sa_event},
    {XFRM_MSG_REPORT, "XFRM_MSG_REPORT", sizeof(xfrm_user_report), refuse},
    {XFRM_MSG_MIGRATE, "XFRM_MSG_MIGRATE", sizeof(xfrm_userpolicy_id), migrate},
    {XFRM_MSG_NEWSADINFO, "XFRM_MSG_NEWSADINFO", 0, refuse},
    {XFRM_MSG_GETSADINFO, "XFRM_MSG_GETSADINFO", sizeof(std::uint32_t), get_sad_info},
    {XFRM_MSG_NEWSPDINFO, "XFRM_MSG_NEWSPDINFO", sizeof(std::uint32_t), set_spd_info, true},
    {XFRM_MSG_GETSPDINFO, "XFRM_MSG_GETSPDINFO", sizeof(std::uint32_t), get_spd_info},
    {XFRM_MSG_MAPPING, "XFRM_MSG_MAPPING", sizeof(xfrm_user_mapping), refuse},
    {XFRM_MSG_SETDEFAULT, "XFRM_MSG_SETDEFAULT", sizeof(xfrm_userpolicy_default), set_default},
    {XFRM_MSG_GETDEFAULT, "XFRM_MSG_GETDEFAULT", sizeof(xfrm_userpolicy_default), get_default},
};

const message_type* find_type(std::uint16_t type) {
    const auto* const found = std::ranges::find(types, type, &message_type::type);
    return found == std::end(types) ? nullptr : found;
}

bool is_dump(const nlmsghdr& h) {
    return (h.nlmsg_type == XFRM_MSG_GETSA || h.nlmsg_type == XFRM_MSG_GETPOLICY) &&
           (h.nlmsg_flags & NLM_F_DUMP) != 0;
}

constexpr const char* leftover_text = "bytes leftover after parsing attributes";

result<sa_filter> filter_of(const message& m, bool strict) {
    return attributes::parse(m, 0, strict).and_then([](const attributes& a) {
        return decode_sa_filter(a);
    });
}

/// What is wrong with a dump is said at its end.
running_dump begin_dump(const message& m, bool strict) {
    running_dump d;
    d.policies = m.header.nlmsg_type == XFRM_MSG_GETPOLICY;
    d.sequence = m.header.nlmsg_seq;
    if (d.policies) return d; // the kernel looks at no attribute here
    auto filter = filter_of(m, strict);
    if (!filter) {
        d.end = std::move(filter.error());
        d.end_offset = attribute_offset(m, 0, d.end.field);
        d.at.next = 0; // nothing comes before it
    } else {
        d.filter = *filter;
    }
    if (d.end.text.empty() && has_leftover(m, 0)) d.end.text = leftover_text;
    return d;
}

answer carry_out(control::layer& layer, const message& m, client_state& who, moment now,
                 reply_sink& out, bool strict) {
    const message_type* const type = find_type(m.header.nlmsg_type);
    if (type == nullptr) return fail(EINVAL);
    if (m.payload().size() < type->fixed) return fail(EINVAL, "Invalid header length");
    if (type->run == nullptr)
        return fail(EOPNOTSUPP, std::string(type->name) + " is not carried", "nlmsg_type");
    if (type->own_attributes) return type->run({layer, m, {}, who, now, out, strict});
    const auto a = attributes::parse(m, type->fixed, strict);
    if (!a) return tl::unexpected(a.error());
    if (const auto stranger = misplaced(*a, m.header.nlmsg_type); strict && stranger)
        return not_carried(*stranger);
    const bool makes_sa = m.header.nlmsg_type == XFRM_MSG_NEWSA ||
                          m.header.nlmsg_type == XFRM_MSG_UPDSA ||
                          m.header.nlmsg_type == XFRM_MSG_ALLOCSPI;
    if (a->has(xfrma_sa_dir) && !makes_sa) return fail(EINVAL, "Invalid attribute SA_DIR");
    if (a->has(xfrma_sa_pcpu) && !makes_sa && m.header.nlmsg_type != XFRM_MSG_ACQUIRE)
        return fail(EINVAL, "Invalid attribute SA_PCPU");
    return type->run({layer, m, *a, who, now, out, strict});
}

const error no_error{0, {}, {}};

void write_text(message_writer& w, const error& e) {
    w.attribute_bytes(NLMSGERR_ATTR_MSG,
                      {reinterpret_cast<const std::uint8_t*>(e.text.c_str()), e.text.size() + 1});
}

/// NLMSGERR_ATTR_MSG and NLMSGERR_ATTR_OFFS.
void write_extended_ack(message_writer& w, const message& m, const error& e) {
    if (!e.text.empty()) write_text(w, e);
    const message_type* const type = find_type(m.header.nlmsg_type);
    const std::size_t fixed = type == nullptr || is_dump(m.header) ? 0 : type->fixed;
    if (const auto offset = attribute_offset(m, fixed, e.field))
        w.attribute(NLMSGERR_ATTR_OFFS, *offset);
}

/// netlink_ack: an error echoes the request unless the client asked for capped ones.  Code 0 may
/// come with a text, too.
datagram acknowledgement(const message& m, const client_state& who, const error& e) {
    const bool capped = e.code == 0 || who.capped_acks;
    const bool extended = who.extended_acks && !(e.text.empty() && e.field.empty());
    const auto flags =
        static_cast<std::uint16_t>((capped ? NLM_F_CAPPED : 0) | (extended ? NLM_F_ACK_TLVS : 0));
    datagram d;
    message_writer w(d, NLMSG_ERROR, flags, m.header.nlmsg_seq, who.port_id);
    w.fixed(nlmsgerr{-e.code, m.header});
    if (!capped) w.raw(m.payload());
    if (extended) write_extended_ack(w, m, e);
    w.finish();
    return d;
}

/// Whether the kernel would look at the attributes of it and find that something is behind them.
bool has_leftover(const message& m) {
    const message_type* const type = find_type(m.header.nlmsg_type);
    return type != nullptr && !is_dump(m.header) && m.payload().size() >= type->fixed &&
           has_leftover(m, type->fixed);
}

/// A backend may have named the field at fault without a text; and what the kernel noted while it
/// read stands where nothing else is said.
error with_text(error e, const message& m) {
    if (e.text.empty() && !e.field.empty()) e.text = e.field + " is not carried";
    if (e.text.empty() && has_leftover(m)) e.text = leftover_text;
    return e;
}

/// netlink_dump_done
void write_done(datagram& d, const client_state& who) {
    const error& end = who.dump->end;
    const bool extended = who.extended_acks && !end.text.empty();
    const auto flags = static_cast<std::uint16_t>(NLM_F_MULTI | (extended ? NLM_F_ACK_TLVS : 0));
    message_writer w(d, NLMSG_DONE, flags, who.dump->sequence, who.port_id);
    w.fixed(std::int32_t{-end.code});
    if (extended) write_text(w, end);
    if (extended && who.dump->end_offset) w.attribute(NLMSGERR_ATTR_OFFS, *who.dump->end_offset);
    w.finish();
}

/// Writes what `next` yields until the datagram is full or the walk ends.
template <typename Next>
void fill(datagram& d, running_dump& dump, Next&& next) {
    for (;;) {
        const control::cursor before = dump.at;
        const std::size_t length = d.size();
        if (!next()) return;
        if (d.size() <= max_dump_datagram || length == 0) continue;
        d.resize(length); // comes first in the next datagram
        dump.at = before;
        return;
    }
}

} // namespace

void dispatcher::request(bytes datagram_in, client_state& who, moment now, reply_sink& out) {
    while (const auto m = next_message(datagram_in)) {
        answer verdict;
        const bool asks =
            (m->header.nlmsg_flags & NLM_F_REQUEST) != 0 && m->header.nlmsg_type >= NLMSG_MIN_TYPE;
        if (asks && is_dump(m->header)) {
            if (!who.dump) {
                who.dump = begin_dump(*m, strict_);
                out.reply(continue_dump(who));
                continue;
            }
            verdict = fail(EBUSY);
        } else if (asks) {
            verdict = carry_out(layer_, *m, who, now, out, strict_);
        }
        if (!verdict)
            out.reply(acknowledgement(*m, who, with_text(std::move(verdict.error()), *m)));
        else if ((m->header.nlmsg_flags & NLM_F_ACK) != 0)
            out.reply(acknowledgement(*m, who, asks ? with_text(no_error, *m) : no_error));
    }
}

datagram dispatcher::continue_dump(client_state& who) {
    datagram d;
    running_dump& dump = *who.dump;
    const auto write = [&](std::uint16_t type, auto&& body) {
        message_writer w(d, type, NLM_F_MULTI, dump.sequence, who.port_id);
        body(w);
        w.finish();
    };
    const auto next_sa = [&] {
        const ipsec::sa* s = layer_.next_sa(dump.at);
        if (s != nullptr && dump.filter.matches(*s))
            write(XFRM_MSG_NEWSA, [s](message_writer& w) { write_sa(w, *s); });
        return s != nullptr;
    };
    const auto next_policy = [&] {
        const ipsec::policy* p = layer_.next_policy(dump.at);
        if (p != nullptr)
            write(XFRM_MSG_NEWPOLICY, [p](message_writer& w) { write_policy(w, *p); });
        return p != nullptr;
    };
    if (dump.policies)
        fill(d, dump, next_policy);
    else
        fill(d, dump, next_sa);
    if (!d.empty()) {
        dump.end.text.clear(); // of the first datagram alone
    } else {
        write_done(d, who);
        who.dump.reset();
    }
    return d;
}

} // namespace esplane::xfrm
