// SPDX-License-Identifier: Apache-2.0
#include "tools/xdp_helper.h"

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <span>
#include <type_traits>

#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xfrm/route.h"

namespace esplane::tools {

namespace {

using fastpath::guard_part_count;

enum class operation : std::uint32_t { prepare, attach, socket, release, resolve };

/// Both ends are of one build: the structs are the format.
struct request {
    std::uint32_t number = 0; ///< the answer repeats it
    operation what{};
    std::uint32_t value = 0; ///< attach: xdp_wish; socket: microseconds; resolve: ifindex
    std::array<char, IF_NAMESIZE> device{};
    std::uint8_t family = 0; ///< of the neighbour
    std::array<std::uint8_t, 16> address{};
};

struct answer {
    std::uint32_t number = 0; ///< of the request
    std::int32_t code = 0;    ///< errno of what failed
    std::int32_t ifindex = 0;
    std::uint8_t mode = 0;
    std::uint8_t was_guarded = 0;
    std::uint8_t is_covered = 0; ///< and `mode` says how
    std::uint8_t ingress = 0, egress = 0, qdisc = 0;
    std::array<char, 512> text{}; ///< of what failed
};
static_assert(std::is_trivially_copyable_v<request> && std::is_trivially_copyable_v<answer>);

/// An answer and what it carries.
struct reply {
    answer head;
    std::vector<unique_fd> descriptors{};
};

template <std::size_t N>
void put_text(std::array<char, N>& into, const std::string& text) {
    into.fill(0);
    text.copy(into.data(), N - 1);
}

template <std::size_t N>
std::string text_of(const std::array<char, N>& from) {
    return {from.data(), ::strnlen(from.data(), N)};
}

/// One datagram.
struct envelope {
    iovec part{};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(guard_part_count * sizeof(int))> control{};
    msghdr header{};

