// SPDX-License-Identifier: Apache-2.0
#include "fastpath/numa.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace esplane::fastpath {

namespace {

constexpr int max_nodes = 1024; ///< CONFIG_NODES_SHIFT is 10 at most

/// A set of one node, as the system calls want it: they count a bit more than there are.
struct node_mask {
    static constexpr unsigned bits = 8 * sizeof(unsigned long);
    std::array<unsigned long, max_nodes / bits> words{};

    explicit node_mask(int node) noexcept {
        words[static_cast<unsigned>(node) / bits] = 1ul << (static_cast<unsigned>(node) % bits);
    }
};

} // namespace

int node_of_cpu(int cpu) noexcept {
    std::array<char, 64> path;
    for (int node = 0; cpu >= 0 && node < max_nodes; ++node) {
        std::snprintf(path.data(), path.size(), "/sys/devices/system/cpu/cpu%d/node%d", cpu, node);
        if (::access(path.data(), F_OK) == 0) return node;
    }
    return -1;
}

void prefer_node(void* at, std::size_t bytes, int node) noexcept {
    if (node < 0) return;
    const node_mask mask(node);
    (void)::syscall(SYS_mbind, at, bytes, MPOL_PREFERRED, mask.words.data(), max_nodes + 1, 0);
}

int node_of_page(void* at) noexcept {
    int node = -1;
    if (::syscall(SYS_get_mempolicy, &node, nullptr, 0, at, MPOL_F_NODE | MPOL_F_ADDR) != 0)
        return -1;
    return node;
}

node_scope::node_scope(int node) noexcept
    : set_(false) {
    if (node < 0) return;
    const node_mask mask(node);
    set_ = ::syscall(SYS_set_mempolicy, MPOL_PREFERRED, mask.words.data(), max_nodes + 1) == 0;
}

node_scope::~node_scope() {
    if (set_) (void)::syscall(SYS_set_mempolicy, MPOL_DEFAULT, nullptr, 0);
}

} // namespace esplane::fastpath
