// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_compare.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <iomanip>
#include <sstream>
#include <string_view>

#include "xfrm/attributes.h"

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;

// Messages as they are laid out

struct layout {
    const char* name;
    std::size_t fixed;
};

/// By nlmsg_type from XFRM_MSG_NEWSA on.
constexpr std::array<layout, 25> layouts{{
    {"NEWSA", sizeof(xfrm_usersa_info)},
    {"DELSA", sizeof(xfrm_usersa_id)},
    {"GETSA", sizeof(xfrm_usersa_id)},
    {"NEWPOLICY", sizeof(xfrm_userpolicy_info)},
    {"DELPOLICY", sizeof(xfrm_userpolicy_id)},
    {"GETPOLICY", sizeof(xfrm_userpolicy_id)},
    {"ALLOCSPI", sizeof(xfrm_userspi_info)},
    {"ACQUIRE", sizeof(xfrm_user_acquire)},
    {"EXPIRE", sizeof(xfrm_user_expire)},
    {"UPDPOLICY", sizeof(xfrm_userpolicy_info)},
    {"UPDSA", sizeof(xfrm_usersa_info)},
    {"POLEXPIRE", sizeof(xfrm_user_polexpire)},
    {"FLUSHSA", sizeof(xfrm_usersa_flush)},
    {"FLUSHPOLICY", 0},
    {"NEWAE", sizeof(xfrm_aevent_id)},
    {"GETAE", sizeof(xfrm_aevent_id)},
    {"REPORT", sizeof(xfrm_user_report)},
    {"MIGRATE", sizeof(xfrm_userpolicy_id)},
    {"NEWSADINFO", sizeof(std::uint32_t)},
    {"GETSADINFO", sizeof(std::uint32_t)},
    {"NEWSPDINFO", sizeof(std::uint32_t)},
    {"GETSPDINFO", sizeof(std::uint32_t)},
    {"MAPPING", sizeof(xfrm_user_mapping)},
    {"SETDEFAULT", sizeof(xfrm_userpolicy_default)},
    {"GETDEFAULT", sizeof(xfrm_userpolicy_default)},
}};

std::optional<layout> layout_of(std::uint16_t type) {
    if (type < XFRM_MSG_NEWSA || type >= XFRM_MSG_NEWSA + layouts.size()) return std::nullopt;
    return layouts[type - XFRM_MSG_NEWSA];
}

std::string type_name(std::uint16_t type) {
    if (type == NLMSG_ERROR) return "ERROR";
    if (type == NLMSG_DONE) return "DONE";
    if (const auto l = layout_of(type)) return l->name;
    return "type " + std::to_string(type);
}

bool own_attributes(std::uint16_t type) {
    return type == XFRM_MSG_NEWSPDINFO || type == XFRM_MSG_NEWSADINFO;
}

std::string name_of_attribute(std::uint16_t message, std::uint16_t type) {
    if (!own_attributes(message)) return attribute_name(type);
    return (message == XFRM_MSG_NEWSPDINFO ? "XFRMA_SPD_" : "XFRMA_SAD_") + std::to_string(type);
}

// Times

/// What a clock says today; clients of these tests give none so late.
constexpr std::uint64_t todays = 1'650'000'000;

void hide_time(std::vector<std::uint8_t>& payload, std::size_t at) {
    std::uint64_t value = 0;
    if (at + sizeof value > payload.size()) return;
    std::memcpy(&value, payload.data() + at, sizeof value);
    if (value < todays || value == ~std::uint64_t{0}) return;
    value = 1;
    std::memcpy(payload.data() + at, &value, sizeof value);
}

void hide_times_of(std::vector<std::uint8_t>& payload, std::size_t current) {
    hide_time(payload, current + offsetof(xfrm_lifetime_cur, add_time));
    hide_time(payload, current + offsetof(xfrm_lifetime_cur, use_time));
}

/// Where struct xfrm_lifetime_cur lies in the fixed part; nullopt: nowhere.
std::optional<std::size_t> lifetime_in(std::uint16_t type) {
    switch (type) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
    case XFRM_MSG_EXPIRE:
        return offsetof(xfrm_usersa_info, curlft);
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
    case XFRM_MSG_POLEXPIRE:
        return offsetof(xfrm_userpolicy_info, curlft);
    case XFRM_MSG_ACQUIRE:
        return offsetof(xfrm_user_acquire, policy) + offsetof(xfrm_userpolicy_info, curlft);
    default:
        return std::nullopt;
    }
}