    envelope(void* bytes, std::size_t length) {
        part = {bytes, length};
        header.msg_iov = &part;
        header.msg_iovlen = 1;
    }
    envelope(const envelope&) = delete;
    envelope& operator=(const envelope&) = delete;
};

/// Who does not read its answers loses them: it may not keep the helper from what is next.
bool send_reply(int socket, reply& r) {
    envelope e(&r.head, sizeof r.head);
    if (!r.descriptors.empty()) {
        std::vector<int> numbers;
        for (const unique_fd& fd : r.descriptors)
            numbers.push_back(fd.get());
        const std::size_t bytes = numbers.size() * sizeof(int);
        e.header.msg_control = e.control.data();
        e.header.msg_controllen = CMSG_SPACE(bytes);
        cmsghdr* c = CMSG_FIRSTHDR(&e.header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(bytes);
        std::memcpy(CMSG_DATA(c), numbers.data(), bytes);
    }
    return ::sendmsg(socket, &e.header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 || errno == EAGAIN;
}

std::vector<unique_fd> descriptors_of(msghdr& header) {
    std::vector<unique_fd> found;
    for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(&header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        std::vector<int> numbers((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        std::memcpy(numbers.data(), CMSG_DATA(c), numbers.size() * sizeof(int));
        for (const int fd : numbers)
            found.emplace_back(fd);
    }
    return found;
}

result<reply> receive_reply(int socket) {
    reply r;
    envelope e(&r.head, sizeof r.head);
    e.header.msg_control = e.control.data();
    e.header.msg_controllen = e.control.size();
    const ssize_t n = ::recvmsg(socket, &e.header, MSG_CMSG_CLOEXEC);
    if (n != static_cast<ssize_t>(sizeof r.head))
        return fail(ENOTCONN, "the privileged helper does not answer: restart both");
    r.descriptors = descriptors_of(e.header);
    return r;
}

/// Answers that came too late for whoever asked are passed over.
result<reply> ask(int socket, request r, std::size_t descriptors) {
    static std::uint32_t asked = 0;
    r.number = ++asked;
    if (::send(socket, &r, sizeof r, MSG_NOSIGNAL) != static_cast<ssize_t>(sizeof r))
        return fail(errno, "the privileged helper is gone: restart both");
    auto reply = receive_reply(socket);
    while (reply && reply->head.number != r.number)
        reply = receive_reply(socket);
    if (!reply) return reply;
    if (reply->head.code != 0) return fail(reply->head.code, text_of(reply->head.text));
    if (reply->descriptors.size() != descriptors)
        return fail(EPROTO, "the privileged helper gave too few descriptors: raise 'ulimit -n'");
    return reply;
}

request about(operation what, const std::string& device, std::uint32_t value = 0) {
    request r;
    r.what = what;
    r.value = value;
    put_text(r.device, device);
    return r;
}

reply failed(const error& e) {
    reply r;
    r.head.code = e.code != 0 ? e.code : EIO;
    put_text(r.head.text, e.text);
    return r;
}

reply do_prepare(const request& q, fastpath::privileged& means) {
    auto parts = means.prepare(text_of(q.device));
    if (!parts) return failed(parts.error());
    reply r;
    r.head.ifindex = parts->ifindex;
    r.head.was_guarded = parts->was_guarded;
    r.head.is_covered = parts->cover.has_value();
    r.head.mode = static_cast<std::uint8_t>(parts->cover.value_or(fastpath::xdp_mode::native));
    for (unique_fd& fd : parts->descriptors)
        r.descriptors.push_back(std::move(fd));
    return r;
}

reply do_attach(const request& q, fastpath::privileged& means) {
    if (q.value > static_cast<std::uint32_t>(fastpath::xdp_wish::generic))
        return failed({EINVAL, "no such mode", {}});
    const auto done = means.attach(text_of(q.device), static_cast<fastpath::xdp_wish>(q.value));
    if (!done) return failed(done.error());
    reply r;
    r.head.ifindex = done->ifindex;
    r.head.mode = static_cast<std::uint8_t>(done->mode);
    return r;
}

reply do_socket(const request& q, fastpath::privileged& means) {
    auto socket = means.open_socket(q.value);
    if (!socket) return failed(socket.error());
    reply r;
    r.descriptors.push_back(std::move(*socket));
    return r;
}

reply do_release(const request& q, fastpath::privileged& means) {
    const auto gone = means.release(text_of(q.device));
    if (!gone) return failed(gone.error());
    reply r;
    r.head.ingress = gone->ingress;
    r.head.egress = gone->egress;
    r.head.qdisc = gone->qdisc;
    return r;
}

reply do_resolve(const request& q) {
    ipsec::address neighbour;
    neighbour.fam = static_cast<ipsec::family>(q.family);
    neighbour.bytes = q.address;
    if (neighbour.fam != ipsec::family::ipv4 && neighbour.fam != ipsec::family::ipv6)
        return failed({EINVAL, "no such family", {}});
    const auto asked =
        xfrm::route_monitor::resolve_once(static_cast<std::int32_t>(q.value), neighbour);
    return asked ? reply{} : failed(asked.error());
}

reply do_request(const request& q, fastpath::privileged& means) {
    switch (q.what) {
    case operation::prepare:
        return do_prepare(q, means);
    case operation::attach:
        return do_attach(q, means);
    case operation::socket:
        return do_socket(q, means);
    case operation::release:
        return do_release(q, means);
    case operation::resolve:
        return do_resolve(q);
    }
    return failed({EINVAL, "no such request", {}});
}

constexpr std::array handled_signals{SIGCHLD, SIGTERM, SIGINT, SIGHUP};

sigset_t signals_handled() {
    sigset_t set;
    sigemptyset(&set);
    for (const int s : handled_signals)
        sigaddset(&set, s);
    return set;
}

/// COMMAND registers its buffers with the kernel: they are locked memory.
void allow_locked_memory() {
    const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
    (void)::setrlimit(RLIMIT_MEMLOCK, &unlimited); // where it may not, esplaned says what to do
}

/// In the child: becomes COMMAND.  What failed comes back over `trouble`.
[[noreturn]] void become(const std::vector<std::string>& command, const unique_fd& socket,
                         const unique_fd& trouble) {
    const sigset_t set = signals_handled();
    ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
    ::setenv(xdp_helper_variable, std::to_string(socket.get()).c_str(), 1);
    (void)::fcntl(socket.get(), F_SETFD, 0);
    std::vector<char*> arguments;
    for (const std::string& argument : command)
        arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    ::execvp(arguments[0], arguments.data());
    const int code = errno;
    (void)!::write(trouble.get(), &code, sizeof code);
    ::_exit(127);
}

/// Serves until the child has ended; hands on the signals that end daemons.
int serve_until_end(pid_t child, unique_fd socket, const unique_fd& signals) {
    fastpath::own_privileges means;
    for (;;) {
        std::array<pollfd, 2> waits{{{signals.get(), POLLIN, 0}, {socket.get(), POLLIN, 0}}};
        if (::poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) return 1;
        signalfd_siginfo told{};
        if ((waits[0].revents & POLLIN) != 0 &&
            ::read(signals.get(), &told, sizeof told) == static_cast<ssize_t>(sizeof told) &&
            told.ssi_signo != SIGCHLD)
            ::kill(child, static_cast<int>(told.ssi_signo));
        if (int status = 0; ::waitpid(child, &status, WNOHANG) == child)
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        if (waits[1].revents != 0 && !serve_xdp_helper(socket.get(), means)) socket = unique_fd();
    }
}

} // namespace

bool serve_xdp_helper(int socket, fastpath::privileged& means) {
    request q;
    const ssize_t n = ::recv(socket, &q, sizeof q, MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    reply r = n == static_cast<ssize_t>(sizeof q) ? do_request(q, means)
                                                  : failed({EINVAL, "no request", {}});
    r.head.number = q.number;
    return send_reply(socket, r);
}

result<int> run_under_xdp_helper(const std::vector<std::string>& command) {
    if (command.empty())
        return fail(EINVAL,
                    "xdp-helper: no command: as in esplane xdp-helper -- setpriv --reuid=... "
                    "esplaned ...",
                    "command");
    std::array<int, 2> ends{}, pipe{};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
        return fail_errno("socketpair");
    unique_fd ours(ends[0]), theirs(ends[1]);
    if (::pipe2(pipe.data(), O_CLOEXEC) != 0) return fail_errno("pipe");
    const unique_fd trouble(pipe[0]);
    unique_fd trouble_end(pipe[1]);
    allow_locked_memory();
    const sigset_t set = signals_handled();
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    const unique_fd signals(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));

    const pid_t child = ::fork();
    if (child < 0) return fail_errno("fork");
    if (child == 0) become(command, theirs, trouble_end);
    theirs = unique_fd();
    trouble_end = unique_fd();
    if (int code = 0; ::read(trouble.get(), &code, sizeof code) == sizeof code) {
        (void)::waitpid(child, nullptr, 0);
        errno = code;
        error failure = fail_errno(command.front()).value();
        failure.field = "exec";
        return tl::unexpected(std::move(failure));
    }
    return serve_until_end(child, std::move(ours), signals);
}

result<std::shared_ptr<xdp_helper>> xdp_helper::of_this_process() {
    static std::shared_ptr<xdp_helper> helper;
    const char* const number = std::getenv(xdp_helper_variable);
    if (helper || number == nullptr) return helper;
    const int fd = std::atoi(number);
    int type = 0;
    socklen_t length = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length) != 0 || type != SOCK_SEQPACKET)
        return fail(EBADF, std::string(xdp_helper_variable) + "=" + number +
                               ": is no socket of a helper: start esplaned by `esplane "
                               "xdp-helper`, or unset it");
    (void)::fcntl(fd, F_SETFD, FD_CLOEXEC);
    const timeval patience{10, 0};
    (void)::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    helper = std::make_shared<xdp_helper>(unique_fd(fd));
    return helper;
}

result<std::shared_ptr<fastpath::privileged>> means_of_this_process() {
    auto helper = xdp_helper::of_this_process();
    if (!helper) return tl::unexpected(helper.error());
    if (*helper) return std::shared_ptr<fastpath::privileged>(*helper);
    return std::shared_ptr<fastpath::privileged>(std::make_shared<fastpath::own_privileges>());
}

result<fastpath::guard_parts> xdp_helper::prepare(const std::string& device) {
    auto r = ask(socket_.get(), about(operation::prepare, device), guard_part_count);
    if (!r) return tl::unexpected(std::move(r.error()));
    fastpath::guard_parts parts{r->head.ifindex, r->head.was_guarded != 0, {}, {}};
    if (r->head.is_covered != 0) parts.cover = static_cast<fastpath::xdp_mode>(r->head.mode);
    std::move(r->descriptors.begin(), r->descriptors.end(), parts.descriptors.begin());
    return parts;
}

result<fastpath::guard_attached> xdp_helper::attach(const std::string& device,
                                                    fastpath::xdp_wish wish) {
    const auto r =
        ask(socket_.get(), about(operation::attach, device, static_cast<std::uint32_t>(wish)), 0);
    if (!r) return tl::unexpected(r.error());
    return fastpath::guard_attached{r->head.ifindex, static_cast<fastpath::xdp_mode>(r->head.mode)};
}

result<unique_fd> xdp_helper::open_socket(unsigned busy_poll_us) {
    auto r = ask(socket_.get(), about(operation::socket, {}, busy_poll_us), 1);
    if (!r) return tl::unexpected(std::move(r.error()));
    return std::move(r->descriptors.front());
}

result<fastpath::attachments> xdp_helper::release(const std::string& device) {
    const auto r = ask(socket_.get(), about(operation::release, device), 0);
    if (!r) return tl::unexpected(r.error());
    return fastpath::attachments{r->head.ingress != 0, r->head.egress != 0, r->head.qdisc != 0};
}

result<void> xdp_helper::resolve(int ifindex, const ipsec::address& neighbour) {
    request q = about(operation::resolve, {}, static_cast<std::uint32_t>(ifindex));
    q.family = static_cast<std::uint8_t>(neighbour.fam);
    q.address = neighbour.bytes;
    const auto r = ask(socket_.get(), q, 0);
    return r ? result<void>() : tl::unexpected(r.error());
}

} // namespace esplane::tools
