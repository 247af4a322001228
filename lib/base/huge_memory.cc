// SPDX-License-Identifier: Apache-2.0
#include "lib/base/huge_memory.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <span>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "lib/base/sanitizer.h"

// Younger than the headers that we build with.
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

namespace esplane::huge_memory {

namespace {

std::atomic<std::size_t> not_huge{0};

/// Fresh from the system, at a multiple of `page`.
std::uint8_t* map(std::size_t size) noexcept {
    void* const reserved = ::mmap(nullptr, size + page, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return nullptr;
    auto* const start = static_cast<std::uint8_t*>(reserved);
    const std::size_t skip = (page - reinterpret_cast<std::uintptr_t>(start) % page) % page;
    if (skip != 0) ::munmap(start, skip);
    ::munmap(start + skip + size, page - skip);
    (void)::madvise(start + skip, size, MADV_DONTDUMP); // there may be keys in it
    return start + skip;
}

/// The small pages that memory is in.
std::span<std::uint8_t> whole_pages(void* memory, std::size_t size) noexcept {
    const auto small = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
    const auto start = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t from = start / small * small;
    const std::uintptr_t to = (start + size + small - 1) / small * small;
    return {reinterpret_cast<std::uint8_t*>(from), to - from};
}

/// What was put aside.
class reserve_of_process {
  public:
    void add(std::uint8_t* memory, std::size_t size) {
        const std::lock_guard lock(mutex_);
        regions_.push_back({memory, std::vector(size / page, state::clean)});
    }

    /// The first place that is large enough; nullptr: there is none.
    void* take(std::size_t size) noexcept {
        const std::lock_guard lock(mutex_);
        const std::size_t count = size / page;
        for (region& r : regions_) {
            const auto is_free = [](state s) { return s != state::in_use; };
            auto from = r.pieces.begin();
            for (;;) {
                from = std::find_if(from, r.pieces.end(), is_free);
                if (static_cast<std::size_t>(r.pieces.end() - from) < count) break;
                const auto to = from + static_cast<std::ptrdiff_t>(count);
                const auto occupied = std::find(from, to, state::in_use);
                if (occupied == to) return use(r, from, to);
                from = occupied;
            }
        }
        return nullptr;
    }

    /// False: it is none of it.
    bool give_back(void* memory, std::size_t size) noexcept {
        const std::lock_guard lock(mutex_);
        const auto* const at = static_cast<const std::uint8_t*>(memory);
        for (region& r : regions_) {
            if (at < r.start || at >= r.start + r.pieces.size() * page) continue;
            const auto first =
                r.pieces.begin() + (at - r.start) / static_cast<std::ptrdiff_t>(page);
            std::fill_n(first, size / page, state::used);
            return true;
        }
        return false;
    }

    void count(figures& into) noexcept {
        const std::lock_guard lock(mutex_);
        for (const region& r : regions_) {
            const auto in_use = std::count(r.pieces.begin(), r.pieces.end(), state::in_use);
            into.reserved += r.pieces.size() * page;
            into.unused += (r.pieces.size() - static_cast<std::size_t>(in_use)) * page;
        }
    }

  private:
    enum class state : std::uint8_t { clean, used, in_use };
    struct region {
        std::uint8_t* start;
        std::vector<state> pieces;
    };
    using piece = std::vector<state>::iterator;

    static void* use(region& r, piece from, piece to) noexcept {
        std::uint8_t* const memory =
            r.start + static_cast<std::size_t>(from - r.pieces.begin()) * page;
        for (piece p = from; p != to; ++p) {
            if (*p == state::used) std::memset(memory + (p - from) * page, 0, page);
            *p = state::in_use;
        }
        return memory;
    }

    std::mutex mutex_;
    std::vector<region> regions_;
};

reserve_of_process& reserved() noexcept {
    static auto& one = *new reserve_of_process; // what lies in it may outlive all else
    return one;
}

} // namespace

void* take(std::size_t size, pages wanted) noexcept {
    void* memory = reserved().take(size);
    if (memory == nullptr) {
        memory = map(size);
        if (memory == nullptr) return nullptr;
        if (wanted == pages::huge) prefer_huge(memory, size);
    }
    show_to_leak_check(memory, size);
    return memory;
}

void give_back(void* memory, std::size_t size) noexcept {
    hide_from_leak_check(memory, size);
    if (!reserved().give_back(memory, size)) ::munmap(memory, size);
}

void prefer_huge(void* memory, std::size_t size) noexcept {
    const auto whole = whole_pages(memory, size);
    (void)::madvise(whole.data(), whole.size(), MADV_HUGEPAGE);
}

/// Kernels before 5.14 do not know how.
bool touch(void* memory, std::size_t size) noexcept {
    const auto whole = whole_pages(memory, size);
    return ::madvise(whole.data(), whole.size(), MADV_POPULATE_WRITE) == 0 || errno == EINVAL;
}

void make_huge(void* memory) noexcept {
    prefer_huge(memory, page);
    (void)touch(memory, page); // what is not there yet is touched when it is used
    if (::madvise(memory, page, MADV_COLLAPSE) != 0)
        not_huge.fetch_add(page, std::memory_order_relaxed);
}

bool reserve(std::size_t size) noexcept {
    size = (size + page - 1) / page * page;
    if (size == 0) return true;
    std::uint8_t* const memory = map(size);
    if (memory == nullptr) return false;
    prefer_huge(memory, size);
    if (!touch(memory, size)) {
        ::munmap(memory, size);
        return false;
    }
    for (std::size_t at = 0; at != size; at += page)
        make_huge(memory + at);
    reserved().add(memory, size);
    return true;
}

figures now() noexcept {
    figures f;
    reserved().count(f);
    f.not_huge = not_huge.load(std::memory_order_relaxed);
    return f;
}

} // namespace esplane::huge_memory
