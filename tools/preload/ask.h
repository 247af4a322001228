/* SPDX-License-Identifier: Apache-2.0
 *
 * What a socket asks of the server, over the side channel, the data socket or the slate.
 *
 * Return -1 and set errno where they fail.  Threads: the caller holds the socket's lock.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>

#include "tools/preload/registry.h"

/* Sets something at the server: shim_bind, shim_join, ...  Asked again of the next server where one
 * ended: to ask twice does no harm. */
int ask_control(struct shim_socket* s, int fd, uint16_t kind, uint32_t argument, uint32_t value);

/* A request of `length` bytes, at most SHIM_REQUEST_MAX, in fewer than IOV_MAX pieces; see
 * channel_send(). */
ssize_t ask_request(struct shim_socket* s, int fd, const struct msghdr* m, size_t length,
                    int flags);
