/* SPDX-License-Identifier: Apache-2.0
 *
 * Which descriptors of this process stand in for NETLINK_XFRM sockets.
 *
 * An ordinary descriptor costs one load from a table.  Nothing is allocated; entries are taken from
 * a pool and returned when the last descriptor goes, or with what held it, a thread or parking.h.
 * A descriptor that was closed behind the shim's back is noticed by its inode before it is used.
 *
 * Threads: any.  A child of fork() keeps the sockets and gets side channels of its own; one of
 * vfork() shares this memory and changes nothing in it, but to say that it has a copy.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct shim_socket {
    atomic_int references; /* descriptors, and what holds it beside them; 0: free */
    dev_t device;          /* of the data socket */
    ino_t inode;
    pthread_mutex_t lock; /* all below; held while a request is under way */
    int side;             /* -1: to be opened */
    ino_t side_inode;
    int kept; /* the server's end of the data socket, so that it outlives the server; -1: none */
    ino_t kept_inode;
    uid_t user;  /* for whom it was opened */
    bool opened; /* a server knew it */
    bool bound;  /* the client knows of its port id, or has asked */
    bool quiet;  /* the data socket holds nothing to be read */
    uint32_t channel;
    uint32_t next_id;
    uint32_t port_id;
    uint32_t groups;
    uint32_t edition;         /* of the two, as last told; 0: never */
    uint32_t mark;            /* of sockets that bypass IPsec, as last told */
    uint32_t pid;             /* of the client, where it is another process; else 0 */
    int type;                 /* SOCK_RAW or SOCK_DGRAM, as the client asked */
    uint32_t options;         /* bit n: netlink option n is on */
    uint32_t told;            /* the same, as far as the server was told */
    uint32_t rooms[2];        /* SO_SNDBUF and SO_RCVBUF, as getsockopt() gives them; 0: not set */
    unsigned asked;           /* requests since there is a side channel */
    struct shim_slate* slate; /* NULL: none */
    /* Without the lock: */
    atomic_bool listens; /* in groups, or in the middle of a dump: waits without having asked */
    atomic_bool dumping; /* the end of a dump was not received yet */
    atomic_bool overrun; /* the reader is to be told that events were lost */
    atomic_bool evicted; /* the server gave its side channel to another process */
    atomic_bool watched; /* has its thread (watch.h) */
    _Atomic(uint64_t) seen_ns;  /* CLOCK_MONOTONIC: it was the descriptor's then */
    atomic_bool pending;        /* a reply is on the slate, to be received next */
    atomic_bool lost;           /* a reply was; the reader is to be told */
    atomic_bool kept_from_exec; /* all its descriptors are closed by exec */
    atomic_bool peculiar; /* shared, or changed by the client: not to be used for another socket */
};

/* What the socket's two ends are named, with 16 digits behind it, for those who inherit them. */
#define DATA_NAME "esplane-xfrm-"

/* The socket behind `fd`; NULL for any other descriptor. */
struct shim_socket* registry_find(int fd);

/* The same, without a look at a descriptor that was looked at some microseconds ago: where a
 * mistake does no harm, since what else could have taken its number comes by the shim, or fails. */
struct shim_socket* registry_find_again(int fd);

/* Says whether the socket's descriptor was looked at some microseconds ago. */
bool registry_was_seen(const struct shim_socket* s);

/* Makes `fd`, a data socket, and its server's end `kept` (-1: none) known; the latter is closed
 * with the last descriptor.  NULL where the pool or the table is full. */
struct shim_socket* registry_add(int fd, int kept, int type);

/* Calls `visit` for each socket, kept meanwhile. */
void registry_each(void (*visit)(struct shim_socket*, void*), void* context);

/* Says whether `fd` is the socket with that inode, not another that took its number. */
bool registry_is_socket(int fd, ino_t inode);

/* Keeps the socket while a thread works on it, though another closes its last descriptor.  False:
 * it is gone already. */
bool registry_hold(struct shim_socket* s);
void registry_let_go(struct shim_socket* s);

/* `copy` was made a duplicate of `original`, or took its place. */
void registry_copied(int original, int copy);

/* A descriptor of the socket is, or is no more, closed by exec: what is kept follows. */
void registry_closes_on_exec(struct shim_socket* s, bool closes);

/* What stands for `fd` stays until registry_let_go(), though `fd` is closed. */
struct shim_socket* registry_detach(int fd);

/* `fd` is the socket's again. */
void registry_attach(int fd, struct shim_socket* s);

/* Says whether `fd` is the socket's only descriptor and no thread works on it. */
bool registry_is_alone(const struct shim_socket* s);

/* `fd` is about to be closed. */
void registry_forget(int fd);
void registry_forget_range(unsigned first, unsigned last);

/* Finds the sockets that this process was started with. */
void registry_adopt(void);

/* What keeps a forked child's copy sound: called before a fork, and after it in the parent and in
 * the child.  Of a child that was made past fork() only the last is, when that first looks at a
 * descriptor. */
struct fork_hooks {
    void (*before)(void);
    void (*in_parent)(void);
    void (*in_child)(void);
};
void registry_start(const struct fork_hooks* hooks);

/* False in a child of vfork(), whose memory is its parent's. */
bool registry_is_own(void);
