// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/lib/uml_guest.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <poll.h>
#include <stdexcept>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace esplane::tests {

namespace {

/// Room for a few hundred frames: what a caller keeps under way must fit.
constexpr int link_buffer_bytes = 4 << 20;

constexpr const char* debian_kernel = "/usr/bin/linux.uml";

[[noreturn]] void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

std::pair<owned_fd, owned_fd> make_link() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends) != 0) throw_errno("socketpair");
    for (const int end : ends) // charged to the sender; the kernel's limit may allow less
        (void)::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &link_buffer_bytes,
                           sizeof link_buffer_bytes);
    (void)::fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return {owned_fd(ends[0]), owned_fd(ends[1])};
}

std::pair<owned_fd, owned_fd> make_pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe");
    return {owned_fd(ends[0]), owned_fd(ends[1])};
}

/// Modules of Debian's guest kernel lie where its modprobe does not look.
std::string init_text(const std::string& directory, const std::string& script) {
    return "#!/bin/sh\n"
           "export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n"
           "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /run\n"
           "mountpoint -q /dev || mount -t devtmpfs dev /dev\n"
           "exec </dev/console >/dev/console 2>&1\n"
           "if [ -d /usr/lib/uml/modules/$(uname -r) ]; then\n"
           "    echo " +
           directory +
           "/modprobe >/proc/sys/kernel/modprobe\n"
           "    " +
           directory +
           "/modprobe -a ipv6 xfrm_user\n"
           "fi\n" +
           script + "\npoweroff -f\n";
}

std::string modprobe_text(const std::string& directory) {
    return "#!/bin/sh\nexec modprobe -d " + directory + " \"$@\"\n";
}

} // namespace

owned_fd& owned_fd::operator=(owned_fd&& other) noexcept {
    if (this != &other) {
        if (fd_ >= 0) ::close(fd_);
        fd_ = other.release();
    }
    return *this;
}

owned_fd::~owned_fd() {
    if (fd_ >= 0) ::close(fd_);
}

int owned_fd::release() noexcept {
    return std::exchange(fd_, -1);
}

scratch_directory::scratch_directory(const std::string& prefix)
    : path_(std::filesystem::temp_directory_path() / (prefix + ".XXXXXX")) {
    if (::mkdtemp(path_.data()) == nullptr) throw_errno("mkdtemp");
}

scratch_directory::~scratch_directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
}

std::string scratch_directory::write(const std::string& name, const std::string& content,
                                     unsigned mode) {
    std::string file = path_ + "/" + name;
    std::ofstream out(file);
    out << content;
    out.close();
    if (!out || ::chmod(file.c_str(), mode) != 0) throw_errno(file.c_str());
    return file;
}

result<std::string> uml_guest::find_kernel() {
    if (const char* named = std::getenv("ESPLANE_UML_KERNEL"); named != nullptr) {
        if (::access(named, X_OK) == 0) return named;
        return fail(ENOENT, std::string("ESPLANE_UML_KERNEL: ") + named + " cannot be run");
    }
    if (::access(debian_kernel, X_OK) != 0)
        return fail(ENOENT, "no guest kernel: apt-get install user-mode-linux, or name one in "
                            "ESPLANE_UML_KERNEL");
    if (::access("/sbin/modprobe", X_OK) != 0)
        return fail(ENOENT, "the guest kernel cannot load its modules: apt-get install kmod");
    return debian_kernel;
}

uml_guest::uml_guest(const std::string& kernel, scratch_directory& scratch, unsigned links,
                     const std::string& script, const std::vector<std::string>& devices,
                     const std::vector<std::string>& options) {
    for (unsigned i = 0; i < links; ++i) {
        auto [here, there] = make_link();
        links_.push_back(std::move(here));
        guest_links_.push_back(std::move(there));
    }
    const std::string& directory = scratch.path();
    std::filesystem::create_directories(directory + "/lib");
    std::filesystem::create_directory_symlink("/usr/lib/uml/modules", directory + "/lib/modules");
    scratch.write("modprobe", modprobe_text(directory), 0755);
    start(kernel, scratch, scratch.write("init", init_text(directory, script), 0755), devices,
          options);
    guest_links_.clear();
}

