// SPDX-License-Identifier: Apache-2.0
#include "xfrm/codec.h"

#include <algorithm>
#include <bit>

namespace esplane::xfrm {
namespace {

datagram copy_of(bytes b) {
    return {b.begin(), b.end()};
}

/// Takes the first `length` bytes off `from`, or as many as there are.
bytes take(bytes& from, std::size_t length) noexcept {
    const bytes taken = from.first(std::min(length, from.size()));
    from = from.subspan(taken.size());
    return taken;
}

/// Takes the padding off that follows `length` bytes.
bytes take_padding(bytes& from, std::size_t length) noexcept {
    return take(from, aligned(length) - length);
}

void append(datagram& into, bytes b) {
    into.insert(into.end(), b.begin(), b.end());
}

// Fields

constexpr bool is_big_endian(field_kind k) noexcept {
    return k == field_kind::port || k == field_kind::spi;
}

/// The place in memory of the byte of value `significance` (0: the lowest) in a number.
constexpr std::size_t place_of(const field& f, std::size_t significance) noexcept {
    const bool lowest_first = !is_big_endian(f.kind) && std::endian::native == std::endian::little;
    return lowest_first ? significance : f.size - 1u - significance;
}

std::uint64_t read_number(const field& f, bytes from) noexcept {
    std::uint64_t n = 0;
    for (std::size_t i = f.size; i-- > 0;)
        n = n << 8 | from[place_of(f, i)];
    return n;
}

void write_number(const field& f, std::uint64_t n, datagram& into) {
    const std::size_t start = into.size();
    into.resize(start + f.size);
    for (std::size_t i = 0; i < f.size; ++i, n >>= 8)
        into[start + place_of(f, i)] = static_cast<std::uint8_t>(n);
}

record read_record(const structure& form, bytes from);

value read_value(const field& f, bytes from) {
    switch (f.kind) {
    case field_kind::address:
    case field_kind::text:
    case field_kind::reserved:
        return {copy_of(from)};
    case field_kind::record:
        return {read_record(*f.inner, from)};
    default:
        return {read_number(f, from)};
    }
}

/// `from` is as long as the form.
record read_record(const structure& form, bytes from) {
    record r{&form, {}};
    r.values.reserve(form.fields.size());
    for (const field& f : form.fields)
        r.values.push_back(read_value(f, from.subspan(f.offset, f.size)));
    return r;
}

void write_record(const record& r, datagram& into);

void write_value(const field& f, const value& v, datagram& into) {
    if (const auto* n = std::get_if<std::uint64_t>(&v.is))
        write_number(f, *n, into);
    else if (const auto* b = std::get_if<datagram>(&v.is))
        append(into, *b);
    else
        write_record(std::get<record>(v.is), into);
}

void write_record(const record& r, datagram& into) {
    for (std::size_t i = 0; i < r.values.size(); ++i)
        write_value(r.form->fields[i], r.values[i], into);
}

// Attributes

void read_content(attribute& a, bytes from) {
    const structure* const content = a.form != nullptr ? a.form->content : nullptr;
    while (content != nullptr && from.size() >= content->size) {
        a.records.push_back(read_record(*content, take(from, content->size)));
        if (!a.form->repeated) break;
    }
    a.rest = copy_of(from);
}

/// Takes the first attribute off `from`; nullopt where none begins.
std::optional<attribute> read_attribute(const message_form& m, bytes& from) {
    const auto head = read_fixed<nlattr>(from);
    if (!head || head->nla_len < sizeof(nlattr) || head->nla_len > from.size()) return std::nullopt;
    attribute a;
    a.type = head->nla_type;
    a.form = find_attribute(m.space, a.number());
    read_content(a, take(from, head->nla_len).subspan(sizeof(nlattr)));
    a.padding = copy_of(take_padding(from, head->nla_len));
    return a;
}

void write_attribute(const attribute& a, datagram& into) {
    const std::size_t start = into.size();
    into.resize(start + sizeof(nlattr));
    for (const record& r : a.records)
        write_record(r, into);
    append(into, a.rest);
    const nlattr head{static_cast<std::uint16_t>(into.size() - start), a.type};
    std::memcpy(into.data() + start, &head, sizeof head);
    append(into, a.padding);
}

// Messages

description read_message(const message& m, bool answers_may_nest);

/// The message that an NLMSG_ERROR answers.  An answer to an answer there is none of.
void read_request(description& d, bytes& from) {
    bytes behind = from;
    const auto m = next_message(behind);
    if (!m) return;
    take(from, m->whole.size());
    d.request.push_back(read_message(*m, false));
    d.request.back().padding = copy_of(take_padding(from, m->whole.size()));
}

description read_message(const message& m, bool answers_may_nest) {
    description d;
    d.header = m.header;
    bytes left = m.payload();
    d.form = find_message(m.header);
    if (d.form != nullptr && d.form->carries_request && !answers_may_nest) d.form = nullptr;
    if (d.form != nullptr) {
        const structure* const fixed = d.form->fixed;
        const bool fits = fixed == nullptr || left.size() >= fixed->size;
        if (fits && fixed != nullptr) {
            d.fixed = read_record(*fixed, take(left, fixed->size));
            d.fixed_padding = copy_of(take_padding(left, fixed->size));
        }
        if (fits && d.form->carries_request) read_request(d, left);
        while (fits) {
            auto a = read_attribute(*d.form, left);
            if (!a) break;
            d.attributes.push_back(std::move(*a));
        }
    }
    d.rest = copy_of(left);
    return d;
}

void write_message(const description& d, datagram& into) {
    const std::size_t start = into.size();
    into.resize(start + sizeof(nlmsghdr));
    if (d.fixed) write_record(*d.fixed, into);
    append(into, d.fixed_padding);
    for (const description& r : d.request)
        write_message(r, into);
    for (const attribute& a : d.attributes)
        write_attribute(a, into);
    append(into, d.rest);
    nlmsghdr head = d.header;
    head.nlmsg_len = static_cast<std::uint32_t>(into.size() - start);
    std::memcpy(into.data() + start, &head, sizeof head);
    append(into, d.padding);
}

} // namespace

descriptions decode(bytes whole) {
    descriptions all;
    while (true) {
        bytes behind = whole;
        const auto m = next_message(behind);
        if (!m) break;
        take(whole, m->whole.size());
        all.messages.push_back(read_message(*m, true));
        all.messages.back().padding = copy_of(take_padding(whole, m->whole.size()));
    }
    all.rest = copy_of(whole);
    return all;
}

datagram encode(const descriptions& d) {
    datagram whole;
    for (const description& m : d.messages)
        write_message(m, whole);
    append(whole, d.rest);
    return whole;
}

const value* find_value(const record& r, std::string_view name) noexcept {
    const std::size_t dot = name.find('.');
    const std::string_view first = name.substr(0, dot);
    const auto found = std::ranges::find(r.form->fields, first, &field::name);
    if (found == r.form->fields.end()) return nullptr;
    const value& v = r.values[static_cast<std::size_t>(found - r.form->fields.begin())];
    if (dot == name.npos) return &v;
    const auto* const inner = std::get_if<record>(&v.is);
    return inner != nullptr ? find_value(*inner, name.substr(dot + 1)) : nullptr;
}

std::uint64_t number_in(const value* v) noexcept {
    const auto* const n = v != nullptr ? std::get_if<std::uint64_t>(&v->is) : nullptr;
    return n != nullptr ? *n : 0;
}

} // namespace esplane::xfrm
