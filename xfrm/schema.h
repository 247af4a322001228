// SPDX-License-Identifier: Apache-2.0
//
// What XFRM messages are made of: each structure's fields, each attribute's and each message's
// form.  Decoding, encoding (codec.h) and printing (print.h) follow from these tables; a message or
// an attribute that is not here does not exist for them.
//
// Sizes and offsets are those of the kernel's headers, taken by the compiler.  Gaps are fields too:
// every byte of a structure belongs to exactly one, which is checked when this is compiled.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "xfrm/uapi.h"

namespace esplane::xfrm {

enum class field_kind : std::uint8_t {
    number,   ///< unsigned, 1 to 8 bytes, host byte order
    integer,  ///< the same with a sign: an interface, a negative errno
    limit,    ///< a number of which the largest is "no limit"
    mask,     ///< a number to be shown in hexadecimal
    port,     ///< big-endian
    spi,      ///< big-endian, to be shown in hexadecimal
    word,     ///< a number whose values have names
    bits,     ///< a number whose bits have names
    address,  ///< 16 bytes; what they mean depends on a family
    text,     ///< characters up to a NUL or the end
    record,   ///< another structure
    reserved, ///< padding, and what the kernel keeps for later
};

/// The name of a value of a `word` or of a bit of `bits`.
struct value_name {
    std::uint32_t value;
    std::string_view name;
};

struct structure;

struct field {
    std::string_view name; ///< the kernel's; empty where the structure is this one value
    std::uint16_t offset;
    std::uint16_t size;
    field_kind kind;
    std::span<const value_name> names = {}; ///< of word and bits
    const structure* inner = nullptr;       ///< of record
    /// Of an address whose family is not the structure's: the field that has it.
    std::string_view family = {};
};

struct structure {
    std::string_view name;
    std::uint16_t size;
    std::span<const field> fields; ///< in order, without gaps
    /// Where the family of its addresses is, "sel.family"; if it is not there, then in the
    /// structure around.
    std::string_view family = "family";
};

/// What may follow the structures of an attribute.
enum class tail_kind : std::uint8_t {
    none,
    key,  ///< never shown
    text, ///< characters; perhaps with a NUL
    words ///< numbers of 32 bits: a bitmap
};

struct attribute_form {
    std::uint16_t type;
    std::string_view name;              ///< the kernel's
    const structure* content = nullptr; ///< nullptr: a flag, padding, or only a tail
    bool repeated = false;              ///< as many of `content` as there is room for
    tail_kind tail = tail_kind::none;
};

struct message_form {
    std::uint16_t type;
    std::string_view name;                      ///< the kernel's
    const structure* fixed = nullptr;           ///< in front of the attributes
    std::span<const attribute_form> space = {}; ///< which attributes; index = type
    bool carries_request = false; ///< between fixed part and attributes: the message it answers
};

/// The form of a message with this header; nullptr for a type that XFRM does not have.
[[nodiscard]] const message_form* find_message(const nlmsghdr& header) noexcept;
/// nullptr for one that has no such type.
[[nodiscard]] const attribute_form* find_attribute(std::span<const attribute_form> space,
                                                   std::uint16_t type) noexcept;
/// XFRMA_*: those of SAs and policies.
[[nodiscard]] std::span<const attribute_form> xfrm_attributes() noexcept;

} // namespace esplane::xfrm
