/* SPDX-License-Identifier: Apache-2.0
 *
 * The sockets between a client and the XFRM server (xfrm/shim_protocol.h): how they are made.
 *
 * All return -1 and set errno where they fail.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "xfrm/shim_protocol.h"

/* The path of the server's socket; NULL: the shim was not asked for. */
const char* link_path(void);

/* The name of the file of the AppArmor profile that confines this process.  False: none does. */
bool link_profile(char* name, size_t room);

/* A connection to the server, closed by exec.  No send on it takes longer than an answer may. */
int link_connect(void);

/* A data socket: ends[0] for the client, with `flags` of socketpair(); ends[1] for the server, with
 * a name by which heirs of both find them, and above the numbers of ordinary descriptors. */
int link_data_socket(int flags, int ends[2]);

/* Sends a header of that kind, with `passed`, then `length` bytes of `body`. */
int link_pass(int fd, enum shim_kind kind, uint32_t channel, int passed, const void* body,
              size_t length);

/* Moves a descriptor above those that clients use with select(), or leaves it; closed by exec. */
int link_move_up(int fd);
