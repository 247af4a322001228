// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE
#include "tools/preload/emulate.h"

#include <errno.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tools/preload/channel.h"
#include "tools/preload/parking.h"
#include "tools/preload/real.h"
#include "tools/preload/reply.h"
#include "tools/preload/watch.h"
#include "xfrm/shim_protocol.h"
#include "xfrm/socket_policy.h"

enum { level_udp = 17 };

/* Options of IKE's UDP sockets: linux/in.h, linux/in6.h and linux/udp.h. */
static const struct socket_option {
    int level, option;
} ike_options[] =
    {
        {IPPROTO_IP, 16},   /* IP_IPSEC_POLICY */
        {IPPROTO_IPV6, 34}, /* IPV6_IPSEC_POLICY */
        {level_udp, 100},   /* UDP_ENCAP */
        {level_udp, 104},   /* UDP_GRO */
},
  policy_options[] = {
      {IPPROTO_IP, 17},   /* IP_XFRM_POLICY */
      {IPPROTO_IPV6, 35}, /* IPV6_XFRM_POLICY */
};

#define LENGTH(array) (sizeof(array) / sizeof(array)[0])

static int real_setsockopt(int fd, int level, int option, const void* value, socklen_t length) {
    return REAL(int, setsockopt, (int, int, int, const void*, socklen_t))(fd, level, option, value,
                                                                          length);
}

// Addresses

static void give_address(struct sockaddr* to, socklen_t* length, uint32_t port_id,
                         uint32_t groups) {
    if (to == NULL || length == NULL) return;
    const struct sockaddr_nl a = {.nl_family = AF_NETLINK, .nl_pid = port_id, .nl_groups = groups};
    memcpy(to, &a, *length < sizeof a ? *length : sizeof a);
    *length = sizeof a;
}

int emulate_check_destination(const void* address, socklen_t length) {
    struct sockaddr_nl a;
    if (address == NULL) return 0;
    if (length < sizeof a) return failed(EINVAL);
    memcpy(&a, address, sizeof a);
    if (a.nl_family != AF_NETLINK) return failed(EINVAL);
    return a.nl_pid == 0 ? 0 : failed(ECONNREFUSED);
}

/* The port that esplaned binds too: it tells ESP from IKE there (fastpath/xdp/port_share.h). */
enum { shared_port = 4500 };

static bool is_shared_port(const struct sockaddr* address, socklen_t length) {
    if (address == NULL) return false;
    if (length >= sizeof(struct sockaddr_in6) && address->sa_family == AF_INET6)
        return ((const struct sockaddr_in6*)address)->sin6_port == htons(shared_port);
    if (length >= sizeof(struct sockaddr_in) && address->sa_family == AF_INET)
        return ((const struct sockaddr_in*)address)->sin_port == htons(shared_port);
    return false;
}

/* Where it fails the socket is bound as it is, and esplaned finds it. */
static void let_others_bind(int fd) {
    const int on = 1;
    int protocol = 0;
    socklen_t length = sizeof protocol;
    const int saved = errno;
    if (REAL(int, getsockopt, (int, int, int, void*, socklen_t*))(fd, SOL_SOCKET, SO_PROTOCOL,
                                                                  &protocol, &length) == 0 &&
        protocol == level_udp)
        real_setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    errno = saved;
}

void emulate_kernel_address(struct sockaddr* to, socklen_t* length) {
    give_address(to, length, 0, 0);
}

void emulate_share_port(int fd, const struct sockaddr* address, socklen_t length) {
    if (is_shared_port(address, length)) let_others_bind(fd);
}

int emulate_bind(struct shim_socket* s, int fd, const struct sockaddr* address, socklen_t length) {
    struct sockaddr_nl a;
    if (address == NULL || length < sizeof a) return failed(EINVAL);
    memcpy(&a, address, sizeof a);
    if (a.nl_family != AF_NETLINK) return failed(EINVAL);
    return channel_bind(s, fd, a.nl_pid, a.nl_groups);
}

int emulate_connect(struct shim_socket* s, int fd, const struct sockaddr* address,
                    socklen_t length) {
    if (emulate_check_destination(address, length) != 0 || channel_ready(s, fd) != 0) return -1;
    return s->bound && s->port_id != 0 ? 0 : channel_bind(s, fd, 0, s->groups);
}

int emulate_getsockname(struct shim_socket* s, int fd, struct sockaddr* address,
                        socklen_t* length) {
    if (channel_ready(s, fd) != 0) return -1;
    give_address(address, length, s->bound ? s->port_id : 0, s->groups);
    return 0;
}

// Options

int emulate_setsockopt(struct shim_socket* s, int fd, int option, const void* value,
                       socklen_t length) {
    uint32_t number = 0;
    if (length < sizeof number) return failed(EINVAL);
    memcpy(&number, value, sizeof number);
    switch (option) {
    case NETLINK_ADD_MEMBERSHIP:
        return channel_control(s, fd, shim_join, number, 0);
    case NETLINK_DROP_MEMBERSHIP:
        return channel_control(s, fd, shim_leave, number, 0);
    case NETLINK_CAP_ACK:
    case NETLINK_EXT_ACK:
        break; // told with the next request
    case NETLINK_BROADCAST_ERROR:
    case NETLINK_NO_ENOBUFS:
    case NETLINK_LISTEN_ALL_NSID:
    case NETLINK_GET_STRICT_CHK:
        break; // change nothing of what this server sends
    default:
        return failed(ENOPROTOOPT);
    }
    s->options = number != 0 ? s->options | 1u << option : s->options & ~(1u << option);
    return 0;
}

