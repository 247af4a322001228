// SPDX-License-Identifier: Apache-2.0
#include "xfrm/print.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <limits>

#include "xfrm/attributes.h"

namespace esplane::xfrm {
namespace {

// Values

std::string hexadecimal(std::uint64_t n, int digits = 1) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%0*llx", digits, static_cast<unsigned long long>(n));
    return text;
}

/// Printable ASCII as it is, anything else as an escape: it goes to a terminal.
std::string clean(bytes from) {
    std::string text;
    for (const std::uint8_t c : from) {
        if (c == 0) break;
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, c >= ' ' && c < 0x7f ? "%c" : "\\x%02x", c);
        text += escaped;
    }
    return text;
}

std::string print_address(bytes a, std::uint64_t family) {
    // Where no family is said: IPv4's is followed by zeros.
    if (family != AF_INET && family != AF_INET6)
        family = std::ranges::all_of(a.subspan(4), [](std::uint8_t b) { return b == 0; })
                     ? AF_INET
                     : AF_INET6;
    char text[INET6_ADDRSTRLEN] = {};
    ::inet_ntop(static_cast<int>(family), a.data(), text, sizeof text);
    return text;
}

/// "esn|icmp"; what has no name in hexadecimal.
printed_list print_bits(std::uint64_t n, std::span<const value_name> names) {
    printed_list set;
    for (const value_name& v : names) {
        if ((n & v.value) == 0) continue;
        set.items.push_back({{}, std::string(v.name)});
        n &= ~std::uint64_t{v.value};
    }
    if (n != 0) set.items.push_back({{}, hexadecimal(n)});
    return set;
}

std::int64_t with_sign(std::uint64_t n, std::size_t size) noexcept {
    const int unused = static_cast<int>(64 - 8 * size);
    return static_cast<std::int64_t>(n << unused) >> unused;
}

void print_number(printed& into, const field& f, std::uint64_t n) {
    switch (f.kind) {
    case field_kind::integer:
        into.is = with_sign(n, f.size);
        return;
    case field_kind::mask:
        into.is = hexadecimal(n);
        return;
    case field_kind::spi:
        into.is = hexadecimal(n, 8);
        return;
    case field_kind::limit:
        if (n == std::numeric_limits<std::uint64_t>::max())
            into.is = std::string("infinite");
        else
            into.is = n;
        return;
    case field_kind::bits:
        into.is = print_bits(n, f.names);
        return;
    default:
        into.is = n;
    }
    if (f.kind != field_kind::word) return;
    const auto known = std::ranges::find(f.names, n, &value_name::value);
    if (known != f.names.end()) into.is = std::string(known->name);
}

/// The records that a field is in, the innermost last.
using enclosing = std::vector<const record*>;

std::uint64_t address_family_of(const field& f, const enclosing& records) {
    if (!f.family.empty()) return number_in(find_value(*records.back(), f.family));
    for (auto r = records.rbegin(); r != records.rend(); ++r)
        if (const auto family = number_in(find_value(**r, (*r)->form->family)); family != 0)
            return family;
    return AF_UNSPEC;
}

printed_fields print_record(const record& r, enclosing& around);

printed print_value(const field& f, const value& v, enclosing& around) {
    printed p{std::string(f.name), std::string()};
    if (const auto* n = std::get_if<std::uint64_t>(&v.is)) {
        print_number(p, f, *n);
    } else if (const auto* inner = std::get_if<record>(&v.is)) {
        p.is = print_record(*inner, around);
    } else {
        const bytes raw = std::get<datagram>(v.is);
        p.is = f.kind == field_kind::address ? print_address(raw, address_family_of(f, around))
                                             : clean(raw);
    }
    return p;
}

printed_fields print_record(const record& r, enclosing& around) {
    around.push_back(&r);
    printed_fields all;
    for (std::size_t i = 0; i < r.values.size(); ++i)
        if (r.form->fields[i].kind != field_kind::reserved)
            all.push_back(print_value(r.form->fields[i], r.values[i], around));
    around.pop_back();
    return all;
}

// Attributes

std::string count_of(std::size_t n, const char* what) {
    return std::to_string(n) + " " + what;
}

printed_list print_words(bytes from) {
    printed_list all;
    while (const auto word = read_fixed<std::uint32_t>(from)) {
        all.items.push_back({{}, hexadecimal(*word, 8)});
        from = from.subspan(sizeof *word);
    }
    return all;
}

