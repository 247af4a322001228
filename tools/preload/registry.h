/* SPDX-License-Identifier: Apache-2.0
 *
 * Which descriptors of this process stand in for NETLINK_XFRM sockets.
 *
 * An ordinary descriptor costs one load from a table.  Nothing is allocated; entries are taken from
 * a pool and returned when the last descriptor goes.  A descriptor that was closed behind the
 * shim's back is noticed by its inode before it is used.
 *
 * Threads: any.  A child of fork() keeps the sockets and gets side channels of its own; one of
 * vfork() shares this memory and changes nothing in it.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct shim_socket {
    atomic_int references; /* descriptors, and threads at work on it; 0: free */
    dev_t device;          /* of the data socket */
    ino_t inode;
    pthread_mutex_t lock; /* all below; held while a request is under way */
    int side;             /* -1: to be attached */
    ino_t side_inode;
    uint32_t channel;
    uint32_t next_id;
    uint32_t port_id;
    uint32_t groups;
    uint32_t mark;    /* of sockets that bypass IPsec, as last told */
    int type;         /* SOCK_RAW or SOCK_DGRAM, as the client asked */
    uint32_t options; /* bit n: netlink option n is on */
};

/* The socket behind `fd`; NULL for any other descriptor. */
struct shim_socket* registry_find(int fd);

/* Makes `fd`, a connected data socket, known.  NULL where the pool or the table is full. */
struct shim_socket* registry_add(int fd, int type);

/* Keeps the socket while a thread works on it, though another closes its last descriptor.  False:
 * it is gone already. */
bool registry_hold(struct shim_socket* s);
void registry_let_go(struct shim_socket* s);

/* `copy` was made a duplicate of `original`, or took its place. */
void registry_copied(int original, int copy);

/* `fd` is about to be closed. */
void registry_forget(int fd);
void registry_forget_range(unsigned first, unsigned last);

/* Finds the sockets that this process was started with: those connected to `path`. */
void registry_adopt(const char* path);

/* Sets the handlers that keep a forked child's copy sound. */
void registry_start(void);
