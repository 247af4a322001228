// SPDX-License-Identifier: Apache-2.0
//
// An allocator for small objects that live long: they share chunks of their own.
//
// On the heap they would come to lie in the holes that larger objects leave, and the next of those
// would not fit there again.
#pragma once

#include <cstddef>
#include <memory>
#include <memory_resource>

namespace esplane::fastpath {

/// Copies share the pool, which ends with the last of them and of what they allocated.
/// Threads: any.
template <class T>
class pooled {
  public:
    using value_type = T;

    pooled()
        : pool_(std::make_shared<std::pmr::synchronized_pool_resource>()) {}
    // No move: a container that is moved from keeps its allocator, and may be filled again.
    pooled(const pooled&) noexcept = default;
    pooled& operator=(const pooled&) noexcept = default;
    template <class Other>
    pooled(const pooled<Other>& other) noexcept
        : pool_(other.pool_) {}

    [[nodiscard]] T* allocate(std::size_t n) {
        return static_cast<T*>(pool_->allocate(n * sizeof(T), alignof(T)));
    }
    void deallocate(T* objects, std::size_t n) noexcept {
        pool_->deallocate(objects, n * sizeof(T), alignof(T));
    }
    template <class Other>
    bool operator==(const pooled<Other>& other) const noexcept {
        return pool_ == other.pool_;
    }

  private:
    template <class>
    friend class pooled;
    std::shared_ptr<std::pmr::memory_resource> pool_;
};

} // namespace esplane::fastpath
