// SPDX-License-Identifier: Apache-2.0
//
// Where a daemon's state lies while there is no daemon: two files, found by whoever comes next.
//
//   log    what the databases hold (lib/control/journal.h); a file of the operator's choice, too
//   live   what workers count (fastpath/lasting.h); always in memory
//
// Two kinds of place: files with names, in memory by default; and nameless ones, which the service
// manager keeps (systemd's file descriptor store) or another daemon hands over.
// Both files are this user's alone (0600); others are refused.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "lib/base/result.h"
#include "lib/base/unique_fd.h"
#include "tools/disk_sync.h"

namespace esplane::tools {

enum class state_part { log, live };

class state_place {
  public:
    virtual ~state_place() = default;

    /// What an earlier daemon left; invalid where there is nothing.
    /// Errors: EPERM where others may read or write it; what open gives.
    [[nodiscard]] virtual result<unique_fd> find(state_part p) = 0;
    /// A new, empty one, beside what is there.  Errors: what open gives.
    [[nodiscard]] virtual result<unique_fd> create(state_part p) = 0;
    /// The one that was created takes the place of the one before.  fd   the same file
    [[nodiscard]] virtual result<void> put(state_part p, int fd) = 0;
    /// It is not found from here on.
    virtual void drop(state_part p) = 0;
    /// What a line for the user calls the log.
    [[nodiscard]] virtual std::string name() const = 0;
    /// Whether the log outlives the machine's memory.
    [[nodiscard]] virtual bool on_disk() const = 0;
    /// Waits until what was written lies there.
    [[nodiscard]] virtual sync_function sync() const;
    /// What who takes over has to know of the place beside the files.
    [[nodiscard]] virtual std::string token() const { return {}; }
};

/// Whether a directory is on a tmpfs, as /run is.
[[nodiscard]] bool is_in_memory(const std::string& directory);

/// Files by name.  log_path   empty: `run_dir`/state.  The live numbers are in `run_dir`, or where
/// that is not in memory beside the log.
/// Errors: ENODEV where neither is in memory.
[[nodiscard]] result<std::unique_ptr<state_place>> named_place(const std::string& run_dir,
                                                               const std::string& log_path);

/// Which state it is: its log and its live numbers say so too.
using state_name = std::array<std::uint8_t, 16>;

/// Notes in `run_dir` which state its daemon has, wherever that lies.  Errors: what open gives.
[[nodiscard]] result<void> mark_state(const std::string& run_dir, const state_name& name);
[[nodiscard]] bool is_marked(const std::string& run_dir, const state_name& name);

/// From here on no state comes back there: takes away the mark, and what named_place() would find
/// in `run_dir`.
void forget_state(const std::string& run_dir);

/// Files without a name that the service manager keeps.
/// token   of the daemon before, where this one takes over: then the manager hands out nothing
/// Errors: ENOTSUP where there is none that would.
[[nodiscard]] result<std::unique_ptr<state_place>> kept_place(const std::string& token = {});

/// What another daemon hands over: found once, and put where `beneath` says.
[[nodiscard]] std::unique_ptr<state_place> handed_place(unique_fd log, unique_fd live,
                                                        std::unique_ptr<state_place> beneath);

} // namespace esplane::tools
