// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/overhead.h"

#include "lib/wire/headers.h"

namespace esplane::ipsec {

overhead overhead_of(const sa& s) noexcept {
    const suite_layout layout = layout_of(s.algs.run);
    const std::uint32_t ip = s.id.destination.fam == family::ipv6
                                 ? std::uint32_t{sizeof(wire::ipv6_header)}
                                 : std::uint32_t{sizeof(wire::ipv4_header)};
    const std::uint32_t udp = s.encap ? std::uint32_t{sizeof(wire::udp_header)} : 0;
    const bool tunnel = s.run_mode == mode::tunnel;
    overhead o;
    o.around = udp + std::uint32_t{sizeof(wire::esp_header)} + layout.iv_length +
               layout.icv_length + (tunnel ? ip : 0);
    o.block = layout.block_length;
    o.in_front = tunnel ? 0 : ip;
    return o;
}

std::uint32_t largest_inner(const sa& s, std::uint32_t path_mtu) noexcept {
    return overhead_of(s).largest_inner(path_mtu);
}

} // namespace esplane::ipsec
