// SPDX-License-Identifier: Apache-2.0
#include "fastpath/tables.h"

namespace esplane::fastpath {

tables::tables()
    : routes_(fib::build({}, {}).release())
    , inbound_(graveyard_) {
    for (auto& p : policies_)
        p = std::make_unique<spd>(graveyard_);
}

tables::~tables() {
    delete filter_.load(std::memory_order_relaxed);
    delete routes_.load(std::memory_order_relaxed);
}

void tables::publish(std::unique_ptr<const fib> f) {
    const fib* before = routes_.exchange(f.release(), std::memory_order_acq_rel);
    graveyard_.add([before] { delete before; });
    graveyard_.reclaim();
}

void tables::set_filter(std::unique_ptr<packet_filter> f) {
    const packet_filter* before = filter_.exchange(f.release(), std::memory_order_acq_rel);
    if (before == nullptr) return;
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
