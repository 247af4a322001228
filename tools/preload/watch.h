/* SPDX-License-Identifier: Apache-2.0
 *
 * Who waits for events does not ask, and so would not notice that the server ended and came back.
 * A thread does, one for each socket that listens: it sleeps on the side channel until that hangs
 * up, and opens it anew.  It ends with the socket.
 *
 * A forked child that goes on with its parent's sockets gets threads of its own.
 */
#pragma once

#include "tools/preload/registry.h"

/* The socket listens: has its thread from now on. */
void watch_begin(struct shim_socket* s);

/* Makes up for a fork: to be called where a client is about to read, write or make a socket. */
void watch_again(void);

/* In a forked child: the threads stayed with the parent. */
void watch_forked(void);
