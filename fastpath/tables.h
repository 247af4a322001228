// SPDX-License-Identifier: Apache-2.0
//
// Everything workers read: SAs by SPI, policies, routes.  Control publishes, workers quiesce.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <nmmintrin.h>
#include <span>
#include <vector>

#include "fastpath/classify.h"
#include "fastpath/fib.h"
#include "fastpath/filter.h"
#include "fastpath/lookup_table.h"
#include "fastpath/retired.h"
#include "fastpath/sa.h"
#include "fastpath/sa_directory.h"
#include "fastpath/spread.h"
#include "lib/ipsec/policy.h"

namespace esplane::fastpath {

/// Of an SPI and the address it belongs to.  `destination` is 4 or 16 bytes.
[[nodiscard]] inline std::uint32_t hash_of_spi(wire::be32 spi, const std::uint8_t* destination,
                                               ipsec::family f) noexcept {
    const std::uint32_t h = _mm_crc32_u32(0, spi.network());
    if (f == ipsec::family::ipv4) return _mm_crc32_u32(h, wire::load<std::uint32_t>(destination));
    std::uint64_t wide = _mm_crc32_u64(h, wire::load<std::uint64_t>(destination));
    wide = _mm_crc32_u64(wide, wire::load<std::uint64_t>(destination + 8));
    return static_cast<std::uint32_t>(wide);
}

/// Which traffic a policy is for, beside its selector; and whether it is a sub-policy, which are
/// looked up by themselves.
struct policy_scope {
    std::uint32_t if_id = 0; ///< of its interface; 0 = of none
    ipsec::mark_mask mark = {};
    ipsec::policy_type type = ipsec::policy_type::main;

    /// Of a main policy for all traffic that enters no interface.
    [[nodiscard]] bool all() const noexcept {
        return if_id == 0 && !mark.given() && type == ipsec::policy_type::main;
    }
    friend bool operator==(const policy_scope&, const policy_scope&) = default;
};

class tables {
  public:
    /// Policies of one direction.
    struct spd {
        explicit spd(retired& graveyard)
            : v4(graveyard)
            , v6(graveyard) {}
        policy_table<v4_words> v4;
        policy_table<v6_words> v6;
    };

    tables();
    ~tables();
    tables(const tables&) = delete;
    tables& operator=(const tables&) = delete;

    // Workers.
    [[nodiscard]] const fib& routes() const noexcept {
        return *routes_.load(std::memory_order_acquire);
    }
    [[nodiscard]] const lookup_table<sa_in>& inbound() const noexcept { return inbound_; }
    [[nodiscard]] const spd& policies(ipsec::policy_direction d) const noexcept {
        return policies_[static_cast<std::size_t>(d)];
    }
    /// Those for such traffic alone; nullptr where there are none.
    /// scope   of an interface, with a mark, or both
    [[nodiscard]] const spd* policies(ipsec::policy_direction d,
                                      const policy_scope& scope) const noexcept;
    /// Masks of the policies with a mark, each once; mostly none.
    [[nodiscard]] std::span<const std::uint32_t> mark_masks() const noexcept {
        return *mark_masks_.load(std::memory_order_acquire);
    }
    /// Whether there are policies with a mark, or sub-policies: seldom.
    [[nodiscard]] bool has_more_policies() const noexcept {
        return has_subs() || !mark_masks().empty();
    }
    [[nodiscard]] bool has_subs() const noexcept {
        return subs_.load(std::memory_order_acquire) != 0;
    }
    /// What becomes of a packet that no policy of that direction covers.
    [[nodiscard]] bool blocks_by_default(ipsec::policy_direction d) const noexcept {
        return ((blocked_.load(std::memory_order_relaxed) >> static_cast<unsigned>(d)) & 1) != 0;
    }
    /// SAs that packets under way between workers name.
    [[nodiscard]] const sa_directory& outbound() const noexcept { return outbound_; }
    /// SAs that all workers carry together.
    [[nodiscard]] const spread_table<spread_out>& spread_outbound() const noexcept {
        return spread_outbound_;
    }
    [[nodiscard]] const spread_table<spread_in>& spread_inbound() const noexcept {
        return spread_inbound_;
    }
    /// Whether UDP to this port of the machine carries ESP for some SA.
    [[nodiscard]] bool is_encap_port(wire::be16 port) const noexcept {
        const std::uint16_t n = port.host();
        return ((encap_ports_[n / 64].load(std::memory_order_relaxed) >> (n % 64)) & 1) != 0;
    }

