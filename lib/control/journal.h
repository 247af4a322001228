// SPDX-License-Identifier: Apache-2.0
//
// The state of the databases as a log: what a daemon writes while it runs and the next one reads.
//
//   file     [ session ][ record ][ record ] ... [ session ][ record ] ...
//   each     [ length ][ CRC-32 ][ which ][ payload ]     numbers as this machine has them
//
// A session is one writer's: it names the log, says where the writer's nonces begin, and how its
// records are sealed.  Records say what is there from then on (an SA or a policy, whole; the
// settings) or is no more.  Reading the last word on each object gives the databases back.
//
// What counts with every packet is not here but in memory that outlives the process
// (fastpath/lasting.h); an SA's numbers here are those of the moment it was written.
//
// A file that ends in the middle of a record was torn by the end of its writer: what is whole
// counts.  Anything else that cannot be read is refused as a whole.
// Does not: read or write files, know a cipher, know the time.  Threads: one.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "lib/base/result.h"
#include "lib/control/layer.h"
#include "lib/ipsec/policy.h"
#include "lib/ipsec/sa.h"

namespace esplane::control {

/// Encrypts and authenticates the records of one session.
class journal_seal {
  public:
    virtual ~journal_seal() = default;
    /// record   becomes longer.  index   from 0, never twice in a session
    virtual void seal(std::uint64_t index, std::vector<std::uint8_t>& record) = 0;
    /// The reverse.  False: it is not what seal() made with that index; `record` is of no use then.
    [[nodiscard]] virtual bool open(std::uint64_t index, std::vector<std::uint8_t>& record) = 0;
};

/// One writer's part of a log.
struct journal_session {
    std::array<std::uint8_t, 16> name{}; ///< of the log, the same in all its sessions
    std::uint64_t nonce_base = 0;        ///< where the nonces of its writer begin
    bool sealed = false;
    std::array<std::uint8_t, 32> salt{}; ///< random: makes the key of this session
};

enum class journal_frame : std::uint32_t { session, record };

/// What a session looks like in the file.  Also what its seal's key is derived from.
[[nodiscard]] std::vector<std::uint8_t> payload_of(const journal_session& s);

/// Makes the bytes of a log.  They hold keys: give them to a file and wipe() them.
class journal_writer {
  public:
    /// seal   nullptr: records are readable
    journal_writer(const journal_session& session, std::unique_ptr<journal_seal> seal);
    ~journal_writer();
    journal_writer(const journal_writer&) = delete;
    journal_writer& operator=(const journal_writer&) = delete;

    /// order   among those that are there the later in age; nullopt: it keeps its place, and is the
    ///         newest where it has none
    void put(const ipsec::sa& s, std::optional<std::uint64_t> order = {});
    void remove(const ipsec::sa_id& id);
    /// protocol   0 or 255: all
    void remove_sas(std::uint8_t protocol);
    void put(const ipsec::policy& p);
    void remove_policy(ipsec::policy_type type, std::uint32_t index);
    void remove_policies(ipsec::policy_type type);
    void put(const ipsec::default_actions& defaults, const spd_hash_thresholds& thresholds);
    /// What is put without an order from now on is newer than that.
    void begin_after(std::uint64_t order);

    /// What has been made since the last wipe().
    [[nodiscard]] std::span<const std::uint8_t> made() const noexcept { return bytes_; }
    void wipe() noexcept;

  private:
    void make_room(std::size_t length);
    void append_frame(journal_frame what, const std::vector<std::uint8_t>& payload);
    template <typename Describe>
    void record(Describe describe);

    std::unique_ptr<journal_seal> seal_;
    std::uint64_t next_index_ = 0;
    std::vector<std::uint8_t> bytes_;
    std::vector<std::uint8_t> record_;
};

/// What a log says.
struct journal_image {
    journal_session last;                ///< the last writer's
    std::vector<ipsec::sa> sas;          ///< the oldest first
    std::vector<ipsec::policy> policies; ///< the oldest first
    ipsec::default_actions defaults{};
    spd_hash_thresholds thresholds;
    std::size_t whole = 0; ///< bytes of the file that were read; less than all: its end was torn
};

/// Makes the seal of a session; nullptr: no key is known.
using journal_opener = std::function<std::unique_ptr<journal_seal>(const journal_session& session)>;

/// Reads a log, and reads on where it has grown.
class journal_reader {
  public:
    explicit journal_reader(journal_opener opener);
    ~journal_reader();
    journal_reader(const journal_reader&) = delete;
    journal_reader& operator=(const journal_reader&) = delete;

    /// file   from its start; at a later call what was read before is not looked at again
    /// Errors: EINVAL (corrupted, with the place; sealed with another key), ENOKEY (sealed, and no
    /// key known), EPROTO (of another version).
    [[nodiscard]] result<void> read(std::span<const std::uint8_t> file);
    /// The last writer's; nullopt before the first session.
    [[nodiscard]] const std::optional<journal_session>& session() const noexcept;
    /// Bytes of the file that were read.
    [[nodiscard]] std::size_t whole() const noexcept;

    /// What became of the SAs since the last call.
    struct sa_changes {
        std::vector<ipsec::sa_id> gone; ///< that an earlier call gave, and that were taken out
        std::vector<ipsec::sa> put;     ///< afterwards, as they are now; the oldest first
    };
    [[nodiscard]] sa_changes take_sas();
    /// What became of the policies since the last call.
    struct policy_changes {
        std::vector<ipsec::policy_key> gone; ///< that an earlier call gave; by index
        std::vector<ipsec::policy> put;      ///< behind those that are left; the oldest first
        bool in_place = false; ///< one that an earlier call gave is another where it was: not here
    };
    [[nodiscard]] policy_changes take_policies();
    /// All else, and what take_sas() and take_policies() have not given.  Nothing is left here.
    [[nodiscard]] journal_image finish();

  private:
    class image_maker;
    class log_reader;
    std::unique_ptr<log_reader> log_;
};

/// All of a log.  Errors: as journal_reader::read().
[[nodiscard]] result<journal_image> read_journal(std::span<const std::uint8_t> file,
                                                 const journal_opener& opener);

} // namespace esplane::control
