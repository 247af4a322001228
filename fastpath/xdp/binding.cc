// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/binding.h"

#include <cerrno>

namespace esplane::fastpath {

result<xdp_wish> parse_xdp_wish(std::string_view text) {
    constexpr std::pair<std::string_view, xdp_wish> wishes[] = {
        {"auto", xdp_wish::automatic},
        {"zero-copy", xdp_wish::zero_copy},
        {"copy", xdp_wish::copy},
        {"generic", xdp_wish::generic},
    };
    for (const auto& [name, wish] : wishes)
        if (text == name) return wish;
    return fail(EINVAL,
                "no mode \"" + std::string(text) + "\": choose auto, zero-copy, copy or generic");
}

std::string name_of(xdp_mode program, const binding& b) {
    std::string name = b.zero_copy ? "zero-copy" : program == xdp_mode::native ? "copy" : "generic";
    if (b.multi_buffer) name += ", multi-buffer";
    return name;
}

std::vector<xdp_mode> modes_to_try(xdp_wish wish, bool bond) {
    switch (wish) {
    case xdp_wish::generic:
        return {xdp_mode::generic};
    case xdp_wish::zero_copy:
    case xdp_wish::copy:
        return {xdp_mode::native};
    case xdp_wish::automatic:
        break;
    }
    if (bond) return {xdp_mode::generic};
    return {xdp_mode::native, xdp_mode::generic};
}

std::vector<binding> bindings_to_try(xdp_wish wish, xdp_mode program, bool large_frames) {
    const binding zero_copy{true, large_frames};
    const binding copy{false, large_frames};
    std::vector<binding> ways;
    const bool in_driver = program == xdp_mode::native;
    if (in_driver && (wish == xdp_wish::automatic || wish == xdp_wish::zero_copy))
        ways.push_back(zero_copy);
    if (wish != xdp_wish::zero_copy) ways.push_back(copy);
    return ways;
}

/// What says nothing of the way: somebody has the queue, nobody may, the device is gone or the
/// memory is.  All else is how drivers say that they cannot (EOPNOTSUPP, EINVAL, ENXIO, ...).
bool another_may_do(int code) noexcept {
    switch (code) {
    case EBUSY:
    case EPERM:
    case EACCES:
    case ENODEV:
    case ENOBUFS:
    case EMFILE:
        return false;
    default:
        return true;
    }
}

} // namespace esplane::fastpath