bool is_reply(const item& i) {
    return i.header.nlmsg_type != NLMSG_ERROR && i.header.nlmsg_type != NLMSG_DONE;
}

void zero(std::vector<std::uint8_t>& payload, std::size_t at, std::size_t length) {
    if (at + length <= payload.size())
        std::fill_n(payload.begin() + static_cast<std::ptrdiff_t>(at), length, std::uint8_t{0});
}

/// The sizes of hash tables follow their load a little later, in the kernel.
void hide_table_sizes(item& i, std::uint16_t attribute, std::size_t at) {
    if (i.header.nlmsg_type == XFRM_MSG_NEWSADINFO && attribute == XFRMA_SAD_HINFO)
        zero(i.payload, at + offsetof(xfrmu_sadhinfo, sadhcnt), sizeof(std::uint32_t));
    if (i.header.nlmsg_type == XFRM_MSG_NEWSPDINFO && attribute == XFRMA_SPD_HINFO)
        zero(i.payload, at + offsetof(xfrmu_spdhinfo, spdhcnt), sizeof(std::uint32_t));
}

void hide_times(item& i) {
    const auto type = i.header.nlmsg_type;
    // The kernel counts ACQUIREs over all namespaces.
    if (type == XFRM_MSG_ACQUIRE) zero(i.payload, offsetof(xfrm_user_acquire, seq), 4);
    const auto form = layout_of(type);
    if (!form) return;
    if (const auto at = lifetime_in(type)) hide_times_of(i.payload, *at);
    const std::size_t start = std::min(aligned(form->fixed), i.payload.size());
    const bytes all(i.payload);
    std::vector<std::pair<std::uint16_t, std::size_t>> found;
    for_each_attribute(all.subspan(start), [&](std::uint16_t attribute, bytes value) {
        found.emplace_back(attribute, static_cast<std::size_t>(value.data() - all.data()));
        return true;
    });
    for (const auto& [attribute, at] : found) {
        hide_table_sizes(i, attribute, at);
        if (own_attributes(type)) continue;
        if (attribute == XFRMA_ETIMER_THRESH) zero(i.payload, at, sizeof(std::uint32_t));
        if (attribute == XFRMA_LTIME_VAL) hide_times_of(i.payload, at);
        if (attribute == XFRMA_SA)
            hide_times_of(i.payload, at + offsetof(xfrm_usersa_info, curlft));
        if (attribute == XFRMA_POLICY)
            hide_times_of(i.payload, at + offsetof(xfrm_userpolicy_info, curlft));
        if (attribute == XFRMA_LASTUSED) hide_time(i.payload, at);
    }
}

// Errors

struct verdict {
    std::int32_t code = 0;
    std::string text;
    std::optional<std::uint32_t> offset;
    std::uint16_t request = 0;
};

std::size_t echo_length(const item& i) {
    if ((i.header.nlmsg_flags & NLM_F_CAPPED) != 0) return sizeof(nlmsghdr);
    const auto echo = read_fixed<nlmsgerr>(i.payload);
    return echo ? echo->msg.nlmsg_len : 0;
}

void read_words(bytes attributes, verdict& v) {
    for_each_attribute(attributes, [&](std::uint16_t type, bytes value) {
        if (type == NLMSGERR_ATTR_MSG)
            v.text.assign(reinterpret_cast<const char*>(value.data()), value.size() - 1);
        if (type == NLMSGERR_ATTR_OFFS) v.offset = read_fixed<std::uint32_t>(value);
        return true;
    });
}

