// SPDX-License-Identifier: Apache-2.0
#include "tools/seccomp.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <array>
#include <climits>
#include <csignal>
#include <cstdlib>

#include "lib/base/descriptor_passing.h"
#include "tools/process.h"
#include "tools/seccomp_filter.h"
#include "tools/seccomp_supervisor.h"
#include "xfrm/shim_protocol.h"

namespace esplane::tools {
namespace {

constexpr int sweep_ms = 1000;
/// What a user, or a service manager, sends to a command; the terminal sends its own to all.
constexpr std::array passed_on{SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGCONT, SIGWINCH};
constexpr std::array from_terminal{SIGINT, SIGQUIT};

/// What the supervisor, or the command before it is one, has to say.
struct word {
    enum what { started, ended, no_filter, no_command };
    what kind = started;
    int value = 0; ///< a process, a status of waitpid, an errno
};

void say(int fd, word w) {
    (void)!::write(fd, &w, sizeof w);
}

bool hear(int fd, word& w) {
    ssize_t length = 0;
    do
        length = ::read(fd, &w, sizeof w);
    while (length < 0 && errno == EINTR);
    return length == sizeof w;
}

constexpr std::uint8_t listener_comes = 1;

unique_fd take_listener(int over) {
    std::uint8_t byte = 0;
    return receive_with_descriptor(over, {&byte, 1}).passed;
}

// The command

[[noreturn]] void become(const std::vector<std::string>& command, const sigset_t& signals,
                         int supervisor, int report) {
    {
        const auto listener = install_filter();
        if (!listener) {
            say(report, {word::no_filter, listener.error().code});
            ::_exit(127);
        }
        if (!send_with_descriptor(supervisor, {&listener_comes, 1}, listener->get())) ::_exit(127);
    }
    std::vector<char*> arguments;
    for (const std::string& argument : command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::sigprocmask(SIG_SETMASK, &signals, nullptr);
    ::execvp(arguments[0], arguments.data());
    say(report, {word::no_command, errno});
    ::_exit(127);
}

// The supervisor

void ignore_signals() {
    for (const int s : passed_on)
        ::signal(s, SIG_IGN);
    for (const int s : from_terminal)
        ::signal(s, SIG_IGN);
    for (const int s : {SIGPIPE, SIGTSTP, SIGTTIN, SIGTTOU})
        ::signal(s, SIG_IGN);
}

/// Who waits for the end of the command's output is not to wait for the supervisor.
void let_go_of_terminal() {
    const unique_fd none(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (int fd = 0; fd < 3; ++fd)
        ::dup2(none.get(), fd);
}

unique_fd open_process(pid_t process) {
    return unique_fd(static_cast<int>(::syscall(SYS_pidfd_open, process, 0)));
}

/// Until no process is left under the filter; says when the command ends.
void stand_by(supervisor& s, pid_t command, int report) {
    const unique_fd process = open_process(command);
    std::array<pollfd, 2> waits{{{s.listener(), 0, 0}, {process.get(), POLLIN, 0}}};
    while (waits[0].fd >= 0 || waits[1].fd >= 0) {
        ::poll(waits.data(), waits.size(), sweep_ms);
        s.sweep();
        if ((waits[0].revents & POLLHUP) != 0) waits[0].fd = -1;
        int status = 0;
        if (waits[1].fd < 0 || ::waitpid(command, &status, WNOHANG) != command) continue;
        say(report, {word::ended, status});
        let_go_of_terminal();
        waits[1].fd = -1;
    }
}

[[noreturn]] void supervise(const std::string& xfrm_socket, const std::vector<std::string>& command,
                            const sigset_t& signals, int report) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) ::_exit(127);
    const pid_t child = ::fork();
    if (child == 0) become(command, signals, pair[1], report);
    ::close(pair[1]);
    ignore_signals();
    raise_descriptor_limit(); // not the command's: it keeps its own
    ::setenv(SHIM_SOCKET_VARIABLE, xfrm_socket.c_str(), 1);
    (void)keep_memory_private(); // requests with keys pass through
    unique_fd listener = take_listener(pair[0]);
    ::close(pair[0]);
    if (!listener.valid()) ::_exit(127);
    // Not destroyed: its threads go on until the process ends.
    auto& s = *new supervisor(std::move(listener)); // NOLINT(cppcoreguidelines-owning-memory)
    s.start();
    say(report, {word::started, child});
    stand_by(s, child, report);
    ::_exit(0);
}

// The one who waits

sigset_t block_signals() {
    sigset_t ours, before;
    ::sigemptyset(&ours);
    for (const int s : passed_on)
        ::sigaddset(&ours, s);
    for (const int s : from_terminal)
        ::sigaddset(&ours, s);
    ::sigprocmask(SIG_BLOCK, &ours, &before);
    return before;
}

unique_fd open_signals() {
    sigset_t now;
    ::sigprocmask(SIG_BLOCK, nullptr, &now);
    return unique_fd(::signalfd(-1, &now, SFD_CLOEXEC | SFD_NONBLOCK));
}

void pass_on(int signals, pid_t command) {
    signalfd_siginfo s{};
    while (::read(signals, &s, sizeof s) == sizeof s) {
        const bool from_kernel = s.ssi_code == SI_KERNEL; // the terminal's: the command has it, too
        if (command > 0 && !from_kernel) ::kill(command, static_cast<int>(s.ssi_signo));
    }
}

int exit_status(int status) {
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

result<int> wait_for(int report, const std::string& name) {
    const unique_fd signals = open_signals();
    std::array<pollfd, 2> waits{{{report, POLLIN, 0}, {signals.get(), POLLIN, 0}}};
    for (pid_t command = 0;;) {
        ::poll(waits.data(), waits.size(), -1);
        pass_on(signals.get(), command);
        if ((waits[0].revents & (POLLIN | POLLHUP)) == 0) continue;
        word w;
        if (!hear(report, w))
            return fail(EPIPE, "run --seccomp: the supervisor of " + name + " has ended before it");
        if (w.kind == word::started) command = w.value;
        if (w.kind == word::no_filter)
            return fail(w.value, w.value == EINVAL
                                     ? "run --seccomp: needs Linux 5.19: use run without --seccomp"
                                     : "run --seccomp: seccomp: " +
                                           std::generic_category().message(w.value));
        if (w.kind == word::no_command)
            return fail(w.value, name + ": " + std::generic_category().message(w.value), "exec");
        if (w.kind == word::ended) return exit_status(w.value);
    }
}

} // namespace

result<int> run_supervised(const std::string& xfrm_socket,
                           const std::vector<std::string>& command) {
    std::array<char, PATH_MAX> absolute{}; // the supervisor may be asked after a chdir
    if (::realpath(xfrm_socket.c_str(), absolute.data()) == nullptr) return fail_errno(xfrm_socket);
    int pipe[2];
    if (::pipe2(pipe, O_CLOEXEC) != 0) return fail_errno("pipe");
    const unique_fd heard(pipe[0]);
    const sigset_t before = block_signals();
    const pid_t child = ::fork();
    if (child < 0) {
        ::close(pipe[1]);
        return fail_errno("fork");
    }
    if (child == 0) supervise(absolute.data(), command, before, pipe[1]);
    ::close(pipe[1]);
    return wait_for(heard.get(), command.front());
}

} // namespace esplane::tools
