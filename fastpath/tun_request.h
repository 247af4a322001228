// SPDX-License-Identifier: Apache-2.0
//
// What TUN and TAP devices are asked for with: ioctls on /dev/net/tun that name the interface.
//
// Threads: any.
#pragma once

#include <cstring>
#include <string>

#include <net/if.h>

namespace esplane::fastpath {

inline constexpr const char* tun_device = "/dev/net/tun";

/// `name` fits: it has at most IF_NAMESIZE - 1 characters.
inline ifreq request_for(const std::string& name) {
    ifreq r{};
    std::memcpy(r.ifr_name, name.data(), name.size());
    return r;
}

} // namespace esplane::fastpath
