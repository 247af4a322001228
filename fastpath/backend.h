// SPDX-License-Identifier: Apache-2.0
//
// The user-space backend: turns what control describes into what workers run.
//
// An SA enters the SPI table as sa_in at once, so that a packet with its SPI finds it; it becomes
// sa_out when an outbound policy's template resolves to it.  No address decides on a direction.
// Nonces: one nonce_space per key, kept as a tombstone after the SA is gone, so that a key that
// comes back goes on where no nonce was used.
// Threads: control.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "fastpath/balance.h"
#include "fastpath/event_ring.h"
#include "fastpath/nonces.h"
#include "fastpath/spread_keeper.h"
#include "fastpath/succession.h"
#include "fastpath/tables.h"
#include "lib/base/growing_table.h"
#include "lib/control/backend.h"
#include "lib/control/layer.h"

namespace esplane::fastpath {

class user_backend final : public control::backend {
  public:
    user_backend(tables& shared, control::random_source random);
    ~user_backend() override;

    void set_listener(control::backend_listener* l) override { listener_ = l; }
    [[nodiscard]] result<void> add_sa(const ipsec::sa& s, const ipsec::packed_sa& packed) override;
    [[nodiscard]] result<void> update_sa(const ipsec::sa& s) override;
    [[nodiscard]] result<void> set_replay(const ipsec::sa& s, control::given_parts parts) override;
    [[nodiscard]] result<void> move_sa(const ipsec::sa_id& before, const ipsec::sa& s) override;
    void begin_from(const ipsec::sa_id& id, const control::sa_usage& n) override;
    void delete_sa(const ipsec::sa_id& id) override;
    bool query_sa(const ipsec::sa_id& id, control::sa_usage& into) override;
    [[nodiscard]] bool watch_replay(const ipsec::sa_id& id, std::uint64_t sent,
                                    std::uint64_t received) override;
    [[nodiscard]] result<void> add_policy(const ipsec::policy& p) override;
    [[nodiscard]] result<void> update_policy(const ipsec::policy& p) override;
    void delete_policy(std::uint32_t index) override;
    bool query_policy(std::uint32_t index, ipsec::lifetime_current& into) override;
    void set_defaults(const ipsec::default_actions& actions) override;
    void await_sas(std::uint32_t seconds, bool hold) override;
    /// The mark that what leaves by the machine's sockets has, where its SA says nothing else.
    /// Before the first SA.
    void set_esp_mark(std::uint32_t mark) noexcept { esp_mark_ = mark; }
    /// Where SAs are made from now on; it outlives this.
    void use_memory(lasting_memory& m) noexcept { memory_ = &m; }
    [[nodiscard]] lasting_memory& memory() noexcept { return *memory_; }
    /// Where the nonces of counter modes begin.  Before the first SA.
    void start_nonces_at(std::uint64_t base) noexcept { nonces_.start_at(base); }
    /// For the traffic of which CPU each worker stands; without it the first for CPU 0, and so on.
    /// Before the first SA.
    void set_cpus(std::vector<std::uint32_t> of_workers) { cpus_ = std::move(of_workers); }
    void begin_batch() override { in_batch_ = true; }
    void end_batch() override;

    /// Hands what a worker said of SAs to the control layer.
    void deliver(const worker_event& e);

    /// Takes all SAs from a worker that is stuck; each is the next one's that has a packet for it.
    /// Returns how many there were.
    std::size_t take_from(unsigned worker);
    /// What the SAs of a worker have given it to do since the last call, for some of them where
    /// there are very many.
    [[nodiscard]] std::vector<sa_load> loads_of(unsigned worker);
    /// Asks the owner of an SA, of both its directions, to pass it on to a worker with its next
    /// packet.  False: there is no such SA.
    bool ask_to_move(const ipsec::sa_id& id, unsigned to);

    /// Has all `workers` carry an SA together, from its owner's next packet on; see spread.h.
    /// Errors: ESRCH; EBUSY near a limit in packets or bytes; EALREADY where it is spread, or
    /// before its first packet; ENOSPC beyond 64 SAs.
    [[nodiscard]] result<void> spread_sa(const ipsec::sa_id& id, unsigned workers);
    /// What is known of the path of an SA's ESP; no_path_limit: what its route says.  Ignored where
    /// there is no such SA.
    void set_path_mtu(const ipsec::sa_id& id, std::uint32_t mtu);

    /// About ten times a second: SAs that come near a limit are gathered, what is over is freed.
    void tend_spread();

    /// UDP ports of the machine on which ESP may arrive, sorted.
    [[nodiscard]] std::vector<wire::be16> encap_ports() const;
    /// Called when that set has changed.
    void on_encap_ports(std::function<void()> changed) { encap_changed_ = std::move(changed); }

  private:
    struct sa_record;
    struct sa_seldom;
    struct candidate;
    struct group_record;
    struct peer_record;
    struct policy_record;
    template <std::size_t Words>
    struct keyed_record;
    struct hash_of_policy {
        [[nodiscard]] std::uint32_t operator()(const policy_record& p) const noexcept;
    };
    struct hash_of_group {
        [[nodiscard]] std::uint32_t operator()(const group_record& g) const noexcept;
    };
    struct endpoint {
        ipsec::address destination;
        std::uint32_t reqid = 0;
        friend auto operator<=>(const endpoint&, const endpoint&) = default;
    };
    struct endpoint_hash {
        [[nodiscard]] std::uint32_t operator()(const endpoint& e) const noexcept {
            const std::uint32_t h =
                _mm_crc32_u32(static_cast<std::uint32_t>(e.destination.fam), e.reqid);
            const std::uint8_t* at = e.destination.bytes.data();
            return static_cast<std::uint32_t>(
                _mm_crc32_u64(_mm_crc32_u64(h, wire::load<std::uint64_t>(at)),
                              wire::load<std::uint64_t>(at + 8)));
        }
    };
    struct by_id {
        [[nodiscard]] std::uint32_t operator()(const ipsec::sa_id& id) const noexcept {
            return hash_of_spi(id.spi, id.destination.bytes.data(), id.destination.fam) ^
                   id.mark.value * 0x9e3779b1u ^ id.mark.mask;
        }
        [[nodiscard]] std::uint32_t operator()(const sa_record& r) const noexcept;
    };
    struct by_endpoint {
        [[nodiscard]] std::uint32_t operator()(const sa_record& r) const noexcept;
    };

