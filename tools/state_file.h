// SPDX-License-Identifier: Apache-2.0
//
// The state over restarts: what an earlier daemon left comes back, and what this one does is left
// for the next.
//
//   open()      finds and reads the log; refuses what it cannot trust
//   prepare()   before the first SA: memory that lasts, nonces above all that were ever used
//   restore()   databases as they were, numbers as the workers left them
//
//     or, where another daemon is at work and is to be taken over from:
//     restore_ahead()  its SAs and policies, while it goes on
//     catch_up()       once it has stopped: what has become of them meanwhile
//     restore()        makes the state this one's
//
//   on_event()  each change goes to the log before the client has its answer
//   tend()      the log is written anew when most of it is past, a piece at a time
//
// An SA comes back only with its live numbers: without them nobody can say which numbers were used,
// and after a reboot there are none.  Then policies do not come back either: the machine starts as
// a kernel does.
// Threads: control.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "fastpath/lasting.h"
#include "lib/base/clock.h"
#include "lib/base/secret.h"
#include "lib/control/journal.h"
#include "tools/disk_sync.h"
#include "tools/state_options.h"
#include "tools/state_place.h"

namespace esplane::fastpath {
class user_backend;
} // namespace esplane::fastpath

namespace esplane::tools {

class state_file final : public ipsec::listener {
  public:
    using log_line = std::function<void(const std::string& line)>;

    struct counts {
        bool found = false; ///< there was a state with live numbers
        std::size_t sas = 0;
        std::size_t policies = 0;
        std::size_t lost = 0; ///< that were in the log and did not come back
    };

    /// run_dir   has the mark of the state that may come back: mark_state()
    /// Errors: one line each, with what to do; see read_journal(), state_place.
    [[nodiscard]] static result<std::unique_ptr<state_file>>
    open(const state_options& options, std::unique_ptr<state_place> place,
         const std::string& run_dir, log_line log);
    ~state_file() override;

    /// Nothing that another daemon has is changed.  Errors: what creating a file gives.
    [[nodiscard]] result<void> prepare(fastpath::user_backend& b);
    /// After prepare().  The log and the live numbers are of a daemon that is at work.  False: it
    /// cannot be done; restore() is to do it all, on another state_file.
    [[nodiscard]] bool restore_ahead(control::layer& l, moment now);
    /// After restore_ahead(), when that daemon has stopped work.  False: these are not the same
    /// log, or another daemon was there between; restore() is to do it all, on another state_file.
    ///
    /// log   as that daemon says now: it may have written another one.  live   left where false
    [[nodiscard]] bool catch_up(control::layer& l, int log, unique_fd& live, moment now);
    /// After prepare(), before there are clients.  What is left of the earlier state is then this
    /// one's.  Errors: what writing files gives; a policy that does not come back.
    [[nodiscard]] result<counts> restore(control::layer& l, moment now);

    void on_event(const ipsec::event& e) override;
    /// True: it wants to be called again soon.
    bool tend(moment now);

    /// Another daemon reads the log: for a minute it is not written anew.
    void lend(moment now);
    /// From here on nothing that happens to the databases changes the state: it is the next
    /// daemon's.
    void leave();
    /// Of the two files, for who takes over.
    [[nodiscard]] int log_descriptor() const noexcept { return log_.fd.get(); }
    [[nodiscard]] int live_descriptor() const noexcept { return live_->descriptor(); }
    [[nodiscard]] std::string place_token() const { return place_->token(); }

    /// How much of what there is would come back.
    struct standing {
        bool written = false;          ///< there is a log with all changes
        std::size_t lost = 0;          ///< at the start: in the log, and did not come back
        std::uint64_t not_lasting = 0; ///< times that memory which lasts was short
    };
    [[nodiscard]] standing stands() const noexcept {
        return {!failed_, lost_, live_ ? live_->short_of() : 0};
    }

  private:
    /// A log that is written.
    struct open_log {
        unique_fd fd;
        std::unique_ptr<control::journal_writer> writer;
        std::uint64_t length = 0;
    };
    /// A log that is being written anew, while changes go to both.
    struct rewriting {
        open_log log;
        control::cursor sas;
        control::cursor policies;
        bool sas_done = false;
        bool syncing = false; ///< all is written; disk_ says when it lies there
    };

    struct ahead;

    state_file(std::unique_ptr<state_place> place, std::string run_dir, secret key, log_line log);

    [[nodiscard]] control::journal_session new_session() const;
    [[nodiscard]] open_log begin_log(unique_fd fd, std::uint64_t length) const;
    [[nodiscard]] result<void> find();
    [[nodiscard]] result<void> read_log();
    [[nodiscard]] result<void> begin_writing();
    [[nodiscard]] result<void> flush(open_log& to) const;
    void restore_sas(control::layer& l, control::journal_image& earlier, moment now, counts& into);
    [[nodiscard]] bool take_changes(control::layer& l, moment now);
    void take_sa_changes(control::layer& l, moment now);
    [[nodiscard]] bool settle_numbers(control::layer& l, int live, moment now);
    [[nodiscard]] counts counts_of(const control::layer& l) const;
    void say_lost(const ipsec::sa_id& id, const error& e) const;
    void say_unknown(std::size_t sas) const;
    template <typename F>
    void write(F f);
    void give_up(const error& e);
    void give_up_rewriting(const error& e);
    void put_sa(const ipsec::sa& s);
    void put_current(const ipsec::sa_id& id);
    void forget_earlier();
    void begin_rewriting();
    [[nodiscard]] bool rewrite_some();
    [[nodiscard]] result<bool> is_synced();
    [[nodiscard]] bool disk_is_busy() const;
    [[nodiscard]] result<void> finish_rewriting();

    std::unique_ptr<state_place> place_;
    std::string run_dir_;
    bool marked_ = false; ///< what was found is the run directory's
    std::size_t lost_ = 0;
    secret key_; ///< empty: records are readable
    log_line say_;
    std::unique_ptr<control::journal_reader> earlier_; ///< until tend(), as is ahead_
    std::unique_ptr<ahead> ahead_;                     ///< where SAs came back early
    std::array<std::uint8_t, 16> name_{};
    std::uint64_t nonce_base_ = 0;
    std::unique_ptr<fastpath::lasting_memory> live_;
    unique_fd earlier_live_;
    open_log log_;
    std::uint64_t length_when_new_ = 0;
    std::optional<rewriting> rewriting_;
    std::optional<disk_sync> disk_;   ///< the last; it may be of a log that was given up
    control::layer* layer_ = nullptr; ///< once it is restored
    control::spd_hash_thresholds thresholds_;
    bool failed_ = false;            ///< there is no log
    std::uint64_t try_again_ns_ = 0; ///< to have one, or a shorter one
};

} // namespace esplane::tools
