// SPDX-License-Identifier: Apache-2.0
#include "fastpath/dpdk/eal.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <mutex>
#include <sched.h>
#include <sstream>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_log.h>

#include "lib/base/unique_fd.h"

namespace esplane::fastpath {

namespace {

/// What of EAL's log a step is judged by.  Its own threads log too.
struct log_memory {
    std::mutex lock;
    std::string first_error;
};

log_memory& logged() {
    static log_memory memory;
    return memory;
}

/// Lines that say only that something failed; the reason stands before or after them.
bool says_nothing(std::string_view line) {
    return line.find("Failed to attach device") != line.npos ||
           line.find("Driver cannot attach the device") != line.npos;
}

std::string trimmed(std::string_view line) {
    constexpr std::string_view prefix = "EAL: ";
    if (line.starts_with(prefix)) line.remove_prefix(prefix.size());
    constexpr std::string_view fatal = "FATAL: ";
    if (line.starts_with(fatal)) line.remove_prefix(fatal.size());
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0)
        line.remove_suffix(1);
    return std::string(line);
}

ssize_t take_log(void*, const char* text, std::size_t length) {
    log_memory& memory = logged();
    const std::string_view line(text, length);
    if (rte_log_cur_msg_loglevel() > static_cast<int>(RTE_LOG_ERR) || says_nothing(line))
        return static_cast<ssize_t>(length);
    const std::lock_guard held(memory.lock);
    if (memory.first_error.empty()) memory.first_error = trimmed(line);
    return static_cast<ssize_t>(length);
}

void take_over_log() {
    static FILE* stream = nullptr;
    if (stream != nullptr) return;
    cookie_io_functions_t functions{};
    functions.write = take_log;
    stream = ::fopencookie(nullptr, "w", functions);
    if (stream == nullptr) return;
    ::setvbuf(stream, nullptr, _IONBF, 0);
    (void)::rte_openlog_stream(stream);
}

/// Stands in for stdout and stderr: getopt, usage texts and libraries of drivers print there.
class printed {
  public:
    printed()
        : file_(::memfd_create("printed", MFD_CLOEXEC)) {
        std::fflush(stdout);
        for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
            kept_[fd - 1] = unique_fd(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
            if (file_.valid() && kept_[fd - 1].valid()) ::dup2(file_.get(), fd);
        }
    }
    ~printed() {
        std::fflush(stdout);
        for (const int fd : {STDOUT_FILENO, STDERR_FILENO})
            if (kept_[fd - 1].valid()) ::dup2(kept_[fd - 1].get(), fd);
    }
    printed(const printed&) = delete;
    printed& operator=(const printed&) = delete;

    [[nodiscard]] std::string first_line() const {
        char text[512];
        const ssize_t n = ::pread(file_.get(), text, sizeof text, 0);
        const std::string_view all(text, n > 0 ? static_cast<std::size_t>(n) : 0);
        return trimmed(all.substr(0, all.find('\n')));
    }

  private:
    unique_fd file_;
    unique_fd kept_[2];
};

bool names(const std::string& argument, std::string_view option) {
    if (option.size() == 2) return argument.starts_with(option); // -m 64, -m64
    return argument == option || argument.starts_with(std::string(option) + "=");
}

bool speaks_of(const std::vector<std::string>& arguments,
               std::initializer_list<std::string_view> options) {
    return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& a) {
        return std::any_of(options.begin(), options.end(),
                           [&](std::string_view o) { return names(a, o); });
    });
}

std::vector<std::string> words_of(const std::string& text) {
    std::istringstream in(text);
    return {std::istream_iterator<std::string>(in), {}};
}

/// Bytes of huge pages that nobody has or is promised, of all sizes.
std::uint64_t free_hugepages() {
    namespace fs = std::filesystem;
    std::uint64_t bytes = 0;
    std::error_code none;
    for (const auto& entry : fs::directory_iterator("/sys/kernel/mm/hugepages", none)) {
        std::uint64_t kib = 0, pages = 0, promised = 0;
        if (std::sscanf(entry.path().filename().c_str(), "hugepages-%lukB", &kib) != 1) continue;
        std::ifstream(entry.path() / "free_hugepages") >> pages;
        std::ifstream(entry.path() / "resv_hugepages") >> promised;
        bytes += (pages - std::min(pages, promised)) * kib * 1024;
    }
    return bytes;
}

/// EAL pins the thread that starts it; that is not its business here.
class kept_affinity {
  public:
    kept_affinity() { known_ = ::sched_getaffinity(0, sizeof set_, &set_) == 0; }
    ~kept_affinity() {
        if (known_) (void)::sched_setaffinity(0, sizeof set_, &set_);
    }
    kept_affinity(const kept_affinity&) = delete;
    kept_affinity& operator=(const kept_affinity&) = delete;

    [[nodiscard]] unsigned first_cpu() const noexcept {
        for (unsigned cpu = 0; known_ && cpu < CPU_SETSIZE; ++cpu)
            if (CPU_ISSET(cpu, &set_)) return cpu;
        return 0;
    }

  private:
    cpu_set_t set_;
    bool known_ = false;
};

/// Whether a path is a socket's that nobody listens on any more.
bool is_dead_socket(const std::string& path) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (path.empty() || path[0] != '/' || path.size() >= sizeof name.sun_path) return false;
    path.copy(name.sun_path, path.size());
    struct stat what {}; // connect() refuses any file alike
    if (::lstat(path.c_str(), &what) != 0 || !S_ISSOCK(what.st_mode)) return false;
    const unique_fd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    return fd.valid() &&
           ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name) != 0 &&
           errno == ECONNREFUSED;
}

