// SPDX-License-Identifier: Apache-2.0
//
// Room on the C library's heap before it is needed.
#pragma once

#include <cstddef>

namespace esplane {

/// Makes the heap of the first thread so much larger, all of it touched and on huge pages where the
/// system gives them, and keeps it so: what is freed is not given back to the system from here on,
/// and pieces of up to 32 MiB come from this heap.  Of glibc's malloc; another one may do nothing
/// with it.  False: there is no memory.
///
/// Before other threads use malloc, so that they get heaps of their own.
[[nodiscard]] bool reserve_heap(std::size_t size);

} // namespace esplane
