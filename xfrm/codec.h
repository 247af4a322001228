// SPDX-License-Identifier: Apache-2.0
//
// Any XFRM message as a description, and back: what schema.h says it is made of, in order.
//
// Decoding never fails and loses nothing: what fits no form (an attribute that is too short or
// unknown, bytes behind the last one, padding) is kept as bytes in its place, so that
// encode(decode(x)) is x for every x.  It judges nothing: what a message may say is for sa_codec
// and policy_codec, which make SAs and policies of it.
//
// A description may hold keys: its bytes are wiped before they are given back.
#pragma once

#include <optional>
#include <string_view>
#include <variant>
#include <vector>

#include "xfrm/message.h"
#include "xfrm/schema.h"

namespace esplane::xfrm {

struct value;

/// A structure with its fields' values, in the order of its form.
struct record {
    const structure* form = nullptr;
    std::vector<value> values;
};

/// A number in host byte order (its sign in two's complement); the bytes of an address, a text or
/// padding; a structure in the structure.
struct value {
    std::variant<std::uint64_t, datagram, record> is;
};

struct attribute {
    std::uint16_t type = 0;               ///< nla_type, with its flags
    const attribute_form* form = nullptr; ///< nullptr: none is known
    std::vector<record> records;          ///< one at most where the form is not repeated
    datagram rest;                        ///< of the value: the form's tail, or what does not fit
    datagram padding;                     ///< up to the next attribute

    [[nodiscard]] std::uint16_t number() const noexcept {
        return static_cast<std::uint16_t>(type & NLA_TYPE_MASK);
    }
};

struct description {
    nlmsghdr header{};                  ///< nlmsg_len as read; encode() sets what it writes
    const message_form* form = nullptr; ///< nullptr: none is known, all payload is in `rest`
    std::optional<record> fixed;        ///< absent where the message is too short for it
    datagram fixed_padding;
    std::vector<description> request; ///< in an NLMSG_ERROR: the message it answers, if whole
    std::vector<attribute> attributes;
    datagram rest;    ///< of the payload: what is no attribute
    datagram padding; ///< up to the next message
};

/// What one datagram holds.
struct descriptions {
    std::vector<description> messages;
    datagram rest; ///< what is no message
};

[[nodiscard]] descriptions decode(bytes whole);
/// The datagram that decodes to `d`.
[[nodiscard]] datagram encode(const descriptions& d);

/// The value of a field by its name or, in a record in the record, "sel.family".  nullptr where
/// there is none of that name.
[[nodiscard]] const value* find_value(const record& r, std::string_view name) noexcept;
/// The number in a value; 0 where it has none.
[[nodiscard]] std::uint64_t number_in(const value* v) noexcept;

} // namespace esplane::xfrm
