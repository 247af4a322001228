/* SPDX-License-Identifier: Apache-2.0
 *
 * The side channel of a socket (xfrm/shim_protocol.h): opened when it is needed, and anew when the
 * server has ended; what the server says there.
 *
 * Those that can fail return -1 and set errno.  Threads: the caller is between side_enter() and
 * side_leave(), except of those two and side_mend().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "tools/preload/registry.h"
#include "xfrm/shim_protocol.h"

/* Holds the socket and its lock, in a stretch where a cancelled thread must not vanish.  False:
 * EBADF, it is gone; ENOBUFS, this is a signal's handler that interrupted such a stretch. */
bool side_enter(struct shim_socket* s, int* cancel);
void side_leave(struct shim_socket* s, int cancel);

/* What an answer says of the socket. */
void side_learn(struct shim_socket* s, const struct shim_answer* a);

/* Waits for the answer of that kind and id; those of requests given up earlier are dropped.
 * ENOBUFS: it did not come in time; see side_is_away(). */
int side_wait(struct shim_socket* s, uint16_t kind, uint32_t id, uint64_t until_ns,
              struct shim_answer* a);

/* Says whether the side channel is there, and its number not another's: the client may have closed
 * it with all that it does not know. */
bool side_is_own(const struct shim_socket* s);

/* Drops words that nobody waited for in the end: never so many that one finds no room. */
void side_drain(struct shim_socket* s);

/* Closes it, and drops the slate, which is for this side channel alone.  A reply on that stays, on
 * the data socket. */
void side_close(struct shim_socket* s);

/* Gives the socket a side channel if it has none: new, inherited, closed by the client, dropped by
 * the server, or of a server that has ended.  `fd` is the data socket; -1: not at hand. */
int side_attach(struct shim_socket* s, int fd);

/* The same; waits for a server to be there.  ENOBUFS: none came. */
int side_attach_until(struct shim_socket* s, int fd, uint64_t until_ns);

/* Says whether an error means that a server, which is being started again, may yet mend it. */
bool side_is_away(int code);

/* Says whether the socket's reader waits without having asked. */
bool side_is_watched(const struct shim_socket* s);

/* Opens it anew where its server has ended, if there is one again, and lets the reader know what it
 * missed.  Returns side_is_watched(), or whether there is more to be told. */
bool side_mend(struct shim_socket* s);
