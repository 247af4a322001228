// SPDX-License-Identifier: Apache-2.0
//
// An SA as run.  Direction is a type: sa_in and sa_out share keys and nothing else.
//
// Laid out by what a packet touches: the first lines are read and written per packet, the rest
// seldom.  Made and freed by the backend (control), in memory that outlives the process where there
// is some (lasting.h).  Threads: the worker that `owner` says writes
// counters, window and sequence; control writes limits and reads everything.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "fastpath/counters.h"
#include "fastpath/lasting.h"
#include "fastpath/nonces.h"
#include "fastpath/packet.h"
#include "fastpath/sa_owner.h"
#include "lib/crypto/engine.h"
#include "lib/ipsec/replay.h"
#include "lib/ipsec/sa.h"

namespace esplane::fastpath {

struct adjacency;
struct spread_in;
struct spread_out;

/// What every SA counts, and where it must stop to think.
struct sa_account {
    counter packets;
    counter bytes;     ///< inner IP bytes
    counter last_used; ///< CLOCK_REALTIME seconds
    /// At this count of packets or bytes the worker looks at the limits.  0 = at the next packet.
    std::atomic<std::uint64_t> look_at_packets{0};
    std::atomic<std::uint64_t> look_at_bytes{0};
};

/// sa_out::path_mtu of a path of which nothing has been learnt.
inline constexpr std::uint32_t no_path_limit = ~0u;

/// What a client gave to an SA in use (XFRM_MSG_NEWAE).  Its worker takes it over between two
/// packets, so that neither is what it would not have been; control keeps it until then.
struct given_state {
    bool counters = false; ///< whether the next three were given
    bool replay = false;   ///< whether the two behind them were
    std::uint64_t packets = 0;
    std::uint64_t bytes = 0;
    std::uint64_t use_time = 0;
    std::uint64_t sent = 0;              ///< of a sa_out
    ipsec::replay_window window{0};      ///< of a sa_in, as large as that one's
    std::uint32_t mapping_threshold = 0; ///< of a sa_in
};

/// sa_limits::goal where control waits for no sequence number.
inline constexpr std::uint64_t no_goal = ~std::uint64_t{0};

/// Limits and what has been said about them.
struct sa_limits {
    std::atomic<std::uint64_t> soft_packets{ipsec::no_limit};
    std::atomic<std::uint64_t> hard_packets{ipsec::no_limit};
    std::atomic<std::uint64_t> soft_bytes{ipsec::no_limit};
    std::atomic<std::uint64_t> hard_bytes{ipsec::no_limit};
    counter use_time;                      ///< CLOCK_REALTIME seconds; 0 = never
    std::atomic<std::uint32_t> version{0}; ///< control counts its changes
    std::atomic<bool> soft_told{false};
    std::atomic<bool> hard_told{false};
    /// Control is told when the highest sequence number sent or received has come this far; the
    /// worker then takes it away.
    std::atomic<std::uint64_t> goal{no_goal};
    /// To be taken over; the worker then takes it away.
    std::atomic<const given_state*> given{nullptr};
};

/// Control: the worker is to look at what is asked of an SA before its next packet.
inline void ask_to_look(sa_limits& limits, sa_account& account) noexcept {
    limits.version.fetch_add(1, std::memory_order_seq_cst);
    account.look_at_packets.store(0, std::memory_order_seq_cst);
    account.look_at_bytes.store(0, std::memory_order_seq_cst);
}

/// What was last said of an SA whose packets come from elsewhere; its worker's.
struct mapping_report {
    ipsec::address source;
    wire::be16 port;
    std::uint64_t at_s = 0; ///< CLOCK_MONOTONIC; 0: nothing was
};

/// A selector where there is one to look at, and 8 bytes where there is none.
class rare_selector {
  public:
    void set(const ipsec::selector& s) { given_ = std::make_unique<const ipsec::selector>(s); }
    /// Only of one that was set.
    [[nodiscard]] bool matches(const ipsec::flow& f) const noexcept { return given_->matches(f); }

  private:
    std::unique_ptr<const ipsec::selector> given_;
};

/// What ESP packets of an SA are checked and stripped by; see form_of().
struct esp_form {
    std::uint8_t front = 0;        ///< bytes from the ESP header to the text
    std::uint8_t icv = 0;          ///< bytes behind the text
    std::uint8_t within_block = 0; ///< bits of a text's length that are 0
    std::uint8_t carrier = 0;      ///< the protocol it comes in: ESP, or UDP where encapsulated
    bool esn = false;
    bool is_plain = false; ///< tunnel mode, may carry IPv4, no DSCP is copied
};

struct alignas(64) sa_in {
    // Line 0: lookup.
    wire::be32 spi;
    std::uint32_t hash = 0;
    ipsec::address destination;
    std::uint8_t flags = 0;                                  ///< ipsec::sa_flag
    ipsec::family inner_family = ipsec::family::unspecified; ///< unspecified: both
    bool has_selector = false;
    ipsec::mode run_mode = ipsec::mode::tunnel;
    esp_form form;
    sa_owner owner;
    /// Of the interface whose traffic comes out of it; 0 = of none.  Control may change it.
    std::atomic<std::uint32_t> if_id{0};
    const crypto::key::schedule* keys = nullptr;
    /// Where its packets are decrypted by all workers; nullptr: by the owner alone.
    std::atomic<spread_in*> spread{nullptr};

