// SPDX-License-Identifier: Apache-2.0
//
// Messages that were asked or heard, taken apart: what they are, where their parts lie, as text.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tests/interop/xfrm_oracle_session.h"

namespace esplane::tests::oracle {

/// One message that was heard, or asked.
struct item {
    std::uint32_t group = 0;
    nlmsghdr header{};
    std::vector<std::uint8_t> payload;
    std::uint32_t at_ms = 0;
    bool later = false;

    /// Whenever they came.
    friend bool operator==(const item& a, const item& b) {
        return a.group == b.group && a.header.nlmsg_type == b.header.nlmsg_type &&
               a.header.nlmsg_flags == b.header.nlmsg_flags &&
               a.header.nlmsg_seq == b.header.nlmsg_seq &&
               a.header.nlmsg_pid == b.header.nlmsg_pid && a.payload == b.payload;
    }
};

/// Neither an error nor the end of a dump.
[[nodiscard]] bool is_reply(const item& i);

struct layout {
    const char* name;
    std::size_t fixed; ///< bytes before the attributes
};
[[nodiscard]] std::optional<layout> layout_of(std::uint16_t type);
[[nodiscard]] std::string type_name(std::uint16_t type);
/// Whether its attributes are not those of enum xfrm_attr_type_t.
[[nodiscard]] bool own_attributes(std::uint16_t type);
[[nodiscard]] std::string name_of_attribute(std::uint16_t message, std::uint16_t type);

/// An attribute and where its value lies in the payload.
struct placed_attribute {
    std::uint16_t type = 0;
    std::size_t at = 0;
    std::size_t length = 0;
};
/// Of what begins at `from` in `payload`.
[[nodiscard]] std::vector<placed_attribute> attributes_at(xfrm::bytes payload, std::size_t from);
/// Those of a message of that type.
[[nodiscard]] std::vector<placed_attribute> attributes_of(std::uint16_t type, xfrm::bytes payload);

/// What an error, or the end of a dump, says.
struct verdict {
    std::int32_t code = 0; ///< 0, or a negative errno
    std::string text;
    std::optional<std::uint32_t> offset;
    std::uint16_t request = 0; ///< nlmsg_type of what it answers
};
[[nodiscard]] verdict verdict_of(const item& i);
/// Where in it the words begin: what comes before is the code and the echo of the request.
[[nodiscard]] std::size_t words_at(const item& i);
[[nodiscard]] std::string describe(const verdict& v);
/// Without numbers that depend on the request.
[[nodiscard]] std::string kind_of(const verdict& v);

[[nodiscard]] std::vector<xfrm::message> messages_of(const question& q);
/// The request in `q` that an item is about.
[[nodiscard]] std::string request_name(const question& q, const item& i);

// As text
[[nodiscard]] std::string name_of(const item& i);
[[nodiscard]] std::string show(const question& q);
[[nodiscard]] std::string show(const std::vector<item>& items);

} // namespace esplane::tests::oracle