/// Of an error, and of the end of a dump.
verdict verdict_of(const item& i) {
    verdict v;
    if (i.header.nlmsg_type == NLMSG_DONE) {
        v.code = read_fixed<std::int32_t>(i.payload).value_or(0);
        if (i.payload.size() > sizeof v.code)
            read_words(bytes(i.payload).subspan(sizeof v.code), v);
        return v;
    }
    const auto echo = read_fixed<nlmsgerr>(i.payload);
    if (!echo) return v;
    v.code = echo->error;
    v.request = echo->msg.nlmsg_type;
    if ((i.header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return v;
    const std::size_t at = aligned(sizeof(std::int32_t) + echo_length(i));
    if (at > i.payload.size()) return v;
    read_words(bytes(i.payload).subspan(at), v);
    return v;
}

std::string describe(const verdict& v) {
    std::ostringstream out;
    if (v.code == 0)
        out << "ok";
    else
        out << strerrorname_np(-v.code);
    if (!v.text.empty()) out << " \"" << v.text << '"';
    if (v.offset) out << " at " << *v.offset;
    return out.str();
}

/// Without numbers that depend on the request.
std::string kind_of(const verdict& v) {
    verdict out = v;
    if (out.offset) out.offset = 0;
    return describe(out);
}

std::string hex(bytes b) {
    std::ostringstream out;
    out << std::hex << std::setfill('0');
    for (std::size_t i = 0; i < b.size(); ++i)
        out << (i % 32 == 0  ? "\n        "
                : i % 4 == 0 ? " "
                             : "")
            << std::setw(2) << static_cast<unsigned>(b[i]);
    return out.str();
}

std::string show_body(const item& i) {
    const auto form = layout_of(i.header.nlmsg_type);
    if (!form) return hex(i.payload);
    const bytes all(i.payload);
    const std::size_t fixed = std::min(aligned(form->fixed), all.size());
    std::string out = hex(all.first(fixed));
    for_each_attribute(all.subspan(fixed), [&](std::uint16_t type, bytes value) {
        out += "\n      " + name_of_attribute(i.header.nlmsg_type, type) + " (" +
               std::to_string(value.size()) + ")" + hex(value);
        return true;
    });
    return out;
}

std::string name_of(const item& i) {
    std::string name = type_name(i.header.nlmsg_type);
    if (i.group != 0) name += " to group " + std::to_string(i.group);
    return name;
}

// Kinds of differences

struct found_attribute {
    std::uint16_t type;
    bytes value;
};

std::vector<found_attribute> attributes_of(const item& i, std::size_t fixed) {
    std::vector<found_attribute> all;
    if (fixed <= i.payload.size())
        for_each_attribute(bytes(i.payload).subspan(fixed), [&](std::uint16_t type, bytes value) {
            all.push_back({type, value});
            return true;
        });
    return all;
}

std::string first_difference(bytes a, bytes b) {
    const auto [at, other] = std::ranges::mismatch(a, b);
    return "byte " + std::to_string(at - a.begin()) +
           (a.size() == b.size()
                ? ""
                : " (" + std::to_string(a.size()) + " and " + std::to_string(b.size()) + " bytes)");
}

std::string body_difference(const item& ours, const item& theirs) {
    const auto type = ours.header.nlmsg_type;
    const auto form = layout_of(type);
    if (!form) return first_difference(ours.payload, theirs.payload);
    const std::size_t fixed = aligned(form->fixed);
    const auto start = [&](const item& i) {
        return bytes(i.payload).first(std::min(fixed, i.payload.size()));
    };
    if (!std::ranges::equal(start(ours), start(theirs)))
        return "fixed part, " + first_difference(start(ours), start(theirs));
    const auto a = attributes_of(ours, fixed), b = attributes_of(theirs, fixed);
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
        if (i >= b.size() || (i < a.size() && a[i].type != b[i].type))
            return "attributes: ours has " +
                   (i < a.size() ? name_of_attribute(type, a[i].type) : "no more") +
                   ", the kernel's " +
                   (i < b.size() ? name_of_attribute(type, b[i].type) : "no more");
        if (i >= a.size())
            return "attributes: ours has no more, the kernel's " +
                   name_of_attribute(type, b[i].type);
        if (!std::ranges::equal(a[i].value, b[i].value))
            return name_of_attribute(type, a[i].type) + ", " +
                   first_difference(a[i].value, b[i].value);
    }
    return "attributes";
}

std::string item_difference(const item& ours, const item& theirs) {
    if (name_of(ours) != name_of(theirs)) {
        const auto what = [](const item& i) {
            return i.header.nlmsg_type == NLMSG_ERROR ? kind_of(verdict_of(i)) : name_of(i);
        };
        return "ours " + what(ours) + ", the kernel's " + what(theirs);
    }
    if (ours.header.nlmsg_type == NLMSG_ERROR && ours.payload != theirs.payload) {
        const verdict a = verdict_of(ours), b = verdict_of(theirs);
        if (describe(a) == describe(b))
            return "the echo of the request, " + first_difference(ours.payload, theirs.payload);
        if (kind_of(a) == kind_of(b)) return "the offset with " + kind_of(a);
        return "ours " + kind_of(a) + ", the kernel's " + kind_of(b);
    }
    if (ours.payload != theirs.payload) return name_of(ours) + ": " + body_difference(ours, theirs);
    const auto flags = [](const item& i) { return std::to_string(i.header.nlmsg_flags); };
    if (ours.header.nlmsg_flags != theirs.header.nlmsg_flags)
        return name_of(ours) + ": flags, ours " + flags(ours) + ", the kernel's " + flags(theirs);
    return name_of(ours) + ": sequence number or port id";
}

std::vector<message> messages_of(const question& q) {
    std::vector<message> all;
    bytes rest(q.bytes);
    while (const auto m = next_message(rest))
        all.push_back(*m);
    return all;
}

/// The request that an item is about.
std::string request_name(const question& q, const item& i) {
    for (const message& m : messages_of(q))
        if (m.header.nlmsg_seq == i.header.nlmsg_seq || messages_of(q).size() == 1) {
            const bool dump = (m.header.nlmsg_type == XFRM_MSG_GETSA ||
                               m.header.nlmsg_type == XFRM_MSG_GETPOLICY) &&
                              (m.header.nlmsg_flags & NLM_F_DUMP) != 0;
            return type_name(m.header.nlmsg_type) + (dump ? " dump" : "");
        }
    return "several";
}

} // namespace

