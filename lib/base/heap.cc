// SPDX-License-Identifier: Apache-2.0
#include "lib/base/heap.h"

#include <cstdlib>
#include <malloc.h>
#include <vector>

#include "lib/base/huge_memory.h"

namespace esplane {

namespace {

constexpr int largest_piece = 32 << 20;                   ///< M_MMAP_THRESHOLD takes no more
constexpr std::size_t block_size = std::size_t{16} << 20; ///< from the heap itself

} // namespace

/// Blocks that are freed at the end of the heap stay there.
bool reserve_heap(std::size_t size) {
    (void)::mallopt(M_TRIM_THRESHOLD, -1); // never
    (void)::mallopt(M_MMAP_THRESHOLD, largest_piece);
    std::vector<void*> blocks;
    bool done = true;
    for (std::size_t got = 0; done && got < size; got += block_size) {
        void* const block = std::malloc(block_size);
        done = block != nullptr;
        blocks.push_back(block);
        if (done) huge_memory::prefer_huge(block, block_size);
    }
    for (std::size_t i = 0; done && i < blocks.size(); ++i)
        done = huge_memory::touch(blocks[i], block_size);
    while (!blocks.empty()) { // the last first: it joins what is behind it
        std::free(blocks.back());
        blocks.pop_back();
    }
    return done;
}

} // namespace esplane
