// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tap.h"

#include <cstring>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "fastpath/tun_request.h"

namespace esplane::fastpath {

namespace {

tl::unexpected<error> cannot_attach_tap(const std::string& name) {
    switch (errno) {
    case EPERM:
        return fail(EPERM, "TAP " + name + ": not permitted: it takes CAP_NET_ADMIN");
    case EBUSY:
        return fail(EBUSY, "TAP " + name + ": another process has it: stop that one");
    case EINVAL:
        return fail(EEXIST, "TAP " + name +
                                ": there is a device of that name of another kind: call the port "
                                "otherwise, or delete it (ip link del)");
    default:
        return fail_errno("TAP " + name);
    }
}

} // namespace

result<tap> tap::open(const std::string& name) {
    if (name.size() >= IF_NAMESIZE)
        return fail(ENAMETOOLONG, "the port's name is its TAP's: use at most 15 characters");
    tap t;
    t.name_ = name;
    t.existed_ = ::if_nametoindex(name.c_str()) != 0;
    t.control_ = unique_fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!t.control_.valid()) return fail_errno("TAP " + name);
    if (auto attached = t.attach(); !attached) return tl::unexpected(attached.error());
    t.ifindex_ = static_cast<int>(::if_nametoindex(name.c_str()));
    return t;
}

result<void> tap::remove(const std::string& name) {
    auto t = open(name);
    if (!t) return tl::unexpected(t.error());
    if (::ioctl(t->queues_.front().get(), TUNSETPERSIST, 0) != 0) return fail_errno("TAP " + name);
    return {};
}

void tap::keep() noexcept {
    (void)::ioctl(queues_.front().get(), TUNSETPERSIST, 1);
}

result<void> tap::serve(const wire::mac_address& mac, std::uint32_t mtu, unsigned lanes) {
    while (queues_.size() < lanes)
        if (auto attached = attach(); !attached) return attached;
    if (auto set = set_mac(mac); !set) return set;
    if (auto set = set_mtu(mtu); !set) return set;
    return set_up();
}

/// One more queue.  A TAP that somebody made without multi_queue has one and no more.
result<void> tap::attach() {
    unique_fd fd(::open(tun_device, O_RDWR | O_NONBLOCK | O_CLOEXEC));
    if (!fd.valid() && errno == ENOENT)
        return fail(ENOENT, std::string(tun_device) +
                                " is missing, the port's twin is a TAP: modprobe tun");
    if (!fd.valid()) return fail_errno(tun_device);
    const auto take = [&] {
        ifreq r = request_for(name_);
        r.ifr_flags =
            static_cast<short>(IFF_TAP | IFF_NO_PI | (multi_queue_ ? IFF_MULTI_QUEUE : 0));
        return ::ioctl(fd.get(), TUNSETIFF, &r) == 0;
    };
    bool taken = take();
    if (!taken && errno == EINVAL && queues_.empty()) {
        multi_queue_ = false;
        taken = take();
    }
    if (!taken && !multi_queue_ && !queues_.empty())
        return fail(EINVAL, "TAP " + name_ + " has one queue, the port has more: make it with " +
                                "'ip tuntap add mode tap multi_queue', or let esplaned make it");
    if (!taken) return cannot_attach_tap(name_);
    queues_.push_back(std::move(fd));
    return {};
}

result<void> tap::set_mac(const wire::mac_address& mac) {
    ifreq r = request_for(name_);
    r.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    std::memcpy(r.ifr_hwaddr.sa_data, mac.data(), mac.size());
    if (::ioctl(control_.get(), SIOCSIFHWADDR, &r) != 0)
        return fail_errno("TAP " + name_ + ": MAC address");
    return {};
}

result<void> tap::set_mtu(std::uint32_t mtu) {
    ifreq r = request_for(name_);
    r.ifr_mtu = static_cast<int>(mtu);
    if (::ioctl(control_.get(), SIOCSIFMTU, &r) != 0)
        return fail_errno("TAP " + name_ + ": MTU " + std::to_string(mtu));
    return {};
}

result<void> tap::set_up() {
    ifreq r = request_for(name_);
    if (::ioctl(control_.get(), SIOCGIFFLAGS, &r) != 0) return fail_errno("TAP " + name_);
    r.ifr_flags = static_cast<short>(r.ifr_flags | IFF_UP);
    if (::ioctl(control_.get(), SIOCSIFFLAGS, &r) != 0) return fail_errno("TAP " + name_ + ": up");
    return {};
}

std::size_t tap::read(unsigned lane, std::span<std::uint8_t> into) noexcept {
    const ssize_t n = ::read(queues_[lane].get(), into.data(), into.size());
    return n > 0 ? static_cast<std::size_t>(n) : 0;
}

bool tap::write(unsigned lane, std::span<const std::uint8_t> frame) noexcept {
    return ::write(queues_[lane].get(), frame.data(), frame.size()) ==
           static_cast<ssize_t>(frame.size());
}

std::optional<std::uint32_t> tap::mtu() const {
    ifreq r = request_for(name_);
    if (::ioctl(control_.get(), SIOCGIFMTU, &r) != 0) return std::nullopt;
    return static_cast<std::uint32_t>(r.ifr_mtu);
}

std::optional<wire::mac_address> tap::mac() const {
    ifreq r = request_for(name_);
    if (::ioctl(control_.get(), SIOCGIFHWADDR, &r) != 0) return std::nullopt;
    wire::mac_address mac;
    std::memcpy(mac.data(), r.ifr_hwaddr.sa_data, mac.size());
    return mac;
}

void tap::set_carrier(bool on) {
    int carrier = on ? 1 : 0;
    (void)::ioctl(queues_.front().get(), TUNSETCARRIER, &carrier);
}

} // namespace esplane::fastpath
