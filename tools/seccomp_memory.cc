// SPDX-License-Identifier: Apache-2.0
#include "tools/seccomp_memory.h"

#include <climits>
#include <fcntl.h>
#include <fstream>
#include <linux/capability.h>
#include <sstream>
#include <string>
#include <sys/stat.h>
#include <sys/syscall.h>

namespace esplane::tools {
namespace {

std::string path_of(pid_t thread, const std::string& what) {
    return "/proc/" + std::to_string(thread) + "/" + what;
}

/// The number behind "Name:" in /proc/…/status.
std::uint64_t status_field(pid_t thread, const std::string& name, int base) {
    std::ifstream file(path_of(thread, "status"));
    for (std::string line; std::getline(file, line);)
        if (line.starts_with(name + ":"))
            return std::strtoull(line.c_str() + name.size() + 1, nullptr, base);
    return 0;
}

unique_fd open_thread(pid_t thread) {
    constexpr unsigned thread_flag = O_EXCL; // PIDFD_THREAD of Linux 6.9
    unique_fd fd(static_cast<int>(::syscall(SYS_pidfd_open, thread, thread_flag)));
    if (fd.valid()) return fd;
    return unique_fd(
        static_cast<int>(::syscall(SYS_pidfd_open, status_field(thread, "Tgid", 10), 0)));
}

/// Capabilities count in the user namespace of whoever has them.
bool shares_user_namespace(pid_t thread) {
    struct stat ours {
    }, theirs{};
    return ::stat("/proc/self/ns/user", &ours) == 0 &&
           ::stat(path_of(thread, "ns/user").c_str(), &theirs) == 0 &&
           ours.st_ino == theirs.st_ino && ours.st_dev == theirs.st_dev;
}

} // namespace

std::size_t length_of(const std::vector<iovec>& pieces) noexcept {
    std::size_t length = 0;
    for (const iovec& piece : pieces)
        length = piece.iov_len > SIZE_MAX - length ? SIZE_MAX : length + piece.iov_len;
    return length;
}

bool client_memory::read(std::uint64_t at, void* into, std::size_t length) const {
    const iovec here{into, length}, there{reinterpret_cast<void*>(at), length};
    return length == 0 ||
           ::process_vm_readv(thread_, &here, 1, &there, 1, 0) == static_cast<ssize_t>(length);
}

bool client_memory::write(std::uint64_t at, const void* from, std::size_t length) const {
    const iovec here{const_cast<void*>(from), length}, there{reinterpret_cast<void*>(at), length};
    return length == 0 ||
           ::process_vm_writev(thread_, &here, 1, &there, 1, 0) == static_cast<ssize_t>(length);
}

bool client_memory::read_pieces(std::uint64_t at, std::uint64_t count,
                                std::vector<iovec>& pieces) const {
    if (count > IOV_MAX) return false;
    pieces.resize(count);
    return read(at, pieces.data(), pieces.size() * sizeof(iovec));
}

bool client_memory::gather(const std::vector<iovec>& pieces, std::span<std::uint8_t> into) const {
    const iovec here{into.data(), into.size()};
    return into.empty() || ::process_vm_readv(thread_, &here, 1, pieces.data(), pieces.size(), 0) ==
                               static_cast<ssize_t>(into.size());
}

bool client_memory::scatter(const std::vector<iovec>& pieces,
                            std::span<const std::uint8_t> from) const {
    for (const iovec& piece : pieces) {
        const std::size_t length = std::min(piece.iov_len, from.size());
        if (!write(reinterpret_cast<std::uint64_t>(piece.iov_base), from.data(), length))
            return false;
        from = from.subspan(length);
    }
    return true;
}

unique_fd client_memory::borrow(int fd) const {
    const unique_fd process = open_thread(thread_);
    return unique_fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), fd, 0)));
}

bool client_memory::has_descriptor(int fd) const {
    return ::faccessat(AT_FDCWD, path_of(thread_, "fd/" + std::to_string(fd)).c_str(), F_OK,
                       AT_SYMLINK_NOFOLLOW) == 0;
}

pid_t client_memory::process() const {
    return static_cast<pid_t>(status_field(thread_, "Tgid", 10));
}

std::optional<uid_t> client_memory::user() const {
    std::ifstream status(path_of(thread_, "status"));
    for (std::string line; std::getline(status, line);) { // its name may hold any words
        if (!line.starts_with("Uid:")) continue;
        std::istringstream numbers(line.substr(4));
        uid_t real = 0, effective = 0;
        if (numbers >> real >> effective) return effective;
    }
    return std::nullopt;
}

bool client_memory::is_net_admin() const {
    return shares_user_namespace(thread_) &&
           (status_field(thread_, "CapEff", 16) >> CAP_NET_ADMIN & 1) != 0;
}

bool client_memory::has_signal() const {
    const std::uint64_t pending =
        status_field(thread_, "SigPnd", 16) | status_field(thread_, "ShdPnd", 16);
    return (pending & ~status_field(thread_, "SigBlk", 16) &
            ~status_field(thread_, "SigIgn", 16)) != 0;
}

} // namespace esplane::tools
