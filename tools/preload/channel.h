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

/* Sets an option at the server: shim_bind, shim_join, shim_leave, shim_option. */
int channel_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument,
                    uint32_t value);

/* Asks what the packets of sockets that bypass IPsec are to be marked with (SO_MARK); 0: nothing.
 */
int channel_exempt_mark(uint32_t* mark);

/* sendmsg(): returns when the answer is readable.  Waits for a server that has ended to come back.
 * ENOBUFS where there is no answer in time, and where the server ended instead of answering: it may
 * have done what was asked. */
ssize_t channel_send(struct shim_socket* s, int fd, const struct msghdr* m, int flags);

/* Says whether the socket's reader waits without having asked. */
bool channel_is_watched(struct shim_socket* s);

/* Opens the side channel anew where its server has ended, if there is one again, and lets the
 * reader know what it missed.  Returns channel_is_watched(), or whether there is more to be told.
 */
bool channel_mend(struct shim_socket* s);
