// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tun.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

namespace esplane::fastpath {

namespace {

constexpr const char* tun_device = "/dev/net/tun";

/// `name` fits.
ifreq request_for(const std::string& name) {
    ifreq r{};
    std::memcpy(r.ifr_name, name.data(), name.size());
    return r;
}

/// The kernel's dev_valid_name(), and no pattern: it would choose the name.
bool is_name(const std::string& name) {
    return !name.empty() && name.size() < IF_NAMESIZE && name != "." && name != ".." &&
           std::none_of(name.begin(), name.end(), [](char c) {
               return c == '/' || c == ':' || c == '%' ||
                      std::isspace(static_cast<unsigned char>(c)) != 0;
           });
}

std::string name_of(int ifindex) {
    char name[IF_NAMESIZE] = "";
    return ::if_indextoname(static_cast<unsigned>(ifindex), name) != nullptr ? name : "";
}

tl::unexpected<error> cannot_open() {
    if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        return fail(ENOENT, std::string(tun_device) + ": not there: modprobe tun");
    if (errno == EPERM || errno == EACCES)
        return fail(EPERM, std::string(tun_device) + ": not permitted: run esplaned as root");
    return fail_errno(tun_device);
}

tl::unexpected<error> cannot_attach(const std::string& name) {
    switch (errno) {
    case EPERM:
        return fail(EPERM, name + ": a TUN device takes CAP_NET_ADMIN: run esplaned as root");
    case EBUSY:
        return fail(EBUSY, name + ": another process has this interface: stop that one");
    case EINVAL:
        return fail(EINVAL, name + ": is no TUN device: it was replaced by another");
    default:
        return fail_errno(name);
    }
}

result<void> set_mtu(int socket, const std::string& name, std::uint32_t mtu) {
    ifreq r = request_for(name);
    r.ifr_mtu = static_cast<int>(mtu);
    if (::ioctl(socket, SIOCSIFMTU, &r) != 0)
        return fail_errno(name + ": MTU " + std::to_string(mtu));
    return {};
}

result<void> set_up(int socket, const std::string& name) {
    ifreq r = request_for(name);
    if (::ioctl(socket, SIOCGIFFLAGS, &r) != 0) return fail_errno(name);
    r.ifr_flags = static_cast<short>(r.ifr_flags | IFF_UP);
    if (::ioctl(socket, SIOCSIFFLAGS, &r) != 0) return fail_errno(name + ": up");
    return {};
}

} // namespace

result<unique_fd> tun::attach(const std::string& name) {
    unique_fd fd(::open(tun_device, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd.valid()) return cannot_open();
    ifreq r = request_for(name);
    r.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (::ioctl(fd.get(), TUNSETIFF, &r) != 0) return cannot_attach(name);
    return fd;
}

/// Persistent last: what fails before leaves nothing behind.
result<tun> tun::make(const std::string& name, std::uint32_t mtu) {
    if (!is_name(name))
        return fail(EINVAL, "\"" + name +
                                "\" is no name for an interface: use 1 to 15 letters, digits, "
                                "'-', '_' or '.'");
    if (::if_nametoindex(name.c_str()) != 0)
        return fail(EEXIST, name + ": there is a device of that name: choose another name, or "
                                   "delete it (ip link del)");
    auto fd = attach(name);
    if (!fd) return tl::unexpected(fd.error());
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return fail_errno(name);
    if (auto set = set_mtu(socket.get(), name, mtu); !set) return tl::unexpected(set.error());
    if (auto set = set_up(socket.get(), name); !set) return tl::unexpected(set.error());
    if (::ioctl(fd->get(), TUNSETPERSIST, 1) != 0) return fail_errno(name + ": to keep it");
    return tun(std::move(*fd), static_cast<int>(::if_nametoindex(name.c_str())));
}

result<tun> tun::adopt(int ifindex) {
    const std::string name = name_of(ifindex);
    if (name.empty()) return fail(ENODEV, "the interface is gone");
    auto fd = attach(name);
    if (!fd) return tl::unexpected(fd.error());
    return tun(std::move(*fd), ifindex);
}

result<void> tun::remove(int ifindex) {
    auto device = adopt(ifindex);
    if (!device) return tl::unexpected(device.error());
    device->forsake();
    return {};
}

void tun::forsake() noexcept {
    (void)::ioctl(fd_.get(), TUNSETPERSIST, 0);
}

std::optional<tun_state> state_of_tun(int ifindex) {
    tun_state state;
    state.name = name_of(ifindex);
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (state.name.empty() || !socket.valid()) return std::nullopt;
    ifreq r = request_for(state.name);
    if (::ioctl(socket.get(), SIOCGIFMTU, &r) != 0) return std::nullopt;
    state.mtu = static_cast<std::uint32_t>(r.ifr_mtu);
    if (::ioctl(socket.get(), SIOCGIFFLAGS, &r) != 0) return std::nullopt;
    state.up = (r.ifr_flags & IFF_UP) != 0;
    return state;
}

} // namespace esplane::fastpath
