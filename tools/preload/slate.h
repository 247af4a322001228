/* SPDX-License-Identifier: Apache-2.0
 *
 * The client's side of a slate (xfrm/shim_protocol.h): memory on which one process asks the server,
 * and reads its answers, without a system call where both are awake.
 *
 * Threads: the caller holds the socket's lock.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "xfrm/shim_protocol.h"

/* A new slate, not inherited by children; `*memory` is to be passed to the server, and closed.
 * NULL: errno. */
struct shim_slate* slate_make(int* memory);
void slate_drop(struct shim_slate* slate);

/* Asks; `takes`: the reply may be left on the slate.  True: the server is to be rung for. */
bool slate_ask(struct shim_slate* slate, const struct shim_header* h, const struct iovec* pieces,
               size_t count, bool takes);

/* Looks for the answer for some microseconds.  False: it is not there, and the server will say so
 * on the side channel when it is. */
bool slate_look(struct shim_slate* slate);

/* Say whether the answer is there; whether the server has the request, and not answered yet. */
bool slate_is_answered(struct shim_slate* slate);
bool slate_is_at_work(struct shim_slate* slate);

/* What is on it was read: it is blank, though the reply stays until the next request.  Returns
 * whether the server may have said on the side channel that it is there. */
bool slate_read(struct shim_slate* slate);

/* Takes back what was asked.  False: the server has it already. */
bool slate_take_back(struct shim_slate* slate);