/// What stands behind the structure of an attribute; of a key its length alone.
void print_tail(const attribute& a, printed_fields& into) {
    const bool whole = a.form != nullptr && (a.form->content == nullptr || !a.records.empty());
    const tail_kind kind = whole ? a.form->tail : tail_kind::none;
    if (kind == tail_kind::key) {
        into.push_back({"key", count_of(a.rest.size() * 8, "bits")});
    } else if (a.rest.empty()) {
        return;
    } else if (kind == tail_kind::text) {
        into.push_back({a.records.empty() ? "" : "text", clean(a.rest)});
    } else if (kind == tail_kind::words) {
        into.push_back({"bmp", print_words(a.rest)});
    } else {
        into.push_back({"unknown", count_of(a.rest.size(), "bytes")});
    }
}

/// Of one part without a name the part itself.
void simplify(printed& p, printed_fields&& parts) {
    if (parts.size() == 1 && parts.front().name.empty()) {
        p.is = std::move(parts.front().is);
        return;
    }
    for (printed& part : parts)
        if (part.name.empty()) part.name = "value";
    p.is = std::move(parts);
}

printed print_attribute(const attribute& a, enclosing& around) {
    printed p{attribute_name(a), printed_fields{}};
    printed_fields tail;
    print_tail(a, tail);
    if (a.form != nullptr && a.form->repeated) {
        printed_list all;
        for (const record& r : a.records)
            all.items.push_back({{}, print_record(r, around)});
        if (!tail.empty()) all.items.push_back({{}, std::move(tail)});
        p.is = std::move(all);
        return p;
    }
    printed_fields parts;
    if (!a.records.empty()) parts = print_record(a.records.front(), around);
    std::ranges::move(tail, std::back_inserter(parts));
    simplify(p, std::move(parts));
    return p;
}

// Messages

constexpr value_name common_flags[] = {{NLM_F_REQUEST, "REQUEST"},
                                       {NLM_F_MULTI, "MULTI"},
                                       {NLM_F_ACK, "ACK"},
                                       {NLM_F_ECHO, "ECHO"},
                                       {NLM_F_DUMP_INTR, "DUMP_INTR"},
                                       {NLM_F_DUMP_FILTERED, "DUMP_FILTERED"}};
constexpr value_name new_flags[] = {{NLM_F_REPLACE, "REPLACE"},
                                    {NLM_F_EXCL, "EXCL"},
                                    {NLM_F_CREATE, "CREATE"},
                                    {NLM_F_APPEND, "APPEND"}};
constexpr value_name get_flags[] = {
    {NLM_F_ROOT, "ROOT"}, {NLM_F_MATCH, "MATCH"}, {NLM_F_ATOMIC, "ATOMIC"}};
constexpr value_name delete_flags[] = {{NLM_F_NONREC, "NONREC"}, {NLM_F_BULK, "BULK"}};
constexpr value_name answer_flags[] = {{NLM_F_CAPPED, "CAPPED"}, {NLM_F_ACK_TLVS, "ACK_TLVS"}};

/// Names of the flags above the common ones.
std::span<const value_name> flags_for(std::uint16_t type) noexcept {
    switch (type) {
    case NLMSG_ERROR:
    case NLMSG_DONE:
        return answer_flags;
    case XFRM_MSG_GETSA:
    case XFRM_MSG_GETPOLICY:
    case XFRM_MSG_GETAE:
    case XFRM_MSG_GETSADINFO:
    case XFRM_MSG_GETSPDINFO:
    case XFRM_MSG_GETDEFAULT:
        return get_flags;
    case XFRM_MSG_DELSA:
    case XFRM_MSG_DELPOLICY:
        return delete_flags;
    default:
        return new_flags;
    }
}

printed_list print_flags(const nlmsghdr& h) {
    constexpr std::uint16_t common = 0xff;
    printed_list all = print_bits(h.nlmsg_flags & common, common_flags);
    const std::uint16_t special = h.nlmsg_flags & static_cast<std::uint16_t>(~common);
    std::ranges::move(print_bits(special, flags_for(h.nlmsg_type)).items,
                      std::back_inserter(all.items));
    return all;
}

} // namespace

std::string attribute_name(const attribute& a) {
    return a.form != nullptr ? std::string(a.form->name) : attribute_name(a.number());
}

printed_message print(const description& d) {
    printed_message p;
    p.type = d.form != nullptr ? std::string(d.form->name) : std::to_string(d.header.nlmsg_type);
    p.flags = print_flags(d.header);
    p.length = d.header.nlmsg_len;
    p.sequence = d.header.nlmsg_seq;
    p.port_id = d.header.nlmsg_pid;
    enclosing around;
    if (d.fixed) {
        p.fixed = print_record(*d.fixed, around);
        around.push_back(&*d.fixed);
    }
    for (const attribute& a : d.attributes)
        p.attributes.push_back(print_attribute(a, around));
    for (const description& r : d.request)
        p.request.push_back(print(r));
    p.unknown_bytes = d.rest.size();
    return p;
}

} // namespace esplane::xfrm
