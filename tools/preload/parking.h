/* SPDX-License-Identifier: Apache-2.0
 *
 * A closed socket that is as good as new is kept, open, for the next one: iproute2 opens one for
 * every line of a batch.  One a process, of those that open and close several; not where the client
 * did with it what a new socket would not know of, shares it, or lets it be inherited; nor past a
 * change of what the process may do, by which a new socket might be refused.
 *
 * Its descriptor's number is not free meanwhile.  Who closes it behind the shim's back, or puts
 * another in its place, gets what the kernel makes of it.
 */
#pragma once

#include <stdbool.h>

/* close(): false where `fd` is to be closed indeed. */
bool parking_keep(int fd);

/* socket() of that type.  -1: there is none, or its server has gone. */
int parking_take(int type);

/* Closes what is kept: before a socket is bound, to which its port id may be of use. */
void parking_clear(void);

/* The same; and no socket of now is kept: others will share it, or may not have it. */
void parking_exclude_all(void);

/* Around a fork: nothing is kept meanwhile, nor in the child. */
void parking_before_fork(void);
void parking_after_fork(void);
void parking_forked(void);
