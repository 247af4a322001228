// SPDX-License-Identifier: Apache-2.0
#include "tools/seccomp_filter.h"

#include <cstddef>
#include <initializer_list>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <vector>

namespace esplane::tools {
namespace {

#if defined(__x86_64__)
constexpr std::uint32_t own_architecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr std::uint32_t own_architecture = AUDIT_ARCH_AARCH64;
#endif

constexpr std::uint32_t refuse(int code) {
    return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(code);
}

/// The low half of an argument: descriptors, families and options are ints.
constexpr std::uint32_t argument(unsigned n) {
    return static_cast<std::uint32_t>(offsetof(seccomp_data, args) + n * sizeof(std::uint64_t));
}

/// A program that grows by tests of one system call each; every one ends in a verdict.
class program {
  public:
    program() {
        load(offsetof(seccomp_data, arch));
        add(BPF_JMP | BPF_JEQ | BPF_K, own_architecture, 1, 0);
        add(BPF_RET | BPF_K, refuse(ENOSYS)); // its numbers mean other calls
        load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
        add(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1); // x32
        add(BPF_RET | BPF_K, refuse(ENOSYS));
#endif
    }

    void always(long call, std::uint32_t verdict) {
        add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 1);
        add(BPF_RET | BPF_K, verdict);
    }
    /// Where two arguments have these values.
    void where(long call, unsigned first, std::uint32_t one, unsigned second, std::uint32_t other) {
        add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 6);
        load(argument(first));
        add(BPF_JMP | BPF_JEQ | BPF_K, one, 0, 3);
        load(argument(second));
        add(BPF_JMP | BPF_JEQ | BPF_K, other, 0, 1);
        add(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
        load(offsetof(seccomp_data, nr));
    }
    /// Where the first argument is an injected descriptor; else the call is the kernel's.
    void on_injected(long call) {
        add(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(call), 0, 5);
        load(argument(0));
        add(BPF_JMP | BPF_JGE | BPF_K, first_injected, 0, 2);
        add(BPF_JMP | BPF_JGT | BPF_K, last_injected, 1, 0);
        add(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
        add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    [[nodiscard]] sock_fprog finish() {
        add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
        return {static_cast<unsigned short>(code_.size()), code_.data()};
    }

  private:
    void load(std::size_t offset) {
        add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset));
    }
    void add(std::uint16_t code, std::uint32_t value, std::uint8_t yes = 0, std::uint8_t no = 0) {
        code_.push_back({code, yes, no, value});
    }
    std::vector<sock_filter> code_;
};

/// Options of IKE's UDP sockets (tools/preload/emulate.c).
constexpr struct {
    std::uint32_t level, option;
} ike_options[] = {
    {IPPROTO_IP, 16},   {IPPROTO_IPV6, 34}, {IPPROTO_UDP, 100},
    {IPPROTO_UDP, 104}, {IPPROTO_IP, 17},   {IPPROTO_IPV6, 35},
};

long seccomp(unsigned operation, unsigned flags, void* what) {
    return ::syscall(SYS_seccomp, operation, flags, what);
}

} // namespace

result<unique_fd> install_filter() {
    program p;
    p.where(SYS_socket, 0, AF_NETLINK, 2, NETLINK_XFRM);
    p.always(SYS_io_uring_setup, refuse(ENOSYS)); // it would pass the filter by
    p.always(SYS_bind, SECCOMP_RET_USER_NOTIF);   // what port, is in memory
    for (const auto& o : ike_options)
        p.where(SYS_setsockopt, 1, o.level, 2, o.option);
    for (const long call :
         {SYS_connect, SYS_getsockname, SYS_getpeername, SYS_setsockopt, SYS_getsockopt, SYS_sendto,
          SYS_sendmsg, SYS_sendmmsg, SYS_write, SYS_writev, SYS_recvfrom, SYS_recvmsg, SYS_recvmmsg,
          SYS_read, SYS_readv, SYS_dup, SYS_dup3, SYS_fcntl
#ifdef SYS_dup2
          ,
          SYS_dup2
#endif
         })
        p.on_injected(call);
    sock_fprog code = p.finish();
    // Received notifications are interrupted by death alone: nothing is done twice.
    constexpr unsigned flags =
        SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    long listener = seccomp(SECCOMP_SET_MODE_FILTER, flags, &code);
    if (listener < 0 && errno == EACCES && ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0)
        listener = seccomp(SECCOMP_SET_MODE_FILTER, flags, &code);
    if (listener < 0) return fail_errno("seccomp");
    return unique_fd(static_cast<int>(listener));
}

} // namespace esplane::tools
