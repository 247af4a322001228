// SPDX-License-Identifier: Apache-2.0
//
// Memory in pieces of 2 MiB, on huge pages where the system gives them.
//
//   reserve   [ in use ][ free ][ free ][ in use ] ...   put aside and touched before it is needed
//   fresh     what the reserve has no room for, from the system
//
// A page of 4 KiB that is touched for the first time costs 1 to 2 us, and some 10 us in a virtual
// machine whose host has to find the memory first: as long as all else that a new SA takes.  A huge
// page costs the guest a fifteenth of that.  Workers that read many SAs wait for the pages' places,
// too, where there are too many for the processor to remember.
//
// Threads: any.
#pragma once

#include <cstddef>
#include <cstdint>

namespace esplane::huge_memory {

inline constexpr std::size_t page = std::size_t{2} << 20;

/// How memory begins that is not of the reserve: one that is mostly left empty had better be small.
enum class pages : std::uint8_t { small, huge };

/// `size` zeroed bytes, a multiple of `page`, that start at one.  They are in no core dump.
/// nullptr: there is no memory.
[[nodiscard]] void* take(std::size_t size, pages wanted) noexcept;
/// Wiping what is secret in it is the caller's.
void give_back(void* memory, std::size_t size) noexcept;

/// Asks for huge pages when the memory, whoever's it is, is touched; with that of its neighbours
/// in the same small pages.
void prefer_huge(void* memory, std::size_t size) noexcept;
/// Touches all of it, as prefer_huge(); what it holds stays.  False: there is no memory.
[[nodiscard]] bool touch(void* memory, std::size_t size) noexcept;
/// Touches the memory of one page and puts it, with what it holds, on a huge one.  Where the kernel
/// has none, or does not know how (before 6.1), that is counted and the memory is as good as it
/// was.
void make_huge(void* memory) noexcept;

/// Puts so many bytes more aside, touched, until the process ends.  False: there is no memory.
[[nodiscard]] bool reserve(std::size_t size) noexcept;

struct figures {
    std::size_t reserved = 0; ///< bytes put aside
    std::size_t unused = 0;   ///< of these
    std::size_t not_huge = 0; ///< bytes for which make_huge() found none
};
[[nodiscard]] figures now() noexcept;

} // namespace esplane::huge_memory
