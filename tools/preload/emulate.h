/* SPDX-License-Identifier: Apache-2.0
 *
 * What a client's calls on its NETLINK_XFRM socket mean where esplaned answers, and those on its
 * UDP sockets that tell the kernel's IPsec stack something: for the preloaded shim and for the
 * supervisor of `esplane run --seccomp`, which is C++.
 *
 * `fd` is the data socket.  As the calls they stand for: -1 and errno where they fail.
 */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { EMULATE_NETLINK = 270 }; /* SOL_NETLINK */

struct shim_socket;

int emulate_bind(struct shim_socket* s, int fd, const struct sockaddr* address, socklen_t length);
int emulate_connect(struct shim_socket* s, int fd, const struct sockaddr* address,
                    socklen_t length);
int emulate_getsockname(struct shim_socket* s, int fd, struct sockaddr* address, socklen_t* length);

/* The kernel's end, as getpeername() and every receive give it. */
void emulate_kernel_address(struct sockaddr* to, socklen_t* length);

/* 0 for no address and for that of the kernel's end. */
int emulate_check_destination(const void* address, socklen_t length);

/* Options of level EMULATE_NETLINK. */
int emulate_setsockopt(struct shim_socket* s, int fd, int option, const void* value,
                       socklen_t length);
/* One of level SOL_SOCKET.  False: it is the kernel's to set. */
bool emulate_socket_option(struct shim_socket* s, int option, const void* value, socklen_t length);
/* False: it is the kernel's to answer. */
bool emulate_getsockopt(struct shim_socket* s, int fd, int level, int option, void* value,
                        socklen_t* length, int* result);

/* Returns when the answer is readable. */
ssize_t emulate_sendmsg(struct shim_socket* s, int fd, const struct msghdr* m, int flags);

/* To be called with what a receive with `flags` brought: `length` bytes, the first of them `into`.
 * Returns that length; ENOBUFS where it was the word that events, or the rest of a dump, are lost.
 */
ssize_t channel_received(struct shim_socket* s, int fd, const struct iovec* into, ssize_t length,
                         int flags);

/* An option of another socket by which IKE daemons exempt it from IPsec or ask for decapsulation.
 * False: it is none. */
bool emulate_ike_option(int fd, int level, int option, const void* value, socklen_t length,
                        int* result);

/* Another socket is about to be bound: where that is to the port of NAT traversal, so that esplaned
 * can bind it as well. */
void emulate_share_port(int fd, const struct sockaddr* address, socklen_t length);

/* Once, before the first of them. */
void emulate_start(void);

/* A data socket for process `pid` and what stands for it; `*fd` is to be given to the client, and
 * closed.  NULL: errno. */
struct shim_socket* emulate_socket(int type, pid_t pid, int* fd);

/* Says whether no client holds it any more: it is to be released. */
bool emulate_has_ended(const struct shim_socket* s);
void emulate_release(struct shim_socket* s);

#ifdef __cplusplus
}
#endif
