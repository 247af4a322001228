/* SPDX-License-Identifier: Apache-2.0
 *
 * A reply that is on the slate: it is what the next receive gives, unless the client waits for it,
 * asks again or lets others use the socket before.  Then it is put onto the data socket; where that
 * cannot be, the next receive fails with ENOBUFS.
 *
 * Threads: the caller holds the socket's lock, except of reply_settle_all() and reply_take().
 */
#pragma once

#include <stdbool.h>
#include <sys/socket.h>

#include "tools/preload/registry.h"

/* The server has answered: the reply, if it is there, is to be received from the slate. */
void reply_leave(struct shim_socket* s);

/* Puts it where whoever waits for the socket looks. */
void reply_settle(struct shim_socket* s);

/* The same for all sockets. */
void reply_settle_all(void);

/* It is not wanted any more. */
void reply_forget(struct shim_socket* s);

/* A receive with `flags`: true where the reply was on the slate, and is given, or was lost:
 * ENOBUFS. */
bool reply_take(struct shim_socket* s, struct msghdr* into, int flags, ssize_t* length);