    // Line 1: per packet.
    alignas(64) sa_account account;
    ipsec::replay_window window{0};

    // Seldom, or by the policy check.
    ipsec::address source;
    /// Where it is encapsulated: the peer's UDP port as the SA says, network order.  Control may
    /// change it.
    std::atomic<std::uint16_t> peer_port{0};
    std::uint32_t reqid = 0;
    /// Of what comes out of it.  Control may change it.
    std::atomic<std::uint32_t> inner_mark{0};
    ipsec::mark_mask mark;
    std::uint32_t mapping_threshold = 0;          ///< seconds; the worker's once packets flow
    std::unique_ptr<mapping_report> mapping_told; ///< where it is encapsulated
    rare_selector selector;                       ///< where has_selector says so
    sa_limits limits;
    counter integrity_failed;
    counter replay;
    counter replay_too_old;
    std::shared_ptr<const crypto::key> key;
    /// Control has it in its database: who finds its numbers later may count on them.
    std::atomic<bool> in_force{false};

    [[nodiscard]] static void* operator new(std::size_t size) {
        return lasting_memory::of_this_process().take(lasting_kind::inbound, size);
    }
    [[nodiscard]] static void* operator new(std::size_t size, lasting_memory& in) {
        return in.take(lasting_kind::inbound, size);
    }
    static void operator delete(void* p) noexcept { lasting_memory::give_back(p); }
};

struct alignas(64) sa_out {
    /// Room for outer header (tunnel mode), UDP header and ESP header: at most 40 + 8 + 8 bytes.
    static constexpr unsigned template_size = 64;

    // Line 0: what packets ask of it, and the way they take.
    const crypto::key::schedule* keys = nullptr;
    std::uint64_t last_sequence = 0xffffffff; ///< never above it
    /// Where the outer packet leaves, looked up once per fib::generation_in(); worker.
    const adjacency* route = nullptr;
    std::uint64_t route_generation = 0;
    /// The mark its ESP is sent with, and bit 32; 0: the port's.  Control may change it.
    std::atomic<std::uint64_t> output_mark{0};
    /// Of the interface whose traffic goes into it; 0 = of none.  Control may change it.
    std::atomic<std::uint32_t> if_id{0};
    /// What has been learnt of the path to the peer, where that is less than the route says: bytes
    /// from the outer IP header on.  Control may change it.
    std::atomic<std::uint32_t> path_mtu{no_path_limit};
    std::uint8_t header_length = 0;
    std::uint8_t flags = 0; ///< ipsec::sa_flag
    ipsec::suite_layout layout{};
    ipsec::family outer_family = ipsec::family::unspecified;
    ipsec::family inner_family = ipsec::family::unspecified; ///< unspecified: both
    bool encapsulated = false;
    bool has_selector = false;
    bool dont_copy_dscp = false;
    bool counter_mode = false;
    ipsec::mode run_mode = ipsec::mode::tunnel; ///< transport: `header` has no IP header
    sa_owner owner;
    std::uint16_t tfc_pad = 0; ///< bytes that a shorter packet is made to look like; tunnel mode

    /// Line 1: what every packet starts with, at its end: one copy of fixed size puts it before
    /// the IV.
    alignas(64) std::array<std::uint8_t, template_size> header{};

    // Line 2: what packets count and use up; worker.
    alignas(64) sa_account account;
    counter sequence_sent;       ///< the last one
    std::uint64_t nonce = 0;     ///< next IV of a counter mode
    std::uint64_t nonce_end = 0; ///< of the block it is from

    // Seldom.
    alignas(64) nonce_space* nonces = nullptr;
    sa_name name; ///< the directory's
    /// Where `owner` says spread.
    std::atomic<spread_out*> spread{nullptr};
    sa_limits limits;
    rare_selector selector; ///< where has_selector says so
    ipsec::sa_id id;
    nonce_lease nonce_owner;
    std::shared_ptr<const crypto::key> key;
    /// As sa_in's.
    std::atomic<bool> in_force{false};

    [[nodiscard]] static void* operator new(std::size_t size) {
        return lasting_memory::of_this_process().take(lasting_kind::outbound, size);
    }
    [[nodiscard]] static void* operator new(std::size_t size, lasting_memory& in) {
        return in.take(lasting_kind::outbound, size);
    }
    static void operator delete(void* p) noexcept { lasting_memory::give_back(p); }
};

// What is kept a million times over.
static_assert(sizeof(sa_in) <= 320 && sizeof(sa_out) <= 384);

} // namespace esplane::fastpath
