// SPDX-License-Identifier: Apache-2.0
#include "xfrm/message.h"

#include <algorithm>

namespace esplane::xfrm {

std::optional<message> next_message(bytes& rest) noexcept {
    const auto header = read_fixed<nlmsghdr>(rest);
    if (!header || header->nlmsg_len < NLMSG_HDRLEN || header->nlmsg_len > rest.size())
        return std::nullopt;
    const message m{*header, rest.first(header->nlmsg_len)};
    rest = rest.subspan(std::min<std::size_t>(aligned(header->nlmsg_len), rest.size()));
    return m;
}

message_writer::message_writer(datagram& into, std::uint16_t type, std::uint16_t flags,
                               std::uint32_t sequence, std::uint32_t port_id)
    : into_(into)
    , start_(into.size()) {
    fixed(nlmsghdr{0, type, flags, sequence, port_id});
}

void message_writer::append(bytes value) {
    into_.insert(into_.end(), value.begin(), value.end());
}

void message_writer::raw(bytes value) {
    append(value);
    into_.resize(aligned(into_.size()));
}

void message_writer::attribute_bytes(std::uint16_t type, bytes value) {
    const nlattr head{static_cast<std::uint16_t>(sizeof(nlattr) + value.size()), type};
    append({reinterpret_cast<const std::uint8_t*>(&head), sizeof head});
    raw(value);
}

void message_writer::finish() {
    const auto length = static_cast<std::uint32_t>(into_.size() - start_);
    std::memcpy(into_.data() + start_, &length, sizeof length);
}

} // namespace esplane::xfrm
