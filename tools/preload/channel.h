/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim says to the XFRM server (xfrm/shim_protocol.h).
 *
 * All return -1 and set errno where they fail.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "tools/preload/emulate.h"
#include "tools/preload/registry.h"

/* A socket connected to the server in place of socket(AF_NETLINK, type, NETLINK_XFRM), for process
 * `pid` (0: this one).
 * EPROTONOSUPPORT where the server is not reachable; a line on stderr says so, once. */
int channel_open(int type, uint32_t pid);

/* Port id and groups of the socket become known. */
int channel_ready(struct shim_socket* s, int fd);

/* bind(). */
int channel_bind(struct shim_socket* s, int fd, uint32_t port_id, uint32_t groups);

/* Sets something at the server: shim_join, shim_leave. */
int channel_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                    uint32_t value);

/* Asks what the packets of sockets that bypass IPsec are to be marked with (SO_MARK); 0: nothing.
 */
int channel_exempt_mark(uint32_t* mark);

/* sendmsg(): returns when the answer is readable.  Waits for a server that has ended to come back.
 * ENOBUFS where there is no answer in time, and where the server ended instead of answering: it may
 * have done what was asked. */
ssize_t channel_send(struct shim_socket* s, int fd, const struct msghdr* m, int flags);

/* What a socket that is used again begins with. */
void channel_renew(struct shim_socket* s, int type);
