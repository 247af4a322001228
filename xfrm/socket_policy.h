/* SPDX-License-Identifier: Apache-2.0
 *
 * The policy that a client gives one of its own sockets (IP_XFRM_POLICY, IPV6_XFRM_POLICY).
 *
 * For the shim, which is C.  Does not: judge what the kernel would refuse.
 */
#pragma once

#include <linux/xfrm.h>
#include <stddef.h>
#include <string.h>

enum socket_policy {
    socket_policy_none,       /* the socket is to have none any more */
    socket_policy_bypass_in,  /* what it receives needs no protection */
    socket_policy_bypass_out, /* what it sends goes out in clear */
    socket_policy_other,      /* protects or blocks: esplane carries none of these */
};

/* Reads the option's value: struct xfrm_userpolicy_info, then templates. */
static inline enum socket_policy read_socket_policy(const void* value, size_t length) {
    struct xfrm_userpolicy_info p;
    if (value == NULL && length == 0) return socket_policy_none;
    if (value == NULL || length != sizeof p) return socket_policy_other;
    memcpy(&p, value, sizeof p);
    if (p.action != XFRM_POLICY_ALLOW) return socket_policy_other;
    if (p.dir == XFRM_POLICY_IN) return socket_policy_bypass_in;
    return p.dir == XFRM_POLICY_OUT ? socket_policy_bypass_out : socket_policy_other;
}
