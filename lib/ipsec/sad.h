// SPDX-License-Identifier: Apache-2.0
//
// The security association database (RFC 4301 section 4.4.2): descriptions by id and by age.
//
// Hash tables and a list in order of arrival (arrivals.h): no operation takes time linear in the
// number of SAs, but for one in as many as there are that closes the list's gaps, and for a table
// of those with a mark and one of those that an ACQUIRE waits for, which grow all at once. Threads:
// one.  Does not: know rules, timers or backends (lib/control does).
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>

#include "lib/base/growing_table.h"
#include "lib/ipsec/arrivals.h"
#include "lib/ipsec/lifetime.h"
#include "lib/ipsec/packed_sa.h"

namespace esplane::ipsec {

/// What one ACQUIRE at a time is under way for: __find_acq_core().
struct acquire_key {
    address destination;
    address source;
    std::uint8_t protocol = 50;
    mode run_mode = mode::tunnel;
    std::uint32_t reqid = 0;
    std::uint32_t if_id = 0;
    mark_mask mark = {};
    std::optional<std::uint32_t> pcpu = {};

    friend auto operator<=>(const acquire_key&, const acquire_key&) = default;
};
[[nodiscard]] acquire_key acquire_key_of(const sa& s) noexcept;

class sad {
  public:
    class entry {
      public:
        sa_id id;
        sa_state state = sa_state::valid;
        bool acquiring = false;   ///< an ACQUIRE asks for it
        std::uint64_t serial = 0; ///< from 1 up in order of insertion, never given twice

        /// Since when its limits in time count.
        [[nodiscard]] lifetime_origin origin() const noexcept {
            return {added_ns_, was_used() ? std::optional(used_ns_) : std::nullopt};
        }
        [[nodiscard]] bool was_used() const noexcept { return used_ns_ != never_; }
        void set_origin(const lifetime_origin& o) noexcept {
            added_ns_ = o.added_ns;
            used_ns_ = o.used_ns.value_or(never_);
        }

        /// As it was put in, or last kept.
        [[nodiscard]] sa describe() const { return kept_.unpack(id); }
        /// Changes all of the description but its id.
        ///
        /// packed   the same; whoever has it already shares it
        void keep(const sa& s, packed_sa packed) {
            kept_ = std::move(packed);
            state = s.state;
        }
        void keep(const sa& s) { keep(s, packed_sa(s)); }

      private:
        friend class sad;
        static constexpr std::int64_t never_ = INT64_MIN;

        std::int64_t added_ns_ = 0; ///< CLOCK_MONOTONIC
        std::int64_t used_ns_ = never_;
        packed_sa kept_;
        // Those of one SPI and protocol, in a ring.
        entry* next_of_spi_ = nullptr;
        entry* previous_of_spi_ = nullptr;
    };

    /// The newest that a packet, or a request, with the mark of `id` is for; nullptr where there is
    /// none.  Entries stay where they are until they are taken out.
    [[nodiscard]] entry* find(const sa_id& id);
    /// The one of exactly this id.
    [[nodiscard]] entry* find_exact(const sa_id& id);
    /// Whether there is one of that SPI and protocol, whatever its destination and mark.
    [[nodiscard]] bool knows_spi(wire::be32 spi, std::uint8_t protocol) const;
    [[nodiscard]] entry* find_serial(std::uint64_t serial) { return arrivals_.find(serial); }
    /// The newest entry whose serial is at most `serial`; nullptr at the end of a walk.
    [[nodiscard]] entry* newest_from(std::uint64_t serial) { return arrivals_.newest_from(serial); }

    /// Puts in an SA whose id is not there yet; `packed` as for keep().
    entry& insert(const sa& s, packed_sa packed);
    entry& insert(const sa& s) { return insert(s, packed_sa(s)); }

    /// Puts in a larval SA that an ACQUIRE asks for; nothing of its acquire_key is there yet. Where
    /// it has no SPI find() does not know it.
    entry& insert_acquiring(const sa& s);
    /// nullptr where no ACQUIRE is under way for such an SA.
    [[nodiscard]] entry* find_acquiring(const acquire_key& k);
    [[nodiscard]] entry* find_acquiring(std::uint32_t seq);
    [[nodiscard]] std::size_t acquiring() const noexcept { return acquiring_.size(); }
    /// Names an entry without SPI; the id is not there yet.
    void give_spi(entry& e, wire::be32 spi);
    /// Takes out an entry of this database.
    void erase(entry& e);

    [[nodiscard]] std::size_t size() const noexcept { return arrivals_.size(); }

  private:
    struct id_hash {
        [[nodiscard]] std::uint32_t operator()(const sa_id& id) const noexcept;
        [[nodiscard]] std::uint32_t operator()(const entry& e) const noexcept {
            return (*this)(e.id);
        }
    };
    struct spi_hash {
        [[nodiscard]] std::uint32_t operator()(const entry& e) const noexcept;
    };

    entry& put(const sa& s, packed_sa packed);
    void name(entry& e);
    void forget_name(entry& e);
    [[nodiscard]] entry* of_spi(wire::be32 spi, std::uint8_t protocol) const;
    void join_spi(entry& e);
    void leave_spi(entry& e);

    arrivals<entry> arrivals_;
    growing_table<entry, id_hash> by_id_;                    ///< what has an SPI
    std::unordered_multimap<sa_id, entry*, id_hash> marked_; ///< of these, by the id without mark
    growing_table<entry, spi_hash> by_spi_;                  ///< of these, one of each ring
    std::map<acquire_key, entry*> acquiring_;
    std::unordered_map<std::uint32_t, entry*> acquiring_by_seq_;
};

} // namespace esplane::ipsec
