/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim (tools/preload) and the XFRM server say to each other.
 *
 * Two sockets join them.  The data socket is what the client holds in place of its netlink socket:
 * one end of an AF_UNIX SOCK_SEQPACKET socketpair.  Netlink replies travel on it raw, so that recv,
 * poll, MSG_PEEK and MSG_TRUNC work natively; towards the server every datagram starts with a
 * shim_header.  The side channel is a connection to the server's path.  On it go the socket options
 * that AF_UNIX lacks, their answers, and a token for every request whose answer is readable, so
 * that the client's send returns only then, as it does with the kernel.
 *
 * The first datagram on a side channel is shim_open.  It passes the server's end of the data socket
 * (SCM_RIGHTS), of which the shim keeps a copy: the client's descriptor does not hang up when the
 * server ends.  The side channel does; the shim then connects anew and passes the same end, with
 * what the client had: its port id, its groups, its options.  A process that inherits a data socket
 * opens a side channel of its own in the same way; the server knows the data socket again.  Each
 * request names the side channel that waits for it; one that none waits for is not carried out, so
 * that what a server left unread is not done by the next.
 *
 * A process that may not connect to the path (any more) passes one end of a socketpair over the
 * data socket instead (shim_attach): it becomes its side channel.
 *
 * A process that asks often passes a slate as well: a page of memory on which it writes its request
 * and the server the answer, one at a time, both looking at it for some microseconds before they
 * sleep.  Who wakes a sleeping server rings (shim_bell); a sleeping client hears shim_done.  Where
 * the client says that it can, it takes the reply from the slate, too, if that is one datagram.
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
#define SHIM_VERSION 4

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
    shim_open,    /* side channel, first, with a descriptor, followed by struct shim_had; status of
                     the answer EALREADY: the data socket was known */
    shim_evicted, /* side channel, last, from the server: others took this channel's place */
    shim_share,   /* data socket, with the descriptor of a slate for side channel `channel`;
                     answered there */
    shim_reset,   /* side channel: the socket has no port id, no groups, no options any more */
    shim_bell,    /* data socket: there is a request on the slate of side channel `channel` */
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

/* With shim_open: what the data socket had at a server before.  Of what several processes tell the
 * server takes the latest, and that exactly. */
struct shim_had {
    uint32_t edition; /* from the latest shim_answer; 0: this process knows of nothing */
    uint32_t port_id;
    uint32_t groups;
    uint32_t options; /* bit n: netlink option n is on */
    uint32_t pid;     /* of the client, where it is not the process that connects */
};

/* What the client's end of a data socket receives, alone in a datagram, where events were lost: the
 * reader is to see ENOBUFS.  Shorter than any netlink message. */
#define SHIM_OVERRUN 0x4f565231u /* "OVR1" */

/* From the client on the side channel. */
struct shim_control {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t id;
    uint32_t argument;
    uint32_t value;
};

/* From the server on the side channel: to shim_open, shim_attach, shim_control; as shim_done. */
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
    uint32_t edition; /* counts the changes of port id, groups and options */
};

/* Whose turn a slate is.  From asked on it is the server's, unless the client can take it back. */
enum shim_turn {
    shim_blank = 0, /* nothing is asked */
    shim_asked,     /* by the client; it may yet make it blank */
    shim_at_work,   /* the server has the request */
    shim_answered,
};

/* The longest request, and the longest reply, on a slate. */
#define SHIM_SLATE_ROOM 3840

/* In a memory file of that size, sealed so that it cannot be cut short.  The client may yet punch a
 * hole into it: that reads as 0, blank. */
#define SHIM_SLATE_SIZE 8192
struct shim_slate {
    uint32_t turn;   /* shim_turn; where both may change it, by compare and exchange */
    uint32_t awake;  /* by the server: it looks here; 0: it wants to be rung for */
    uint32_t asleep; /* by the client: it waits on its side channel for shim_done */
    uint32_t takes;  /* by the client: the reply may be left here */
    uint32_t length; /* of the request, then of the reply; 0: that is on the data socket */
    struct shim_header header;
    struct shim_answer answer;
    uint8_t request[SHIM_SLATE_ROOM];
    uint8_t reply[SHIM_SLATE_ROOM];
};

/* From the server on the data socket: to shim_read and shim_write, followed by what was read. */
struct shim_text {
    uint32_t magic;
    uint16_t version;
    uint16_t kind;
    uint32_t id;
    uint32_t status; /* 0, ENOENT: no such file, EACCES: not to be written, EINVAL: not a value */
};