    [[nodiscard]] std::unique_ptr<sa_in> make_in(const sa_record& r, const ipsec::sa& s) const;
    [[nodiscard]] std::unique_ptr<sa_out> make_out(const sa_record& r, const ipsec::sa& s) const;
    [[nodiscard]] result<void> check_memory() const;
    [[nodiscard]] result<void> change_encap(sa_record& r, ipsec::sa now, const ipsec::sa& s);
    void write_marks(const sa_record& r, const ipsec::sa& s) const;
    void write_marks(sa_in& in, const ipsec::sa& s) const;
    void write_marks(sa_out& out, const ipsec::sa& s) const;
    void replace_in(sa_record& r);
    void replace_out(sa_record& r, std::uint64_t margin = sequence_margin);
    void publish_limits(sa_record& r, const ipsec::lifetime_limits& limits) const;
    void reach(sa_out& out);
    [[nodiscard]] std::unique_ptr<sa_out> make_share(const sa_record& r) const;
    [[nodiscard]] static bool is_near_limit(const sa_record& r);
    void gather(sa_record& r);
    void unspread(sa_record& r);
    void resolve(group_record& g);
    void resolve_all(const endpoint& e);
    void resolve_transport(const endpoint& e);
    void resolve_added(sa_record& r, const ipsec::sa& s);
    void resolve_gone(const sa_record& r);
    [[nodiscard]] bool give_out(sa_record& r, const ipsec::sa& s);
    [[nodiscard]] bool put_first(group_record& g, sa_record& r, const ipsec::sa& s);
    [[nodiscard]] bool take_first(group_record& g, const sa_record& r);
    void publish_all(group_record& g);
    template <typename Outgrown>
    void bury(Outgrown outgrown);
    void resolve_peer(group_record& g, const ipsec::address& destination);
    void resolve_peers(group_record& g);
    peer_record& add_peer(group_record& g, const ipsec::address& destination);
    void count_transport(const sa_record& r, int by);
    [[nodiscard]] group_record* acquire_group(const ipsec::policy& p);
    [[nodiscard]] std::shared_ptr<const sa_choices> choices_among(const std::vector<candidate>& sas,
                                                                  bool cpu_acquire) const;
    void release_group(group_record* g);
    [[nodiscard]] std::unique_ptr<policy_record> make_policy(const ipsec::policy& p);
    void enter(policy_record& p, const ipsec::selector& s);
    void leave(policy_record& p);
    void take_out(const std::shared_ptr<policy_record>& p);
    void take_out_with_former(policy_record* p);
    void succeed(const std::shared_ptr<policy_record>& before, policy_record& next);
    void show_entered();
    [[nodiscard]] policy_record* find_policy(std::uint32_t index) const;
    [[nodiscard]] group_record* first_group(const endpoint& e) const;
    [[nodiscard]] bool is_wanted(const worker_event& e) const;
    [[nodiscard]] std::uint32_t cpu_of(unsigned worker) const;
    [[nodiscard]] std::optional<unsigned> worker_of(std::uint32_t cpu) const;
    void count_encap(const sa_record& r, const std::optional<ipsec::udp_encapsulation>& encap,
                     int by);
    [[nodiscard]] sa_record* find(const ipsec::sa_id& id) const;
    [[nodiscard]] sa_record* first_at(const endpoint& e) const;
    void file(sa_record& r, int by);
    void join_endpoint(sa_record& r);
    void leave_endpoint(sa_record& r);
    void settle();
    void settle_later();

    tables& shared_;
    lasting_memory* memory_ = &lasting_memory::of_this_process();
    nonce_registry nonces_;
    spread_keeper spreads_;
    std::set<ipsec::sa_id> spread_;   ///< SAs that all workers carry
    std::set<ipsec::sa_id> gathered_; ///< those that they did carry, while packets are under way
    control::backend_listener* listener_ = nullptr;
    std::function<void()> encap_changed_;
    bool in_batch_ = false;
    bool may_be_unseen_ = false; ///< a policy that came in since show_entered()
    std::uint32_t esp_mark_ = 0;
    std::vector<std::uint32_t> cpus_; ///< by worker
    std::uint64_t serial_ = 0;
    growing_table<sa_record, by_id> sas_;                   ///< owned
    growing_table<sa_record, by_endpoint> sas_by_endpoint_; ///< one of each ring
    growing_table<group_record, hash_of_group> groups_;     ///< the first of each endpoint's
    growing_table<policy_record, hash_of_policy> policies_;
    std::size_t transport_groups_ = 0;
    /// Reqid and destination of SAs in transport mode, and how many have them.
    std::map<std::pair<std::uint32_t, ipsec::address>, int> transport_ends_;
    std::map<wire::be16, int> encap_users_;
};

} // namespace esplane::fastpath
