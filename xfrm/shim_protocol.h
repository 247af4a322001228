/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim (tools/preload) and the XFRM server say to each other.
 *
 * Two sockets join them.  The data socket (AF_UNIX, SOCK_SEQPACKET, connected to the server's path)
 * is what the client holds in place of its netlink socket: netlink replies travel on it raw, so
 * that recv, poll, MSG_PEEK and MSG_TRUNC work natively; towards the server every datagram starts
 * with a shim_header.  The side channel is one end of a socketpair that the shim passes over the
 * data socket (SCM_RIGHTS, with a header of kind shim_attach).  On it go the socket options that
 * AF_UNIX lacks, their answers, and a token for every request whose answer is readable, so that the
 * client's send returns only then, as it does with the kernel.
 *
 * A process that inherits a data socket attaches a side channel of its own; each request names
 * the one that waits for it.
 *
 * What clients read and write as small files under /proc (`xfrm_stat`, `xfrm_acq_expires`, ...: the
 * file's name without its folder) goes over a data socket made for that alone: no side channel,
 * one shim_read or shim_write, one shim_text.
 *
 * Both ends are on one machine and of one build: host byte order; another version is refused.
 */
#pragma once

#include <stdint.h>

#define SHIM_MAGIC 0x45535031u /* "ESP1" */
#define SHIM_VERSION 3

/* The environment variable that holds the path of the server's socket. */
#define SHIM_SOCKET_VARIABLE "ESPLANE_XFRM_SOCKET"

/* The longest datagram a client may send, without its header. */
#define SHIM_REQUEST_MAX 65536

/* The longest text of shim_read and shim_write. */
#define SHIM_TEXT_MAX 4096

/* How long a client waits for an answer, and how much longer than the server works on it. */
#define SHIM_ANSWER_TIMEOUT_NS 10000000000ull
#define SHIM_ANSWER_GRACE_NS 500000000ull

enum shim_kind {
    shim_attach = 1, /* data socket, with a descriptor; answered on the side channel */
    shim_request,    /* data socket, followed by netlink messages */
    shim_done,       /* side channel, from the server: request `id` is answered; status ENOBUFS:
                        for lack of room not all of the answer is there */
    shim_bind,       /* side channel: argument = port id (0: any), value = bit mask of groups */
    shim_join,       /* side channel: argument = number of a group */
    shim_leave,      /* side channel: argument = number of a group */
    shim_option,     /* side channel: argument = NETLINK_CAP_ACK or NETLINK_EXT_ACK, value = 0, 1 */
    shim_read,       /* data socket, followed by the name of a file; see shim_text */
    shim_write,      /* data socket, followed by that name, a 0 byte and what to write */
};

/* In front of every datagram from the client on the data socket. */
struct shim_header {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t channel;     /* which side channel waits: from shim_answer */
    uint32_t id;          /* chosen by the client, returned in shim_done */
    uint64_t deadline_ns; /* CLOCK_MONOTONIC; no answer is sent after it */
};

/* From the client on the side channel. */
struct shim_control {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t id;
    uint32_t argument;
    uint32_t value;
};

/* From the server on the side channel: to shim_attach, to shim_control, and as shim_done. */
struct shim_answer {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t id;
    uint32_t status;  /* 0 or an errno value */
    uint32_t channel; /* number of this side channel */
    uint32_t port_id; /* of the socket; 0 until its first request or bind */
    uint32_t groups;  /* bit mask of the multicast groups it is in */
    uint32_t mark;    /* SO_MARK of what esplane leaves alone: ESP, IKE; 0: it needs none */
};

/* From the server on the data socket: to shim_read and shim_write, followed by what was read. */
struct shim_text {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t id;
    uint32_t status; /* 0, ENOENT: no such file, EACCES: not to be written, EINVAL: not a value */
};
