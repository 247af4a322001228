// SPDX-License-Identifier: Apache-2.0
//
// A description of a message for people and for other programs: a tree of names, words and numbers,
// by the kernel's names.
//
// Keys are never in it, only their length; nor are bytes that fit no form, which could hold one.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "xfrm/codec.h"

namespace esplane::xfrm {

struct printed;
/// What has parts, by name.
using printed_fields = std::vector<printed>;
/// What there are several of, by place; their names are empty.
struct printed_list {
    std::vector<printed> items;
};

struct printed {
    std::string name;
    std::variant<std::uint64_t, std::int64_t, std::string, printed_fields, printed_list> is;
};

struct printed_message {
    std::string type;   ///< "XFRM_MSG_NEWSA"; a number where it has no name
    printed_list flags; ///< "REQUEST", "ACK", ...: what they mean for that type
    std::uint32_t length = 0;
    std::uint32_t sequence = 0;
    std::uint32_t port_id = 0;
    printed_fields fixed;
    std::vector<printed> attributes;      ///< each by its name, in order
    std::vector<printed_message> request; ///< that an NLMSG_ERROR answers, where it is whole
    std::size_t unknown_bytes = 0;        ///< in the message, that are no attribute
};

[[nodiscard]] printed_message print(const description& d);
/// "XFRMA_TFCPAD"; "XFRMA_99" for a number without a name.
[[nodiscard]] std::string attribute_name(const attribute& a);

} // namespace esplane::xfrm
