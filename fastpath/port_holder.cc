// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_holder.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <sys/syscall.h>

namespace esplane::fastpath {

namespace {

namespace fs = std::filesystem;

/// N of "socket:[N]"; 0 for any other descriptor.
std::uint64_t socket_inode(const fs::path& descriptor) {
    constexpr std::string_view before = "socket:[";
    std::error_code failed;
    const std::string target = fs::read_symlink(descriptor, failed).string();
    std::uint64_t inode = 0;
    if (!failed && target.starts_with(before))
        std::from_chars(target.data() + before.size(), target.data() + target.size(), inode);
    return inode;
}

template <typename Do>
void for_each_socket(const fs::path& process, const Do& act) {
    std::error_code failed;
    for (fs::directory_iterator at(process / "fd", failed), end; !failed && at != end;
         at.increment(failed))
        if (const std::uint64_t inode = socket_inode(at->path()); inode != 0)
            act(inode, at->path().filename().string());
}

/// From /proc/net/udp or udp6: "sl: ADDRESS:PORT PEER:PORT st tx:rx tr:tm retr uid timeout inode",
/// numbers in hexadecimal but for the last three.
bool read_line(const std::string& line, std::uint16_t port, port_holder& into) {
    std::istringstream fields(line);
    std::string slot, local, remote, skipped;
    int timeout = 0;
    fields >> slot >> local >> remote;
    for (int i = 0; i < 4; ++i)
        fields >> skipped;
    fields >> into.user >> timeout >> into.inode;
    const auto colon = local.find(':');
    if (!fields || colon == std::string::npos) return false;
    into.any_address = local.find_first_not_of('0') == colon;
    unsigned number = 0;
    std::from_chars(local.data() + colon + 1, local.data() + local.size(), number, 16);
    return number == port && remote.ends_with(":0000");
}

result<unique_fd> copy_descriptor(int process, int descriptor) {
    const unique_fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
    if (!pidfd.valid()) return fail_errno("pidfd_open");
    unique_fd copy(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), descriptor, 0)));
    if (!copy.valid()) return fail_errno("pidfd_getfd (takes CAP_SYS_PTRACE)");
    return copy;
}

std::string command_of(int process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/comm");
    std::string command;
    std::getline(file, command);
    return command;
}

} // namespace

std::vector<port_holder> port_holders(ipsec::family family, std::uint16_t port) {
    std::set<std::uint64_t> own;
    for_each_socket("/proc/self",
                    [&](std::uint64_t inode, const std::string&) { own.insert(inode); });
    std::vector<port_holder> found;
    std::ifstream file(family == ipsec::family::ipv4 ? "/proc/thread-self/net/udp"
                                                     : "/proc/thread-self/net/udp6");
    for (std::string line; std::getline(file, line);)
        if (port_holder one; read_line(line, port, one) && !own.contains(one.inode))
            found.push_back(one);
    return found;
}

result<fetched_socket> fetch_socket(std::uint64_t inode) {
    std::error_code failed;
    for (fs::directory_iterator at("/proc", failed), end; !failed && at != end;
         at.increment(failed)) {
        const std::string name = at->path().filename().string();
        int process = 0, descriptor = -1;
        if (std::from_chars(name.data(), name.data() + name.size(), process).ec != std::errc())
            continue;
        for_each_socket(at->path(), [&](std::uint64_t one, const std::string& number) {
            if (one == inode)
                std::from_chars(number.data(), number.data() + number.size(), descriptor);
        });
        if (descriptor < 0) continue;
        auto fd = copy_descriptor(process, descriptor);
        if (!fd) return tl::unexpected(fd.error());
        return fetched_socket{std::move(*fd), process, command_of(process)};
    }
    return fail(ESRCH, "no process that esplane sees has that socket");
}

} // namespace esplane::fastpath
