// SPDX-License-Identifier: Apache-2.0
//
// Objects of one size, close together on huge pages.
//
//   chunk, 2 MiB   [ who owns it, what is free ][ object ][ object ] ...
//
// Every object starts on a cache line of its own and is wiped when it is given back: keys may lie
// in here.  A chunk whose last object has gone is given back, too, but for one.  The first chunk
// lies on small pages, which cost what is touched of them: few objects stay few bytes.
//
// Threads: any.  Does not: construct or destroy (on_slab does).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>

#include "lib/base/huge_memory.h"

namespace esplane {

class slab {
  public:
    static constexpr std::size_t line = 64;

    /// size   of an object: a multiple of `line`, at most a quarter of a chunk
    explicit slab(std::size_t size) noexcept
        : size_(size) {}
    /// Nothing that was taken may be in use.
    ~slab();
    slab(const slab&) = delete;
    slab& operator=(const slab&) = delete;

    /// Zeroed; nullptr where there is no memory.
    [[nodiscard]] void* take() noexcept;
    /// Wipes what take() of any slab gave.
    static void give_back(void* object) noexcept;

    /// Chunks there are.
    [[nodiscard]] std::size_t chunks() const noexcept;

  private:
    struct chunk;
    struct free_object {
        free_object* next;
    };

    [[nodiscard]] chunk* add_chunk() noexcept;
    void make_huge(chunk* added) noexcept;
    void release(chunk* c) noexcept;
    void enlist(chunk* c) noexcept;
    void delist(chunk* c) noexcept;

    const std::size_t size_;
    mutable std::mutex mutex_;
    chunk* with_room_ = nullptr; ///< a list of those with room
    chunk* on_small_pages_ = nullptr;
    std::size_t chunks_ = 0;
};

/// Base of a class whose objects lie in a slab of their own.
template <typename T>
class on_slab {
  public:
    [[nodiscard]] static void* operator new(std::size_t) {
        static_assert(sizeof(T) % slab::line == 0 && alignof(T) == slab::line);
        static slab& objects = *new slab(sizeof(T)); // they may outlive all else
        void* const object = objects.take();
        if (object == nullptr) std::abort(); // as operator new does where nothing may throw
        return object;
    }
    static void operator delete(void* object) noexcept { slab::give_back(object); }

  protected:
    on_slab() = default;
    ~on_slab() = default;
};

} // namespace esplane
