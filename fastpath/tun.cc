// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tun.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "fastpath/offload.h"
#include "fastpath/tun_request.h"

namespace esplane::fastpath {

namespace {

/// Packets or super-packets that wait in a queue of a device, at most.  The kernel's 500 are 5 ms
/// at 100,000 packets/s, less than a worker may wait for its CPU.
constexpr int queue_length = 2000;
/// For headers older than Linux 6.2: TUN_F_USO4 and TUN_F_USO6.
constexpr unsigned offload_udp = 0x20 | 0x40;
constexpr unsigned offload_tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;

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

tl::unexpected<error> bad_name(const std::string& name) {
    return fail(EINVAL, "\"" + name +
                            "\" is no name for an interface: use 1 to 15 letters, digits, "
                            "'-', '_' or '.'");
}

/// kind   flags of TUNSETIFF
result<unique_fd> attach(const std::string& name, int kind) {
    unique_fd fd(::open(tun_device, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd.valid()) return cannot_open();
    ifreq r = request_for(name);
    r.ifr_flags = static_cast<short>(kind);
    if (::ioctl(fd.get(), TUNSETIFF, &r) != 0) return cannot_attach(name);
    return fd;
}

result<void> set_mtu(int socket, const std::string& name, std::uint32_t mtu) {
    ifreq r = request_for(name);
    r.ifr_mtu = static_cast<int>(mtu);
    if (::ioctl(socket, SIOCSIFMTU, &r) != 0)
        return fail_errno(name + ": MTU " + std::to_string(mtu));
    return {};
}

result<void> set_queue_length(int socket, const std::string& name) {
    ifreq r = request_for(name);
    r.ifr_qlen = queue_length;
    if (::ioctl(socket, SIOCSIFTXQLEN, &r) != 0) return fail_errno(name + ": queue length");
    return {};
}

result<void> set_up(int socket, const std::string& name) {
    ifreq r = request_for(name);
    if (::ioctl(socket, SIOCGIFFLAGS, &r) != 0) return fail_errno(name);
    r.ifr_flags = static_cast<short>(r.ifr_flags | IFF_UP);
    if (::ioctl(socket, SIOCSIFFLAGS, &r) != 0) return fail_errno(name + ": up");
    return {};
}

/// Sets a device up that this process has made and attached to by `fd`.  Persistent last: what
/// fails before leaves nothing behind.
result<void> establish(int fd, const std::string& name, std::uint32_t mtu) {
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return fail_errno(name);
    if (auto set = set_mtu(socket.get(), name, mtu); !set) return set;
    if (auto set = set_queue_length(socket.get(), name); !set) return set;
    if (auto set = set_up(socket.get(), name); !set) return set;
    if (::ioctl(fd, TUNSETPERSIST, 1) != 0) return fail_errno(name + ": to keep it");
    return {};
}

/// Whether a process has a queue of the device: one of several queues takes more from anybody.  Of
/// a device that is down it cannot be told.
bool is_taken(const std::string& name) {
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ethtool_value link{};
    link.cmd = ETHTOOL_GLINK;
    ifreq r = request_for(name);
    r.ifr_data = reinterpret_cast<char*>(&link);
    return ::ioctl(socket.get(), SIOCETHTOOL, &r) == 0 && link.data != 0;
}

/// One, where the device is of one queue.
result<std::vector<unique_fd>> attach_queues(const std::string& name, unsigned wanted) {
    int kind = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE;
    std::vector<unique_fd> queues;
    while (queues.size() < wanted) {
        auto queue = attach(name, kind);
        if (queue) {
            queues.push_back(std::move(*queue));
        } else if (queue.error().code == EINVAL && (kind & IFF_MULTI_QUEUE) != 0) {
            kind &= ~IFF_MULTI_QUEUE;
            wanted = 1;
        } else {
            return tl::unexpected(queue.error());
        }
    }
    return queues;
}

/// As much as the kernel knows.
tun_queues::offloads set_offloads(int fd) {
    const auto takes = [fd](unsigned what) {
        return ::ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(what)) == 0;
    };
    if (takes(offload_tcp | offload_udp)) return {.tcp = true, .udp = true};
    if (takes(offload_tcp)) return {.tcp = true, .udp = false};
    return {.tcp = false, .udp = false};
}

} // namespace

result<tun> tun::make(const std::string& name, std::uint32_t mtu) {
    if (!is_name(name)) return bad_name(name);
    if (::if_nametoindex(name.c_str()) != 0)
        return fail(EEXIST, name + ": there is a device of that name: choose another name, or "
                                   "delete it (ip link del)");
    auto fd = attach(name, IFF_TUN | IFF_NO_PI);
    if (!fd) return tl::unexpected(fd.error());
    if (auto set = establish(fd->get(), name, mtu); !set) return tl::unexpected(set.error());
    return tun(std::move(*fd), static_cast<int>(::if_nametoindex(name.c_str())));
}

result<tun> tun::adopt(int ifindex) {
    const std::string name = name_of(ifindex);
    if (name.empty()) return fail(ENODEV, "the interface is gone");
    auto fd = attach(name, IFF_TUN | IFF_NO_PI);
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

result<tun_queues> tun_queues::open(const std::string& name, std::uint32_t mtu, unsigned wanted) {
    if (!is_name(name)) return bad_name(name);
    const bool there = ::if_nametoindex(name.c_str()) != 0;
    if (there && is_taken(name)) {
        errno = EBUSY;
        return cannot_attach(name);
    }
    auto queues = attach_queues(name, wanted);
    if (!queues && there && queues.error().code == EINVAL)
        return fail(EEXIST, name + ": there is a device of that name of another kind: choose "
                                   "another name, or delete it (ip link del)");
    if (!queues) return tl::unexpected(queues.error());
    const int first = queues->front().get(), header = sizeof(offload_header);
    if (::ioctl(first, TUNSETVNETHDRSZ, &header) != 0) return fail_errno(name + ": offload header");
    const offloads passes = set_offloads(first);
    if (auto set = there ? result<void>() : establish(first, name, mtu); !set)
        return tl::unexpected(set.error());
    return tun_queues(std::move(*queues), static_cast<int>(::if_nametoindex(name.c_str())), passes);
}

tun_queues tun_queues::over(std::vector<unique_fd> queues, offloads can) {
    return {std::move(queues), 0, can};
}

result<void> tun_queues::replace_by(tun_queues fresh) {
    if (fresh.size() < size())
        return fail(EBUSY, name_of(fresh.ifindex()) +
                               ": was made anew with fewer queues: delete it (ip link del)");
    for (std::size_t i = 0; i < size(); ++i)
        if (::dup3(fresh.descriptor(i), descriptor(i), O_CLOEXEC) < 0) return fail_errno("TUN");
    ifindex_ = fresh.ifindex_;
    return {};
}

void tun_queues::forsake() noexcept {
    (void)::ioctl(descriptor(0), TUNSETPERSIST, 0);
}

result<void> set_tun_mtu(int ifindex, std::uint32_t mtu) {
    const std::string name = name_of(ifindex);
    if (name.empty()) return fail(ENODEV, "the interface is gone");
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return fail_errno(name);
    return set_mtu(socket.get(), name, mtu);
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
