// SPDX-License-Identifier: Apache-2.0
#include "tools/shim.h"

#include <array>
#include <climits>
#include <cstdlib>
#include <elf.h>
#include <fcntl.h>
#include <filesystem>
#include <iostream>
#include <sstream>
#include <unistd.h>

#include "tools/control_socket.h"
#include "tools/run_dir.h"

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

error run_command(const std::string& run_dir, const std::vector<std::string>& command) {
    if (command.empty())
        return {EINVAL, "run: no command: as in esplane run -- ip xfrm state", "command"};
    if (const auto daemon = control_client::connect(run_dir); !daemon) return daemon.error();
    const std::string socket = xfrm_socket_path(run_dir);
    if (::access(socket.c_str(), F_OK) != 0)
        return {
            ENOENT, socket + ": the daemon does not answer XFRM: start it without --xfrm off", {}};
    if (const auto used = use_shim(socket); !used) return used.error();
    if (is_static(command.front()))
        std::cerr << "esplane: " << command.front()
                  << " is statically linked: it talks to the kernel, not to esplane\n";
    std::vector<char*> arguments;
    for (const std::string& argument : command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    error failed = fail_errno(command.front()).value();
    failed.field = "exec";
    return failed;
}

} // namespace esplane::tools