void normalizer::map_spis(std::vector<std::uint8_t>& payload) {
    for (std::size_t at = 0; at + 4 <= payload.size(); at += 4) {
        std::uint32_t word = 0;
        std::memcpy(&word, payload.data() + at, sizeof word);
        const std::uint32_t spi = __builtin_bswap32(word);
        if (spi < first_random_spi || spi > last_random_spi) continue;
        word = 0xa5a50000u + spis_.emplace(word, spis_.size()).first->second;
        std::memcpy(payload.data() + at, &word, sizeof word);
    }
}

/// Where the attributes of an error, or of the end of a dump, begin.
std::size_t words_at(const item& i) {
    return i.header.nlmsg_type == NLMSG_DONE ? sizeof(std::int32_t)
                                             : aligned(sizeof(std::int32_t) + echo_length(i));
}

/// The kernel completes templates inside the request, and echoes it so.
void hide_echo_of_templates(item& i) {
    const auto echo = read_fixed<nlmsgerr>(i.payload);
    if (i.header.nlmsg_type != NLMSG_ERROR || !echo) return;
    if (echo->msg.nlmsg_type == XFRM_MSG_NEWPOLICY || echo->msg.nlmsg_type == XFRM_MSG_UPDPOLICY)
        zero(i.payload, sizeof *echo, words_at(i) - sizeof *echo);
}

