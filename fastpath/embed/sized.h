// SPDX-License-Identifier: Apache-2.0
//
// Structs of the C interface that may be longer or shorter than this version's.
//
// Their first field is `size`, what the embedder's compiler said.  A shorter one comes from an
// earlier version: what it lacks is zero.  A longer one comes from a later version: what this one
// does not know must be zero.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "lib/api/esplane/esplane.h"
#include "lib/base/result.h"

namespace esplane::embed {

/// The length that a struct had in the first version: nothing valid is shorter.
template <typename T>
inline constexpr std::size_t first_size = sizeof(T);
template <>
inline constexpr std::size_t first_size<esplane_engine_options> = offsetof(esplane_engine_options,
                                                                           library_gcm);

/// No struct of any version is longer: a `size` above it was never set, and nothing that far from
/// the struct is read or written.
inline constexpr std::size_t longest_size = 4096;

/// Errors: EINVAL.
template <typename T>
[[nodiscard]] result<void> check_size(std::size_t size, const char* name) {
    static_assert(sizeof(T) <= longest_size);
    if (size < first_size<T>)
        return fail(EINVAL, std::string(name) + ".size is too small: use the _init function",
                    "size");
    if (size > longest_size)
        return fail(EINVAL,
                    std::string(name) + ".size is that of no struct: use the _init function",
                    "size");
    return {};
}

/// A copy of what was handed in.  Errors: EINVAL, E2BIG.
template <typename T>
[[nodiscard]] result<T> take(const T* given, const char* name) {
    if (given == nullptr) return fail(EINVAL, std::string(name) + " is NULL", name);
    std::size_t size;
    std::memcpy(&size, given, sizeof size);
    if (auto ok = check_size<T>(size, name); !ok) return tl::unexpected(ok.error());
    const auto* bytes = reinterpret_cast<const unsigned char*>(given);
    if (size > sizeof(T) &&
        std::any_of(bytes + sizeof(T), bytes + size, [](unsigned char b) { return b != 0; }))
        return fail(E2BIG, std::string(name) + " has fields set that this version does not know",
                    name);
    T copy{};
    std::memcpy(&copy, given, std::min(size, sizeof(T)));
    copy.size = sizeof(T);
    return copy;
}

/// Whether there is room for an answer.  Errors: EINVAL.
template <typename T>
[[nodiscard]] result<void> check_room(const T* into, const char* name) {
    if (into == nullptr) return fail(EINVAL, std::string(name) + " is NULL", name);
    return check_size<T>(into->size, name);
}

/// Writes an answer as far as there is room; what this version does not know is zero.
template <typename T>
void give(T* into, const T& answer) noexcept {
    const std::size_t size = into->size;
    auto* bytes = reinterpret_cast<unsigned char*>(into);
    std::memcpy(bytes, &answer, std::min(size, sizeof(T)));
    if (size > sizeof(T)) std::memset(bytes + sizeof(T), 0, size - sizeof(T));
    into->size = size;
}

} // namespace esplane::embed
