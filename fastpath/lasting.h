// SPDX-License-Identifier: Apache-2.0
//
// Memory that outlives the process: what workers count of SAs is there after kill -9, too.
//
//   file   [ header ][ chunk ][ chunk ] ...        2 MiB each, one kind of object in each
//   chunk  [ what it holds ][ object ][ object ] ...
//
// A chunk lies on a huge page, but for the first of each kind.
//
// The file lies in memory (tmpfs or memfd), never on a disk: writing to a page that the kernel is
// about to write back would stop a worker.  So nothing is done on the packet path for it: sequence
// numbers, windows and counters simply stand there, and who comes after finds the last store.  It
// holds pointers, which mean nothing then, and no keys.
//
// The header says where in an object each number stands, so another version can read it; version 1,
// whose chunks had 1 MiB and followed the header at once, is read, too.
// Threads: control's, and any that frees an object.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "lib/base/huge_memory.h"
#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "lib/ipsec/sa.h"

namespace esplane::fastpath {

enum class lasting_kind : std::uint32_t { none, inbound, outbound };
inline constexpr std::size_t lasting_kinds = 3;

/// Where in an object of one kind its numbers are: bytes from its start.
struct lasting_layout {
    std::uint32_t size;        ///< of the object, from one to the next
    std::uint32_t in_force;    ///< std::atomic<bool>
    std::uint32_t destination; ///< ipsec::address
    std::uint32_t spi;
    std::uint32_t mark;
    std::uint32_t number; ///< last sent, or highest received: 64 bits, as all that follow
    std::uint32_t packets;
    std::uint32_t bytes;
    std::uint32_t last_used;
    std::uint32_t use_time;

    friend bool operator==(const lasting_layout&, const lasting_layout&) = default;
};

/// Which set of SAs the numbers are of: the state file has the same.
using lasting_name = std::array<std::uint8_t, 16>;

class lasting_memory {
  public:
    static constexpr std::size_t chunk_size = huge_memory::page;

    /// Of this process: nothing of it lasts.
    lasting_memory() = default;
    /// Of an empty file in memory, which it owns and fills with a header.
    /// Errors: what ftruncate, fallocate and mmap give.
    [[nodiscard]] static result<std::unique_ptr<lasting_memory>> make(unique_fd file,
                                                                      const lasting_name& name);
    /// Nothing that was taken may be in use.
    ~lasting_memory();
    lasting_memory(const lasting_memory&) = delete;
    lasting_memory& operator=(const lasting_memory&) = delete;

    /// From here on what becomes of the objects is this process's alone: the file stays as it is.
    void detach();

    /// Zeroed room for an object of that kind, on a line of its own.  Where the file cannot grow,
    /// of memory that does not last.
    [[nodiscard]] void* take(lasting_kind kind, std::size_t size);
    /// Has room for so many objects of that kind, touched already.
    void reserve(lasting_kind kind, std::size_t size, std::size_t count);
    /// Of whichever memory it is.
    static void give_back(void* object) noexcept;

    /// What took memory that does not last.
    [[nodiscard]] std::uint64_t short_of() const noexcept {
        return short_of_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] int descriptor() const noexcept { return file_.get(); }

    /// For what has no memory of its own: tests, and SAs that need not last.
    [[nodiscard]] static lasting_memory& of_this_process();

  private:
    struct chunk;

    /// touched   and on a huge page: it will not stay nearly empty
    void fill(lasting_kind kind, std::size_t size, bool touched);
    [[nodiscard]] bool grow_file();
    void note_shortage();

    std::mutex mutex_;
    unique_fd file_;
    std::size_t chunks_in_file_ = 0;
    std::vector<chunk*> chunks_;
    std::array<std::vector<void*>, lasting_kinds> free_;
    std::atomic<std::uint64_t> short_of_{0};
};

/// What is known of an SA by its number, in one direction.
struct lasting_numbers {
    std::size_t place = 0; ///< in the file
    lasting_kind kind = lasting_kind::none;
    ipsec::sa_id id;
    std::uint64_t number = 0;
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t last_used = 0;
    std::uint64_t use_time = 0;

    friend bool operator==(const lasting_numbers&, const lasting_numbers&) = default;
};

/// Calls `f` for each SA in force in a file that another process has filled, whichever of them is
/// still running; in the order of their places.  An SA may come more than once: it was moved, or is
/// spread.
///
/// returns  whether all are in it that a worker knew; else there was no room for some
/// Errors: EINVAL where the file is none of ours, or not that of `name`; what mmap gives.
[[nodiscard]] result<bool> read_lasting(int file, const lasting_name& name,
                                        const std::function<void(const lasting_numbers&)>& f);

} // namespace esplane::fastpath
