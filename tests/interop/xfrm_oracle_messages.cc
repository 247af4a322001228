// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_messages.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iomanip>
#include <sstream>

#include "xfrm/attributes.h"

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;

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

} // namespace

bool is_reply(const item& i) {
    return i.header.nlmsg_type != NLMSG_ERROR && i.header.nlmsg_type != NLMSG_DONE;
}

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

std::vector<placed_attribute> attributes_at(bytes payload, std::size_t from) {
    std::vector<placed_attribute> all;
    if (from > payload.size()) return all;
    for_each_attribute(payload.subspan(from), [&](std::uint16_t type, bytes value) {
        all.push_back(
            {type, static_cast<std::size_t>(value.data() - payload.data()), value.size()});
        return true;
    });
    return all;
}

std::vector<placed_attribute> attributes_of(std::uint16_t type, bytes payload) {
    const auto form = layout_of(type);
    return form ? attributes_at(payload, aligned(form->fixed)) : std::vector<placed_attribute>();
}

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

std::string kind_of(const verdict& v) {
    verdict out = v;
    if (out.offset) out.offset = 0;
    return describe(out);
}

std::size_t words_at(const item& i) {
    return i.header.nlmsg_type == NLMSG_DONE ? sizeof(std::int32_t)
                                             : aligned(sizeof(std::int32_t) + echo_length(i));
}

std::vector<message> messages_of(const question& q) {
    std::vector<message> all;
    bytes rest(q.bytes);
    while (const auto m = next_message(rest))
        all.push_back(*m);
    return all;
}

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

std::string name_of(const item& i) {
    std::string name = type_name(i.header.nlmsg_type);
    if (i.group != 0) name += " to group " + std::to_string(i.group);
    return name;
}

std::string show(const question& q) {
    std::vector<item> items;
    for (const message& m : messages_of(q))
        items.push_back({0, m.header, {m.payload().begin(), m.payload().end()}});
    std::string out = items.empty() ? std::string() : show(items);
    if (q.packets != 0) out += "    " + std::to_string(q.packets) + " packets\n";
    if (q.wait_ms != 0) out += "    and then " + std::to_string(q.wait_ms) + " ms\n";
    return out;
}

std::string show(const std::vector<item>& items) {
    std::ostringstream out;
    for (const item& i : items) {
        out << "    " << name_of(i) << " flags 0x" << std::hex << i.header.nlmsg_flags << std::dec
            << " seq " << i.header.nlmsg_seq << " pid " << i.header.nlmsg_pid;
        if (i.at_ms != 0) out << " at " << i.at_ms << " ms";
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
