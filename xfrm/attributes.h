// SPDX-License-Identifier: Apache-2.0
//
// The attributes of an XFRM request: found, length-checked, and refused by name where esplane does
// not carry them.  Dropping one silently could widen what an SA matches.
#pragma once

#include <array>
#include <optional>
#include <string>

#include "lib/base/result.h"
#include "xfrm/message.h"

namespace esplane::xfrm {

/// "XFRMA_TFCPAD"; "XFRMA_99" for a number without a name.
[[nodiscard]] std::string attribute_name(std::uint16_t type);
/// The refusal of an attribute: EOPNOTSUPP with its name.
[[nodiscard]] tl::unexpected<error> not_carried(std::uint16_t type);

/// Attributes of one message, which they point into.
class attributes {
  public:
    /// Those behind a fixed part of `fixed` bytes (0 for a dump request).
    ///
    /// Errors, as nlmsg_parse and xfrma_policy give them: ERANGE for an attribute that is too short
    /// or a direction that is none, EINVAL for a direction of the wrong length; and EOPNOTSUPP for
    /// one that is not carried.  `field` names the attribute.
    ///
    /// strict   one that Linux 6.18 does not know is not carried either; else it is passed over
    [[nodiscard]] static result<attributes> parse(const message& m, std::size_t fixed,
                                                  bool strict = true);

    [[nodiscard]] bool has(std::uint16_t type) const noexcept {
        return get(type).data() != nullptr;
    }
    /// The value; no data where the attribute is absent.  Of several of one type the last counts.
    [[nodiscard]] bytes get(std::uint16_t type) const noexcept {
        return type < values_.size() ? values_[type] : bytes{};
    }
    template <typename T>
    [[nodiscard]] std::optional<T> load(std::uint16_t type) const noexcept {
        return read_fixed<T>(get(type));
    }

  private:
    std::array<bytes, xfrma_iptfs_pkt_size + 1> values_{};
};

/// Calls visit(type, value) for each attribute in `rest` until it returns false.  Stops, as the
/// kernel does, at one whose length cannot be.
template <typename Visit>
void for_each_attribute(bytes rest, Visit&& visit) {
    while (const auto head = read_fixed<nlattr>(rest)) {
        if (head->nla_len < sizeof(nlattr) || head->nla_len > rest.size()) return;
        const auto type = static_cast<std::uint16_t>(head->nla_type & NLA_TYPE_MASK);
        if (!visit(type, rest.subspan(sizeof(nlattr), head->nla_len - sizeof(nlattr)))) return;
        rest = rest.subspan(std::min<std::size_t>(aligned(head->nla_len), rest.size()));
    }
}

/// Whether something lies behind the last attribute that is none: the kernel says so, whatever else
/// it answers.
[[nodiscard]] bool has_leftover(const message& m, std::size_t fixed);

/// Bytes from the start of the message to the attribute of that name, for NLMSGERR_ATTR_OFFS;
/// nullopt where it has none.
[[nodiscard]] std::optional<std::uint32_t> attribute_offset(const message& m, std::size_t fixed,
                                                            const std::string& name);

} // namespace esplane::xfrm
