// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/device.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_bonding.h>
#include <linux/sockios.h>
#include <net/if_arp.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xdp/xsk.h>

namespace esplane::fastpath {
namespace {

const std::string lock_directory = "/run/esplane-locks";

tl::unexpected<error> fail_taken(const std::string& device, const std::string& who) {
    return fail(EBUSY, device + ": " + who + " uses this device; stop it first");
}

/// Makes the directory if need be.
result<unique_fd> open_lock_directory() {
    const std::string what = lock_directory + ": reserving devices (needs root)";
    if (::mkdir(lock_directory.c_str(), 0700) != 0 && errno != EEXIST) return fail_errno(what);
    unique_fd fd(::open(lock_directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat found {};
    if (!fd.valid() || ::fstat(fd.get(), &found) != 0) return fail_errno(what);
    if (found.st_uid != ::geteuid() || (found.st_mode & 077) != 0)
        return fail(EPERM, lock_directory + ": must be root's alone; remove it");
    return fd;
}

/// Interface indices are counted in each network namespace.
result<std::string> lock_name(int ifindex) {
    struct stat found {};
    if (::stat("/proc/thread-self/ns/net", &found) != 0)
        return fail_errno("/proc/thread-self/ns/net");
    return std::to_string(found.st_ino) + "-" + std::to_string(ifindex);
}

/// The least AF_XDP socket there can be.
class probe {
  public:
    probe()
        : page_(std::aligned_alloc(page_size, page_size), std::free) {
        const xsk_umem_config config{entries, entries, page_size, 0, 0};
        if (page_ != nullptr)
            (void)xsk_umem__create(&umem_, page_.get(), page_size, &fill_, &completion_, &config);
    }
    ~probe() {
        if (socket_ != nullptr) xsk_socket__delete(socket_);
        if (umem_ != nullptr) (void)xsk_umem__delete(umem_);
    }
    probe(const probe&) = delete;
    probe& operator=(const probe&) = delete;

    /// Takes the device's first queue.  Returns 0 or a negative errno value.
    [[nodiscard]] int bind(const std::string& device) {
        xsk_socket_config config{};
        config.rx_size = entries;
        config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
        config.bind_flags = XDP_COPY;
        if (umem_ == nullptr) return -ENOMEM;
        return xsk_socket__create_shared(&socket_, device.c_str(), 0, umem_, &rx_, nullptr, &fill_,
                                         &completion_, &config);
    }

  private:
    static constexpr std::uint32_t entries = 2;
    static constexpr std::uint32_t page_size = 4096;

    std::unique_ptr<void, decltype(&std::free)> page_;
    xsk_ring_prod fill_{};
    xsk_ring_cons completion_{};
    xsk_ring_cons rx_{};
    xsk_umem* umem_ = nullptr;
    xsk_socket* socket_ = nullptr;
};

/// Anything but EBUSY says nothing of other processes; opening the port will name it.
result<void> check_first_queue(const std::string& device) {
    probe p;
    if (retry_while_busy([&] { return p.bind(device); }) != -EBUSY) return {};
    return fail_taken(device, "another process with an AF_XDP socket");
}

} // namespace

result<void> ask_device(unsigned long request, const std::string& device, ifreq& question) {
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return fail_errno("socket");
    std::strncpy(question.ifr_name, device.c_str(), IFNAMSIZ - 1);
    if (::ioctl(socket.get(), request, &question) != 0)
        return fail_errno(device + ": asking about the device");
    return {};
}

result<int> index_of(const std::string& device) {
    const unsigned index = ::if_nametoindex(device.c_str());
    if (index == 0)
        return fail(ENODEV, device + ": no such device; 'ip link' lists those there are");
    return static_cast<int>(index);
}

std::optional<bond> as_bond(const std::string& device) {
    constexpr std::array modes{"balance-rr", "active-backup", "balance-xor", "broadcast",
                               "802.3ad",    "balance-tlb",   "balance-alb"};
    ifbond answer{};
    ifreq question{};
    question.ifr_data = reinterpret_cast<char*>(&answer);
    if (!ask_device(SIOCBONDINFOQUERY, device, question)) return std::nullopt;
    const auto mode = static_cast<std::size_t>(answer.bond_mode);
    return bond{mode < modes.size() ? modes[mode] : "unknown"};
}

result<queue_counts> queues_of(const std::string& device) {
    ethtool_channels channels{};
    channels.cmd = ETHTOOL_GCHANNELS;
    ifreq question{};
    question.ifr_data = reinterpret_cast<char*>(&channels);
    if (auto r = ask_device(SIOCETHTOOL, device, question); !r) {
        if (r.error().code == EOPNOTSUPP) return queue_counts{};
        return tl::unexpected(std::move(r.error()));
    }
    return queue_counts{std::max(channels.rx_count + channels.combined_count, 1u),
                        std::max(channels.tx_count + channels.combined_count, 1u)};
}

result<void> check_ethernet(const std::string& device) {
    ifreq question{};
    if (auto r = ask_device(SIOCGIFHWADDR, device, question); !r) return r;
    if (question.ifr_hwaddr.sa_family == ARPHRD_ETHER) return {};
    return fail(EOPNOTSUPP, device + ": not an Ethernet device; AF_XDP ports need one");
}

result<unique_fd> lock_device(const std::string& device, int ifindex) {
    const auto directory = open_lock_directory();
    if (!directory) return tl::unexpected(directory.error());
    const auto name = lock_name(ifindex);
    if (!name) return tl::unexpected(name.error());
    unique_fd fd(
        ::openat(directory->get(), name->c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (fd.valid() && ::flock(fd.get(), LOCK_EX | LOCK_NB) == 0) return fd;
    if (fd.valid() && errno == EWOULDBLOCK) return fail_taken(device, "another esplaned");
    return fail_errno(device + ": reserving the device in " + lock_directory);
}

result<unique_fd> reserve_device(const std::string& device, int ifindex) {
    auto lock = lock_device(device, ifindex);
    if (!lock) return lock;
    if (auto r = check_first_queue(device); !r) return tl::unexpected(std::move(r.error()));
    return lock;
}

} // namespace esplane::fastpath
