// SPDX-License-Identifier: Apache-2.0
//
// Memory on the node of the CPU that uses it.  By the system calls: there is little of it.
//
// All of it is a wish.  Where a node is not known, or the kernel will not, memory lies where it
// would have lain.
// Threads: each call concerns its caller's thread, or the memory it names.
#pragma once

#include <cstddef>

namespace esplane::fastpath {

/// The NUMA node of a CPU; -1 where it cannot be found, as for CPU -1.
[[nodiscard]] int node_of_cpu(int cpu) noexcept;

/// Wishes pages, not yet touched, onto a node.  at   on a page.  node   -1: nothing changes
void prefer_node(void* at, std::size_t bytes, int node) noexcept;

/// The node that a page lies on, touched or not; -1 where the kernel does not say.
[[nodiscard]] int node_of_page(void* at) noexcept;

/// While it lives, pages that this thread is the first to touch lie on a node, if there is room.
class node_scope {
  public:
    explicit node_scope(int node) noexcept;
    ~node_scope();
    node_scope(const node_scope&) = delete;
    node_scope& operator=(const node_scope&) = delete;

  private:
    bool set_;
};

} // namespace esplane::fastpath