void uml_guest::start(const std::string& kernel, scratch_directory& scratch,
                      const std::string& init, const std::vector<std::string>& devices,
                      const std::vector<std::string>& options) {
    auto [input, to_guest] = make_pipe();
    auto [from_guest, output] = make_pipe();
    std::vector<std::string> words = {kernel,
                                      "mem=256M",
                                      "rootfstype=hostfs",
                                      "rootflags=/",
                                      "ro",
                                      "init=" + init,
                                      "con=null",
                                      "con0=fd:" + std::to_string(input.get()) +
                                          ",fd:" + std::to_string(output.get()),
                                      "quiet",
                                      "panic=-1",
                                      "uml_dir=" + scratch.path(),
                                      "umid=guest",
                                      "dummy.numdummies=0",
                                      "ifb.numifbs=0"};
    words.insert(words.end(), options.begin(), options.end());
    std::vector<int> inherited = {input.get(), output.get()};
    for (std::size_t i = 0; i < guest_links_.size(); ++i) {
        const int fd = guest_links_[i].get();
        inherited.push_back(fd);
        words.push_back("vec" + std::to_string(i) + ":transport=fd,fd=" + std::to_string(fd) +
                        ",gro=0");
    }
    for (std::size_t i = 0; i < devices.size(); ++i)
        words.push_back("vec" + std::to_string(guest_links_.size() + i) +
                        ":transport=raw,ifname=" + devices[i] + ",depth=128,gro=1");
    std::vector<char*> arguments;
    for (std::string& word : words)
        arguments.push_back(word.data());
    arguments.push_back(nullptr);

    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ < 0) throw_errno("fork");
    if (pid_ == 0) {
        ::setpgid(0, 0); // with its own threads and user processes: one group to end
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(127);
        for (const int fd : inherited)
            ::fcntl(fd, F_SETFD, 0);
        // The guest's memory is an unlinked file there: it wants to be a tmpfs.
        if (::access("/dev/shm", W_OK | X_OK) == 0) ::setenv("TMPDIR", "/dev/shm", 1);
        ::execv(arguments[0], arguments.data());
        ::_exit(127);
    }
    ::setpgid(pid_, pid_);
    console_in_ = std::move(to_guest);
    console_out_ = std::move(from_guest);
}

uml_guest::~uml_guest() {
    if (pid_ <= 0) return;
    ::prctl(PR_SET_CHILD_SUBREAPER, 1); // the guest's processes become ours when it ends
    ::kill(-pid_, SIGKILL);
    while (::waitpid(-pid_, nullptr, 0) > 0) {
    }
}

std::string uml_guest::wait_for(const std::string& line, std::chrono::seconds timeout) {
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    const std::string wanted = "\n" + line + "\n";
    for (;;) {
        const std::size_t at = ("\n" + console_).find(wanted);
        if (at != std::string::npos) {
            std::string before = console_.substr(0, at);
            console_.erase(0, at + line.size() + 1);
            return before;
        }
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
            deadline - std::chrono::steady_clock::now());
        pollfd wait{console_out_.get(), POLLIN, 0};
        char bytes[4096];
        ssize_t n = 0;
        if (left.count() > 0 && ::poll(&wait, 1, static_cast<int>(left.count())) > 0)
            n = ::read(console_out_.get(), bytes, sizeof bytes);
        if (n <= 0)
            throw std::runtime_error(
                "the guest did not say '" + line + "'; its console: " +
                console_.substr(console_.size() - std::min<std::size_t>(console_.size(), 2000)));
        for (ssize_t i = 0; i < n; ++i)
            if (bytes[i] != '\r') console_ += bytes[i];
    }
}

void uml_guest::tell(const std::string& line) {
    const std::string text = line + "\n";
    if (::write(console_in_.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
        throw_errno("the guest's console");
}

} // namespace esplane::tests
