/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim says to the XFRM server (xfrm/shim_protocol.h).
 *
 * All return -1 and set errno where they fail.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

#include "tools/preload/registry.h"

/* The path of the server's socket; NULL: the shim was not asked for. */
const char* channel_path(void);

/* A socket connected to the server in place of socket(AF_NETLINK, type, NETLINK_XFRM).
 * EPROTONOSUPPORT where the server is not reachable; a line on stderr says so, once. */
int channel_open(int type);

/* Port id and groups of the socket become known. */
int channel_ready(struct shim_socket* s, int fd);

/* Sets an option at the server: shim_bind, shim_join, shim_leave, shim_option. */
int channel_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                    uint32_t value);

/* Asks what the packets of sockets that bypass IPsec are to be marked with (SO_MARK); 0: nothing.
 */
int channel_exempt_mark(uint32_t* mark);

/* sendmsg(): returns when the answer is readable.  ENOBUFS where there is none in time. */
ssize_t channel_send(struct shim_socket* s, int fd, const struct msghdr* m, int flags);
