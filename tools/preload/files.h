/* SPDX-License-Identifier: Apache-2.0
 *
 * The small files under /proc that tell of IPsec: /proc/net/xfrm_stat and the sysctls
 * net.core.xfrm_*.  Clients read esplaned's values and write them there.
 *
 * What is opened to be read is a memory file with the text of that moment.  What is opened to be
 * written is the kernel's file, so that what is written past the shim, by the C library's own
 * calls or a program that the client starts, arrives where esplaned looks if nobody told it
 * otherwise.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

/* The file's name without its folder, where `path` is one of them; else NULL. */
const char* files_name(const char* path);

/* open() of the file `name` at `path`.  -2: esplaned has none, it is to be opened natively. */
int files_open(const char* path, const char* name, int flags);

/* fopen() of it.  NULL with errno 0: esplaned has none, it is to be opened natively. */
FILE* files_fopen(const char* name, const char* mode);

/* write() to a descriptor of files_open().  False: `fd` is none. */
bool files_write(int fd, const void* data, size_t length, ssize_t* result);