/* A data socket's room is the server's; those that look get what they set, as the kernel gives it:
 * twice.  False: it is the kernel's to set. */
static bool set_room(struct shim_socket* s, int option, const void* value, socklen_t length) {
    uint32_t room;
    const bool sends = option == SO_SNDBUF || option == SO_SNDBUFFORCE;
    const bool receives = option == SO_RCVBUF || option == SO_RCVBUFFORCE;
    if ((!sends && !receives) || length < sizeof room) return false;
    memcpy(&room, value, sizeof room);
    s->rooms[receives] = 2 * room;
    return true;
}

bool emulate_socket_option(struct shim_socket* s, int option, const void* value, socklen_t length) {
    if (set_room(s, option, value, length)) return true;
    atomic_store(&s->peculiar, true);
    return false;
}

static uint32_t mark_of(int fd) {
    uint32_t mark = 0;
    socklen_t length = sizeof mark;
    REAL(int, getsockopt, (int, int, int, void*, socklen_t*))
    (fd, SOL_SOCKET, SO_MARK, &mark, &length);
    return mark;
}

static int set_mark(int fd, uint32_t mark) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    if (real_setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0) return 0;
    const int saved = errno;
    if (!atomic_flag_test_and_set(&said))
        fprintf(stderr,
                "esplane: a socket cannot be marked to bypass IPsec: %s.  Give this program "
                "CAP_NET_ADMIN, or what it sends may be taken for traffic to protect\n",
                strerror(saved));
    return failed(saved);
}

/* What the socket receives reaches it past esplane as it is. */
static int set_socket_policy(int fd, const void* value, socklen_t length) {
    const enum socket_policy wanted = read_socket_policy(value, length);
    uint32_t mark = 0;
    if (wanted == socket_policy_other) return failed(EOPNOTSUPP);
    if (wanted == socket_policy_bypass_in) return 0;
    if (channel_exempt_mark(&mark) != 0) return -1;
    if (mark == 0) return 0;
    if (wanted == socket_policy_bypass_out) return set_mark(fd, mark);
    return mark_of(fd) == mark ? set_mark(fd, 0) : 0;
}

static bool is_one_of(const struct socket_option* options, size_t count, int level, int option) {
    for (size_t i = 0; i < count; i++)
        if (options[i].level == level && options[i].option == option) return true;
    return false;
}

bool emulate_ike_option(int fd, int level, int option, const void* value, socklen_t length,
                        int* result) {
    if (is_one_of(ike_options, LENGTH(ike_options), level, option)) {
        *result = 0;
        return true;
    }
    if (!is_one_of(policy_options, LENGTH(policy_options), level, option)) return false;
    *result = set_socket_policy(fd, value, length);
    return true;
}

static int give_number(uint32_t number, void* value, socklen_t* length) {
    if (*length < sizeof number) return failed(EINVAL);
    memcpy(value, &number, sizeof number);
    *length = sizeof number;
    return 0;
}

bool emulate_getsockopt(struct shim_socket* s, int fd, int level, int option, void* value,
                        socklen_t* length, int* result) {
    if (level == SOL_SOCKET && option == SO_DOMAIN)
        *result = give_number(AF_NETLINK, value, length);
    else if (level == SOL_SOCKET && option == SO_PROTOCOL)
        *result = give_number(NETLINK_XFRM, value, length);
    else if (level == SOL_SOCKET && option == SO_TYPE)
        *result = give_number((uint32_t)s->type, value, length);
    else if (level == SOL_SOCKET && option == SO_SNDBUF && s->rooms[0] != 0)
        *result = give_number(s->rooms[0], value, length);
    else if (level == SOL_SOCKET && option == SO_RCVBUF && s->rooms[1] != 0)
        *result = give_number(s->rooms[1], value, length);
    else if (level != EMULATE_NETLINK)
        return false;
    else if (channel_ready(s, fd) != 0)
        *result = -1;
    else if (option == NETLINK_LIST_MEMBERSHIPS)
        *result = give_number(s->groups, value, length);
    else if (option < 0 || option >= 32)
        *result = failed(ENOPROTOOPT);
    else
        *result = give_number(s->options >> option & 1, value, length);
    return true;
}

// Messages

ssize_t emulate_sendmsg(struct shim_socket* s, int fd, const struct msghdr* m, int flags) {
    if (emulate_check_destination(m->msg_name, m->msg_namelen) != 0) return -1;
    return channel_send(s, fd, m, flags);
}

// For a supervisor, whose clients hold the descriptors

static void before_fork(void) {
    reply_settle_all();
    parking_before_fork();
}

static void in_child(void) {
    parking_forked();
    watch_forked();
}

void emulate_start(void) {
    const struct fork_hooks hooks = {before_fork, parking_after_fork, in_child};
    registry_start(&hooks);
}

struct shim_socket* emulate_socket(int type, pid_t pid, int* fd) {
    *fd = channel_open(type, (uint32_t)pid);
    return *fd < 0 ? NULL : registry_detach(*fd);
}

bool emulate_has_ended(const struct shim_socket* s) {
    struct pollfd p = {.fd = s->kept, .events = 0};
    return REAL_POLL(&p, 1, 0) == 1;
}

void emulate_release(struct shim_socket* s) {
    registry_let_go(s);
}
