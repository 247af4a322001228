/* SPDX-License-Identifier: Apache-2.0
 *
 * Preloaded into a program, it makes the kernel an old one: without UDP_SEGMENT (Linux 4.18) and
 * UDP_GRO (5.0), and with TUN devices that pass no super-packets.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/if_tun.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { udp_segment = 103, udp_gro = 104 };

int setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
    if (level == IPPROTO_UDP && (option == udp_segment || option == udp_gro)) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return (int)syscall(SYS_setsockopt, fd, level, option, value, length);
}

int ioctl(int fd, unsigned long request, ...) {
    va_list rest;
    va_start(rest, request);
    const unsigned long argument = va_arg(rest, unsigned long);
    va_end(rest);
    if (request == TUNSETOFFLOAD && argument != 0) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, argument);
}
