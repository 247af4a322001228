// SPDX-License-Identifier: Apache-2.0
#include "tools/shim.h"

#include <algorithm>
#include <array>
#include <climits>
#include <cstdlib>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <unistd.h>

#include "tools/control_socket.h"
#include "tools/run_dir.h"
#include "tools/seccomp.h"

namespace esplane::tools {

namespace {

constexpr const char* shim_name = "libesplane-preload.so";

std::string find_program(const std::string& program) {
    if (program.find('/') != std::string::npos) return program;
    const char* path = std::getenv("PATH");
    std::istringstream directories(path != nullptr ? path : "/usr/bin:/bin");
    for (std::string directory; std::getline(directories, directory, ':');) {
        const std::string candidate = (directory.empty() ? "." : directory) + "/" + program;
        if (::access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return {};
}

/// Says whether a 64-bit ELF file names no interpreter; false for whatever else it is.
bool lacks_interpreter(int fd) {
    Elf64_Ehdr file{};
    if (::pread(fd, &file, sizeof file, 0) != sizeof file ||
        !std::equal(file.e_ident, file.e_ident + SELFMAG, ELFMAG) ||
        file.e_ident[EI_CLASS] != ELFCLASS64 || file.e_phentsize != sizeof(Elf64_Phdr))
        return false;
    for (unsigned i = 0; i < file.e_phnum; ++i) {
        Elf64_Phdr segment{};
        const auto at = static_cast<off_t>(file.e_phoff + i * sizeof segment);
        if (::pread(fd, &segment, sizeof segment, at) != sizeof segment) return false;
        if (segment.p_type == PT_INTERP) return false;
    }
    return true;
}

} // namespace

result<std::string> find_shim() {
    std::error_code code;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", code);
    const std::array<std::filesystem::path, 2> places{
        self.parent_path() / "preload" / shim_name,
        std::filesystem::path(ESPLANE_SHIM_DIR) / shim_name,
    };
    for (const auto& place : places) {
        if (::access(place.c_str(), R_OK) != 0) continue;
        if (place.string().find_first_of(" :") != std::string::npos)
            return fail(EINVAL, place.string() + ": LD_PRELOAD takes no path with a space or a "
                                                 "colon: build or install elsewhere");
        return place.string();
    }
    return fail(ENOENT, std::string(shim_name) + " is neither in " +
                            places[0].parent_path().string() +
                            " nor in " ESPLANE_SHIM_DIR ": build it (ninja) or install esplane");
}

result<void> use_shim(const std::string& xfrm_socket) {
    auto shim = find_shim();
    if (!shim) return tl::unexpected(shim.error());
    std::array<char, PATH_MAX> absolute{}; // the command may change its directory
    if (::realpath(xfrm_socket.c_str(), absolute.data()) == nullptr) return fail_errno(xfrm_socket);
    if (const char* others = std::getenv("LD_PRELOAD"); others != nullptr && *others != '\0')
        *shim += ":" + std::string(others);
    ::setenv("LD_PRELOAD", shim->c_str(), 1);
    ::setenv("ESPLANE_XFRM_SOCKET", absolute.data(), 1);
    return {};
}

bool is_static(const std::string& program) {
    const std::string path = find_program(program);
    const unique_fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return fd.valid() && lacks_interpreter(fd.get());
}

std::string confining_profile(const std::string& program, const std::string& folder) {
    std::error_code code;
    const auto path = std::filesystem::canonical(find_program(program), code);
    if (code) return {};
    std::string name = path.string().substr(1);
    std::ranges::replace(name, '/', '.');
    if (!std::filesystem::exists(folder + "/" + name, code) ||
        std::filesystem::exists(folder + "/disable/" + name, code))
        return {};
    std::ifstream local(folder + "/local/" + name);
    const std::string rules{std::istreambuf_iterator<char>(local), {}};
    return rules.find("abstractions/esplane") == std::string::npos ? name : "";
}

namespace {

bool apparmor_is_on() {
    char answer = 'N';
    std::ifstream("/sys/module/apparmor/parameters/enabled") >> answer;
    return answer == 'Y';
}

/// What will keep the shim from its work, in a line on stderr.
void warn_of_hindrances(const std::string& program) {
    if (is_static(program))
        std::cerr << "esplane: " << program
                  << " is statically linked: it talks to the kernel, not to esplane.  Use esplane "
                     "run --seccomp\n";
    if (const std::string profile = confining_profile(program);
        !profile.empty() && apparmor_is_on())
        std::cerr << "esplane: AppArmor keeps " << program
                  << " from loading the shim: install esplane's rules as /etc/apparmor.d/local/"
                  << profile << " (doc/clients.md)\n";
}

/// The path of the XFRM socket, where a daemon serves it and there is a command.
result<std::string> check_run(const std::string& run_dir, const std::vector<std::string>& command) {
    if (command.empty())
        return fail(EINVAL, "run: no command: as in esplane run -- ip xfrm state", "command");
    if (const auto daemon = control_client::connect(run_dir); !daemon)
        return tl::unexpected(daemon.error());
    std::string socket = xfrm_socket_path(run_dir);
    if (::access(socket.c_str(), F_OK) != 0)
        return fail(ENOENT,
                    socket + ": the daemon does not answer XFRM: start it without --xfrm off");
    return socket;
}

} // namespace

error run_command(const std::string& run_dir, const std::vector<std::string>& command) {
    const auto socket = check_run(run_dir, command);
    if (!socket) return socket.error();
    if (const auto used = use_shim(*socket); !used) return used.error();
    warn_of_hindrances(command.front());
    std::vector<char*> arguments;
    for (const std::string& argument : command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    error failed = fail_errno(command.front()).value();
    failed.field = "exec";
    return failed;
}

result<int> run_supervised_command(const std::string& run_dir,
                                   const std::vector<std::string>& command) {
    const auto socket = check_run(run_dir, command);
    if (!socket) return tl::unexpected(socket.error());
    return run_supervised(*socket, command);
}

} // namespace esplane::tools
