// SPDX-License-Identifier: Apache-2.0
#include "tools/offline.h"

#include <array>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fastpath/port_pcap.h"
#include "lib/base/unique_fd.h"
#include "tools/engine.h"
#include "tools/report.h"
#include "tools/run_dir.h"
#include "tools/scratch_directory.h"
#include "tools/shim.h"

namespace esplane::tools {

namespace {

constexpr std::uint32_t buffer_count = 1024;
constexpr std::uint32_t no_mtu = 65535;
constexpr int tick_ms = 100;

/// Holds SIGINT and SIGTERM back, to be read from a descriptor.
class held_signals {
  public:
    held_signals() {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGINT);
        sigaddset(&set, SIGTERM);
        ::sigprocmask(SIG_BLOCK, &set, &before_);
        fd_ = unique_fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    }
    ~held_signals() { restore(); }
    held_signals(const held_signals&) = delete;
    held_signals& operator=(const held_signals&) = delete;
    void restore() const { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
    [[nodiscard]] int descriptor() const noexcept { return fd_.get(); }
    /// Takes one; what is not taken strikes when this is gone.
    [[nodiscard]] bool take() const {
        signalfd_siginfo info;
        return ::read(fd_.get(), &info, sizeof info) == sizeof info;
    }

  private:
    sigset_t before_{};
    unique_fd fd_;
};

[[noreturn]] void become_shell(const std::string& command, const held_signals& signals) {
    signals.restore();
    ::execl("/bin/sh", "sh", "-c", command.c_str(), static_cast<char*>(nullptr));
    ::_exit(127);
}

result<void> judge(int status) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
    const std::string how = WIFEXITED(status) ? "exit status " + std::to_string(WEXITSTATUS(status))
                                              : "signal " + std::to_string(WTERMSIG(status));
    return fail(ECHILD, "--setup COMMAND failed with " + how + ": nothing was sent through");
}

/// Runs COMMAND and answers it until it ends.
result<void> run_setup(engine& e, const std::string& command) {
    const held_signals signals;
    const pid_t child = ::fork();
    if (child < 0) return fail_errno("fork");
    if (child == 0) become_shell(command, signals);
    const unique_fd process(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
    bool interrupted = false;
    while (true) {
        std::array<pollfd, 3> waits{{{process.get(), POLLIN, 0},
                                     {e.xfrm()->descriptor(), POLLIN, 0},
                                     {signals.descriptor(), POLLIN, 0}}};
        ::poll(waits.data(), waits.size(), tick_ms);
        e.control().tick(fastpath::now());
        if (waits[1].revents != 0) e.xfrm()->serve();
        if (waits[2].revents != 0 && signals.take()) {
            interrupted = true;
            ::kill(child, SIGTERM);
        }
        int status = 0;
        if (::waitpid(child, &status, WNOHANG) != child) continue;
        if (interrupted) return fail(EINTR, "interrupted");
        return judge(status);
    }
}

std::vector<ipsec::address> sa_destinations(control::layer& l) {
    std::vector<ipsec::address> destinations;
    control::cursor at;
    while (const ipsec::sa* s = l.next_sa(at))
        destinations.push_back(s->id.destination);
    return destinations;
}

result<void> check_files(const offline_request& request) {
    std::error_code code;
    if (std::filesystem::equivalent(request.input, request.output, code))
        return fail(EINVAL, request.output + ": is the input: name another file with --out");
    return {};
}

/// The capture, burst by burst.
void send_through(engine& e, const fastpath::pcap_port& capture) {
    while (!capture.at_end()) {
        e.workers().front()->run_once(fastpath::now());
        (void)e.deliver_events(); // there is no neighbour to ask for
    }
}

nlohmann::json report_outcome(engine& e, const fastpath::pcap_port& capture) {
    const std::string& trouble = capture.trouble();
    return {{"packets", report_packets(e.workers().front()->counters())},
            {"drops", report_drops(e.workers().front()->counters())},
            {"unread",
             {{"not_ip", capture.not_ip()},
              {"too_long", capture.too_long()},
              {"cut_short", capture.cut_short()}}},
            {"trouble", trouble.empty() ? nlohmann::json() : nlohmann::json(trouble)}};
}

} // namespace

result<nlohmann::json> run_offline(const offline_request& request) {
    if (auto files = check_files(request); !files) return tl::unexpected(files.error());
    auto buffers = fastpath::buffer_pool::make(buffer_count);
    if (!buffers) return tl::unexpected(buffers.error());
    auto capture = fastpath::pcap_port::open(request.input, request.output, **buffers);
    if (!capture) return tl::unexpected(capture.error());
    auto made = engine::make(**buffers, {capture->get()}, {fastpath::worker_options{}});
    if (!made) return tl::unexpected(made.error());
    engine& e = **made;

    const auto directory = scratch_directory::make();
    if (!directory) return tl::unexpected(directory.error());
    const std::string socket = xfrm_socket_path(directory->path());
    if (auto open = e.open_xfrm(socket); !open) return tl::unexpected(open.error());
    if (auto used = use_shim(socket); !used) return tl::unexpected(used.error());
    if (auto done = run_setup(e, request.setup); !done) return tl::unexpected(done.error());

    std::vector<ipsec::address> locals;
    if (request.direction == offline_direction::inbound) locals = sa_destinations(e.control());
    e.tables().publish(fastpath::fib::everywhere(0, no_mtu, locals));
    send_through(e, **capture);
    if (auto closed = (*capture)->close(); !closed) return tl::unexpected(closed.error());
    return report_outcome(e, **capture);
}

} // namespace esplane::tools