/// NLMSGERR_ATTR_POLICY, which esplane does not send, stands last.  XFRM_MODE_MAX is 5 in kernels
/// that do not know IP-TFS.
void level_words(item& i) {
    if ((i.header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return;
    const std::size_t start = words_at(i);
    std::optional<std::size_t> policy;
    for_each_attribute(bytes(i.payload).subspan(std::min(start, i.payload.size())),
                       [&](std::uint16_t type, bytes value) {
                           if (type == NLMSGERR_ATTR_POLICY)
                               policy = static_cast<std::size_t>(value.data() - i.payload.data()) -
                                        sizeof(nlattr);
                           return true;
                       });
    if (policy) i.payload.resize(*policy);
    constexpr std::string_view old_limit = "XFRM_MODE_MAX (5)";
    const auto at =
        std::search(i.payload.begin(), i.payload.end(), old_limit.begin(), old_limit.end());
    if (at != i.payload.end()) at[old_limit.size() - 2] = '6';
}

void normalizer::drop_words(item& i) const {
    if (texts_) return;
    i.payload.resize(std::min(i.payload.size(), words_at(i)));
    i.header.nlmsg_flags &= static_cast<std::uint16_t>(~NLM_F_ACK_TLVS);
}

std::vector<item> normalizer::operator()(const answer& a) {
    std::vector<item> all;
    for (const heard& h : a) {
        bytes rest(h.bytes);
        while (const auto m = next_message(rest)) {
            item i{h.group, m->header, {m->payload().begin(), m->payload().end()}};
            if (is_reply(i)) hide_times(i);
            if (!is_reply(i)) {
                hide_echo_of_templates(i);
                level_words(i);
                drop_words(i);
            }
            map_spis(i.payload);
            all.push_back(std::move(i));
        }
    }
    // Where a dump goes on between other replies depends on the size of its datagrams.
    std::stable_partition(all.begin(), all.end(), [](const item& i) {
        return i.group != 0 || (i.header.nlmsg_flags & NLM_F_MULTI) == 0;
    });
    return all;
}

std::map<std::uint32_t, std::string> listed_refusals(const question& q, const answer& ours) {
    std::map<std::uint32_t, std::string> out;
    normalizer as_is(true);
    for (const item& i : as_is(ours)) {
        if (is_reply(i)) continue;
        const verdict v = verdict_of(i);
        const bool odd_larval =
            v.request == XFRM_MSG_ALLOCSPI &&
            (v.text == "Invalid address family" || v.text == "Unsupported mode" ||
             v.text == "No SPI available in the requested range");
        const bool odd_encap =
            v.request == XFRM_MSG_MIGRATE && v.text == "Unsupported encapsulation type for ESP";
        if (v.text.find("carried") != std::string::npos || odd_larval || odd_encap)
            out.emplace(i.header.nlmsg_seq, request_name(q, i) + ": " + kind_of(v));
    }
    return out;
}

question without(const question& q, const std::set<std::uint32_t>& sequences) {
    question out;
    std::size_t gone = 0;
    for (const message& m : messages_of(q)) {
        const auto start = static_cast<std::size_t>(m.whole.data() - q.bytes.data());
        const std::size_t length = std::min(aligned(m.whole.size()), q.bytes.size() - start);
        if (sequences.contains(m.header.nlmsg_seq)) {
            gone += length;
            continue;
        }
        const auto from = q.bytes.begin() + static_cast<std::ptrdiff_t>(start);
        out.bytes.insert(out.bytes.end(), from, from + static_cast<std::ptrdiff_t>(length));
        for (const patch& p : q.patches)
            if (p.at >= start && p.at < start + length)
                out.patches.push_back({p.at - static_cast<std::uint32_t>(gone), p.from});
    }
    return out;
}

std::optional<std::string> difference(const question& q, const std::vector<item>& ours,
                                      const std::vector<item>& theirs) {
    if (ours == theirs) return std::nullopt;
    const auto [a, b] = std::ranges::mismatch(ours, theirs);
    const auto what = [](const item& i) {
        return i.header.nlmsg_type == NLMSG_ERROR ? describe(verdict_of(i)) : name_of(i);
    };
    if (a == ours.end()) return request_name(q, *b) + ": ours lacks " + what(*b);
    if (b == theirs.end()) return request_name(q, *a) + ": the kernel's lacks " + what(*a);
    return request_name(q, *a) + ": " + item_difference(*a, *b);
}

std::string show(const question& q) {
    std::vector<item> items;
    for (const message& m : messages_of(q))
        items.push_back({0, m.header, {m.payload().begin(), m.payload().end()}});
    return show(items);
}

std::string show(const std::vector<item>& items) {
    std::ostringstream out;
    for (const item& i : items) {
        out << "    " << name_of(i) << " flags 0x" << std::hex << i.header.nlmsg_flags << std::dec
            << " seq " << i.header.nlmsg_seq << " pid " << i.header.nlmsg_pid;
        if (i.header.nlmsg_type == NLMSG_ERROR)
            out << ": " << type_name(verdict_of(i).request) << ' ' << describe(verdict_of(i));
        else
            out << show_body(i);
        out << '\n';
    }
    if (items.empty()) out << "    nothing\n";
    return out.str();
}

} // namespace esplane::tests::oracle
