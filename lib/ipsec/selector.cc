// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/selector.h"

#include <algorithm>

namespace esplane::ipsec {

namespace {

bool port_matches(wire::be16 port, wire::be16 wanted, wire::be16 mask) noexcept {
    return ((port.network() ^ wanted.network()) & mask.network()) == 0;
}

} // namespace

bool selector::matches(const flow& f) const noexcept {
    if (fam != family::unspecified && fam != f.source.fam) return false;
    return prefix_equal(source.bytes.data(), f.source.bytes.data(), source_prefix) &&
           prefix_equal(destination.bytes.data(), f.destination.bytes.data(), destination_prefix) &&
           (protocol == 0 || protocol == f.protocol) &&
           port_matches(f.source_port, source_port, source_port_mask) &&
           port_matches(f.destination_port, destination_port, destination_port_mask);
}

bool selector::overlaps(const selector& other) const noexcept {
    const auto ports_overlap = [](wire::be16 a, wire::be16 a_mask, wire::be16 b,
                                  wire::be16 b_mask) {
        return ((a.network() ^ b.network()) & a_mask.network() & b_mask.network()) == 0;
    };
    return fam == other.fam && (ifindex == 0 || other.ifindex == 0 || ifindex == other.ifindex) &&
           prefix_equal(source.bytes.data(), other.source.bytes.data(),
                        std::min(source_prefix, other.source_prefix)) &&
           prefix_equal(destination.bytes.data(), other.destination.bytes.data(),
                        std::min(destination_prefix, other.destination_prefix)) &&
           (protocol == 0 || other.protocol == 0 || protocol == other.protocol) &&
           ports_overlap(source_port, source_port_mask, other.source_port,
                         other.source_port_mask) &&
           ports_overlap(destination_port, destination_port_mask, other.destination_port,
                         other.destination_port_mask);
}

std::string selector::to_string() const {
    std::string text = source.to_string() + "/" + std::to_string(source_prefix) + " " +
                       destination.to_string() + "/" + std::to_string(destination_prefix);
    if (protocol != 0) text += " proto " + std::to_string(protocol);
    if (source_port_mask != wire::be16()) text += " sport " + std::to_string(source_port.host());
    if (destination_port_mask != wire::be16())
        text += " dport " + std::to_string(destination_port.host());
    return text;
}

} // namespace esplane::ipsec
