// SPDX-License-Identifier: Apache-2.0
#include "fastpath/link_state.h"

#include <algorithm>
#include <cstring>

#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

/// IFF_RUNNING is what the kernel's operational state says; devices that know none count as up.
link_state link_of(const std::string& device) {
    ifreq r{};
    std::memcpy(r.ifr_name, device.data(), std::min(device.size(), sizeof r.ifr_name - 1));
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (::ioctl(socket.get(), SIOCGIFFLAGS, &r) != 0) return link_state::gone;
    if ((r.ifr_flags & IFF_UP) == 0) return link_state::disabled;
    return (r.ifr_flags & IFF_RUNNING) == 0 ? link_state::no_link : link_state::up;
}

std::string why_down(link_state s, const std::string& device) {
    switch (s) {
    case link_state::gone:
        return "its device is gone";
    case link_state::disabled:
        return "its device is switched off: 'ip link set dev " + device + " up'";
    case link_state::no_link:
        return "its device has no link";
    case link_state::up:
        break;
    }
    return {};
}

std::string why_waiting(unsigned worker) {
    return "worker " + std::to_string(worker) +
           " has not let go of the device that is gone (`esplane workers`)";
}

} // namespace esplane::fastpath
