// SPDX-License-Identifier: Apache-2.0
//
// What the address and leak sanitizers cannot know of memory that does not come from malloc.
// Nothing in other builds.
#pragma once

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define ESPLANE_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ESPLANE_ASAN 1
#endif
#endif
#ifdef ESPLANE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/lsan_interface.h>
#endif

namespace esplane {

/// What objects in here point to is not leaked.
inline void show_to_leak_check([[maybe_unused]] const void* memory,
                               [[maybe_unused]] std::size_t size) noexcept {
#ifdef ESPLANE_ASAN
    __lsan_register_root_region(memory, size);
#endif
}

inline void hide_from_leak_check([[maybe_unused]] const void* memory,
                                 [[maybe_unused]] std::size_t size) noexcept {
#ifdef ESPLANE_ASAN
    __lsan_unregister_root_region(memory, size);
#endif
}

/// Whoever touches it from here on has made a mistake.
inline void forbid_touch([[maybe_unused]] const void* memory,
                         [[maybe_unused]] std::size_t size) noexcept {
#ifdef ESPLANE_ASAN
    __asan_poison_memory_region(memory, size);
#endif
}

inline void allow_touch([[maybe_unused]] const void* memory,
                        [[maybe_unused]] std::size_t size) noexcept {
#ifdef ESPLANE_ASAN
    __asan_unpoison_memory_region(memory, size);
#endif
}

} // namespace esplane