/// A process that is killed leaves its sockets, and memif and vhost do not listen where one is.
void remove_dead_sockets(const std::string& arguments) {
    std::istringstream all(arguments);
    for (std::string argument; std::getline(all, argument, ',');) {
        const std::string value = argument.substr(argument.find('=') + 1);
        if (is_dead_socket(value)) (void)::unlink(value.c_str());
    }
}

tl::unexpected<error> cannot_start(const error& e, const eal_options& o) {
    std::string text = "DPDK does not start: " + e.text;
    if (!o.arguments.empty()) text += " (with --eal \"" + o.arguments + "\")";
    if (text.find("hugepage") != std::string::npos)
        text += ": reserve huge pages (/proc/sys/vm/nr_hugepages), or say --no-huge";
    else if (e.text.find("memory") != std::string::npos)
        text += ": free some, or ask for what there is, as in --eal \"--no-huge -m 128\"";
    return fail(e.code, text, "eal");
}

/// What to do about a device that DPDK does not take; "" where its words are enough.
std::string advice_on(const std::string& said, const std::string& device) {
    const auto says = [&](const char* words) { return said.find(words) != std::string::npos; };
    if (says("failed to parse device"))
        return ": no driver has such a name; they are like net_memif0 and 0000:3b:00.0";
    if (says("Cannot find device") || says("cannot attach the device"))
        return ": see that it is there (lspci) and bound: dpdk-devbind.py -b vfio-pci " + device;
    return {};
}

std::string without_hugepages(const eal_options& o) {
    return "DPDK runs without huge pages: echo " + std::to_string(o.memory_mib / 2) +
           " >/proc/sys/vm/nr_hugepages before the start makes it faster";
}

} // namespace

std::vector<std::string> eal_command_line(const eal_options& o, const eal_surroundings& s) {
    const std::vector<std::string> own = words_of(o.arguments);
    std::vector<std::string> line = {"esplaned"};
    const auto add = [&](std::initializer_list<std::string> words) {
        line.insert(line.end(), words);
    };
    if (!speaks_of(own, {"-l", "-c", "-s", "--lcores"})) add({"-l", std::to_string(s.cpu)});
    if (!speaks_of(own, {"--no-telemetry", "--telemetry"})) add({"--no-telemetry"});
    if (!speaks_of(own, {"--no-huge", "--in-memory", "--legacy-mem", "--huge-dir", "--huge-unlink",
                         "--file-prefix", "--proc-type", "--socket-mem", "-m"})) {
        // All of it at the start: overload must not ask for memory, and a memif that has shared its
        // memory without a copy leaves EAL unable to get more.
        if (s.hugepages)
            add({"--in-memory"});
        else
            add({"--no-huge", "--no-shconf"});
        add({"-m", std::to_string(o.memory_mib)});
    }
    if (!speaks_of(own, {"--no-pci", "--allow", "--block", "-a", "-b"})) {
        if (o.pci_functions.empty()) add({"--no-pci"});
        for (const std::string& function : o.pci_functions)
            add({"-a", function});
    }
    line.insert(line.end(), own.begin(), own.end());
    return line;
}

result<void> quietly(int (*step)(void* context), void* context) {
    take_over_log();
    log_memory& memory = logged();
    {
        const std::lock_guard held(memory.lock);
        memory.first_error.clear();
    }
    const printed output;
    const int code = std::abs(step(context));
    if (code == 0) return {};
    const std::lock_guard held(memory.lock);
    std::string text = memory.first_error.empty() ? output.first_line() : memory.first_error;
    if (text.empty()) text = std::strerror(code);
    return fail(code, text);
}

result<std::string> start_eal(const eal_options& o) {
    static bool started = false;
    if (started) return std::string();
    const kept_affinity affinity;
    const bool huge = free_hugepages() >= std::uint64_t{o.memory_mib} << 20;
    // EAL keeps pointers into its arguments.
    static std::vector<std::string> line;
    line = eal_command_line(o, {huge, affinity.first_cpu()});
    std::vector<char*> arguments;
    for (std::string& word : line)
        arguments.push_back(word.data());
    const auto done = quietly([&] {
        return ::rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0 ? rte_errno
                                                                                        : 0;
    });
    if (!done) return cannot_start(done.error(), o);
    started = true;
    return ::rte_eal_has_hugepages() != 0 ? std::string() : without_hugepages(o);
}

socket_end socket_end_of(const std::string& device, const std::string& arguments) {
    const auto says = [all = "," + arguments + ","](const char* argument) {
        return all.find(argument) != std::string::npos;
    };
    const auto server_if = [](bool listens) {
        return listens ? socket_end::server : socket_end::client;
    };
    if (device.starts_with("net_memif"))
        return server_if(says(",role=server,") || says(",role=master,"));
    if (device.starts_with("net_virtio_user")) return server_if(says(",server=1,"));
    if (device.starts_with("net_vhost")) return server_if(!says(",client=1,"));
    return socket_end::none;
}

result<std::uint16_t> probe_device(const std::string& device, const std::string& arguments) {
    std::uint16_t id = 0;
    if (::rte_eth_dev_get_port_by_name(device.c_str(), &id) == 0) return id;
    if (socket_end_of(device, arguments) == socket_end::server) remove_dead_sockets(arguments);
    const std::string whole = arguments.empty() ? device : device + "," + arguments;
    if (auto probed = quietly([&] { return ::rte_dev_probe(whole.c_str()); }); !probed)
        return fail(probed.error().code == EPERM ? EIO : probed.error().code, // a plain -1
                    probed.error().text + advice_on(probed.error().text, device));
    if (::rte_eth_dev_get_port_by_name(device.c_str(), &id) == 0) return id;
    return fail(ENODEV, "DPDK found no network device by that name");
}

} // namespace esplane::fastpath