    /// For how long packets wait for an SA that somebody will make; 0: nobody will.
    [[nodiscard]] std::uint64_t await_ns() const noexcept {
        return await_ns_.load(std::memory_order_acquire);
    }
    /// Whether they wait here; else they are lost, and asked for.
    [[nodiscard]] bool holds() const noexcept { return holds_.load(std::memory_order_relaxed); }
    /// Another one once what waits for an SA may have found one.
    [[nodiscard]] std::uint32_t sa_changes() const noexcept {
        return sa_changes_.load(std::memory_order_acquire);
    }

    /// Whether nothing may pass, whatever the policies say.
    [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

    /// The largest packet that TCP may fill through a tunnel; mss_by_path, or 0: not looked at.
    [[nodiscard]] std::uint32_t mss_clamp() const noexcept {
        return mss_clamp_.load(std::memory_order_relaxed);
    }

    /// What judges inner packets; nullptr where nothing does.
    [[nodiscard]] packet_filter* filter() const noexcept {
        return filter_.load(std::memory_order_acquire);
    }

    // Control.
    /// Puts a filter in the place of the one before, which goes once no worker asks it any more;
    /// nullptr: none.
    void set_filter(std::unique_ptr<packet_filter> f);
    void await_sas(std::uint64_t ns, bool hold) noexcept {
        holds_.store(hold, std::memory_order_relaxed);
        await_ns_.store(ns, std::memory_order_release);
    }
    void set_defaults(const ipsec::default_actions& actions) noexcept;
    void note_sa_change() noexcept { sa_changes_.fetch_add(1, std::memory_order_release); }
    void close(bool closed) noexcept { closed_.store(closed, std::memory_order_release); }
    void set_mss_clamp(std::uint32_t mtu) noexcept {
        mss_clamp_.store(mtu, std::memory_order_relaxed);
    }
    /// Puts a forwarding table in the place of the one before.
    void publish(std::unique_ptr<fib> f);
    /// Changes the one there is: see fib::apply.
    void apply(const control::network_change& change, const control::network& now,
               const device_bindings& bindings);
    void set_encap_port(wire::be16 port, bool on) noexcept;
    [[nodiscard]] lookup_table<sa_in>& inbound() noexcept { return inbound_; }
    [[nodiscard]] sa_directory& outbound() noexcept { return outbound_; }
    [[nodiscard]] spread_table<spread_out>& spread_outbound() noexcept { return spread_outbound_; }
    [[nodiscard]] spread_table<spread_in>& spread_inbound() noexcept { return spread_inbound_; }
    /// Puts in and takes out a policy for some traffic.  The entry stays the caller's, and readable
    /// until the workers were quiescent.
    template <std::size_t Words>
    void insert(keyed_policy<Words>* e, ipsec::policy_direction d, const policy_scope& scope,
                const ipsec::selector& s);
    template <std::size_t Words>
    void erase(keyed_policy<Words>* e, ipsec::policy_direction d, const policy_scope& scope);
    [[nodiscard]] retired& graveyard() noexcept { return graveyard_; }

  private:
    using spd_set = std::array<spd, 3>; ///< by direction
    /// The policies of one scope, for as long as there are any.
    struct scoped_policies {
        scoped_policies(const policy_scope& of, retired& graveyard);
        policy_scope scope;
        std::uint32_t hash;
        std::size_t count = 0;
        spd_set by_direction;
    };
    [[nodiscard]] static std::uint32_t hash_of(const policy_scope& s) noexcept {
        const std::uint32_t h = _mm_crc32_u32(static_cast<std::uint32_t>(s.type), s.if_id);
        return _mm_crc32_u32(_mm_crc32_u32(h, s.mark.mask), s.mark.value);
    }
    [[nodiscard]] scoped_policies* find(const policy_scope& scope) const noexcept;
    void count_mask(const ipsec::mark_mask& mark, int by);

    retired graveyard_;
    std::atomic<fib*> routes_;
    lookup_table<sa_in> inbound_;
    sa_directory outbound_;
    spread_table<spread_out> spread_outbound_;
    spread_table<spread_in> spread_inbound_;
    spd_set policies_; ///< of no interface and no mark
    lookup_table<scoped_policies> scopes_;
    std::map<std::uint32_t, int> mask_users_; ///< scopes with a mark of that mask
    std::atomic<const std::vector<std::uint32_t>*> mark_masks_;
    std::atomic<std::uint32_t> subs_{0};   ///< sub-policies there are
    std::atomic<std::uint8_t> blocked_{0}; ///< a bit for each direction
    std::atomic<bool> closed_{false};
    std::atomic<std::uint32_t> mss_clamp_{0};
    std::atomic<std::uint64_t> await_ns_{0};
    std::atomic<bool> holds_{true};
    std::atomic<std::uint32_t> sa_changes_{0};
    std::atomic<packet_filter*> filter_{nullptr};
    std::array<std::atomic<std::uint64_t>, 1024> encap_ports_{};
};

} // namespace esplane::fastpath
