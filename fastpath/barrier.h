// SPDX-License-Identifier: Apache-2.0
//
// A memory barrier that one thread makes all threads of the process pass: membarrier(2).
//
// What it is for: a worker writes, then looks whether it still may; control forbids, calls this,
// then reads.  Either the worker sees that it may not, or control sees what it wrote, and the
// worker pays nothing.
#pragma once

namespace esplane::fastpath {

/// Threads: any but the workers.  Where the kernel has no membarrier it waits for as long as no
/// processor keeps a store to itself.
void barrier_on_all_threads() noexcept;

} // namespace esplane::fastpath
