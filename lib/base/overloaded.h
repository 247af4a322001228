// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace esplane {

/// A function for each alternative of a variant, for std::visit.
template <typename... Cases>
struct overloaded : Cases... {
    using Cases::operator()...;
};
template <typename... Cases>
overloaded(Cases...) -> overloaded<Cases...>;

} // namespace esplane
