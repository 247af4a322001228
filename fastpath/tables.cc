// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tables.h"

#include <nmmintrin.h>

namespace esplane::fastpath {

std::uint32_t hash_of_spi(wire::be32 spi, const std::uint8_t* destination,
                          ipsec::family f) noexcept {
    std::uint64_t h = _mm_crc32_u32(0, spi.network());
    if (f == ipsec::family::ipv4)
        h = _mm_crc32_u32(static_cast<std::uint32_t>(h), wire::load<std::uint32_t>(destination));
    else {
        h = _mm_crc32_u64(h, wire::load<std::uint64_t>(destination));
        h = _mm_crc32_u64(h, wire::load<std::uint64_t>(destination + 8));
    }
    return static_cast<std::uint32_t>(h);
}

tables::tables()
    : routes_(fib::build({}, {}).release())
    , inbound_(graveyard_) {
    for (auto& p : policies_)
        p = std::make_unique<spd>(graveyard_);
}

tables::~tables() {
    delete routes_.load(std::memory_order_relaxed);
}

void tables::publish(std::unique_ptr<const fib> f) {
    const fib* before = routes_.exchange(f.release(), std::memory_order_acq_rel);
    graveyard_.add([before] { delete before; });
    graveyard_.reclaim();
}

void tables::set_encap_port(wire::be16 port, bool on) noexcept {
    const std::uint16_t n = port.host();
    const std::uint64_t bit = std::uint64_t{1} << (n % 64);
    if (on)
        encap_ports_[n / 64].fetch_or(bit, std::memory_order_relaxed);
    else
        encap_ports_[n / 64].fetch_and(~bit, std::memory_order_relaxed);
}

} // namespace esplane::fastpath
