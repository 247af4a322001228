// SPDX-License-Identifier: Apache-2.0
//
// Everything workers read: SAs by SPI, policies, routes.  Control publishes, workers quiesce.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <nmmintrin.h>
#include <span>

#include "fastpath/classify.h"
#include "fastpath/fib.h"
#include "fastpath/filter.h"
#include "fastpath/lookup_table.h"
#include "fastpath/retired.h"
#include "fastpath/sa.h"
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

class tables {
  public:
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
        return *policies_[static_cast<std::size_t>(d)];
    }
    /// Whether UDP to this port of the machine carries ESP for some SA.
    [[nodiscard]] bool is_encap_port(wire::be16 port) const noexcept {
        const std::uint16_t n = port.host();
        return ((encap_ports_[n / 64].load(std::memory_order_relaxed) >> (n % 64)) & 1) != 0;
    }

    /// Whether nothing may pass, whatever the policies say.
    [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_acquire); }

    /// What judges inner packets; nullptr where nothing does.
    [[nodiscard]] packet_filter* filter() const noexcept {
        return filter_.load(std::memory_order_acquire);
    }

    // Control.
    /// Puts a filter in the place of the one before, which goes once no worker asks it any more;
    /// nullptr: none.
    void set_filter(std::unique_ptr<packet_filter> f);
    void close(bool closed) noexcept { closed_.store(closed, std::memory_order_release); }
    void publish(std::unique_ptr<const fib> f);
    void set_encap_port(wire::be16 port, bool on) noexcept;
    [[nodiscard]] lookup_table<sa_in>& inbound() noexcept { return inbound_; }
    [[nodiscard]] spd& policies(ipsec::policy_direction d) noexcept {
        return *policies_[static_cast<std::size_t>(d)];
    }
    [[nodiscard]] retired& graveyard() noexcept { return graveyard_; }

  private:
    retired graveyard_;
    std::atomic<const fib*> routes_;
    lookup_table<sa_in> inbound_;
    std::array<std::unique_ptr<spd>, 3> policies_;
    std::atomic<bool> closed_{false};
    std::atomic<packet_filter*> filter_{nullptr};
    std::array<std::atomic<std::uint64_t>, 1024> encap_ports_{};
};

} // namespace esplane::fastpath
