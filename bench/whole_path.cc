// SPDX-License-Identifier: Apache-2.0
#include "bench/whole_path.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "bench/esp_judge.h"

namespace esplane::bench {

namespace {

using fastpath::packet;
using tests::lab;

constexpr std::uint32_t window = 64;
constexpr std::uint16_t room_behind = packet_memory::stride - packet_memory::headroom;

} // namespace

gateway::gateway() {
    auto engine = crypto::engine::make();
    if (!engine) throw std::runtime_error(engine.error().text);
    crypto_ = std::move(*engine);
    add_route("20.0.0.0", lab::plain, "10.1.0.2");
    add_route("30.0.0.0", lab::secure, "192.168.77.2");
    lab_.publish_network();
    path_ = std::make_unique<fastpath::pipeline>(lab_.tables, *crypto_, *lab_.pool, ports_, 0u);
}

/// Network/8.
void gateway::add_route(const char* network, int port, const char* via) {
    control::route r;
    r.destination = *ipsec::address::parse(network);
    r.prefix = 8;
    r.kind = control::route_kind::unicast;
    r.ifindex = lab_.network.links.at(static_cast<std::size_t>(port)).ifindex;
    r.gateway = *ipsec::address::parse(via);
    lab_.network.routes.push_back(r);
}

bool gateway::add_sa(const shape& s, std::uint32_t n) {
    ipsec::sa one;
    one.id = {s.outbound ? far_gateway() : near_gateway(), wire::be32(spi_of(n)), wire::proto_esp};
    one.source = s.outbound ? near_gateway() : far_gateway();
    one.reqid = n + 1;
    one.replay_window = window;
    one.replay.bitmap.resize(window / 32);
    return make_algorithms(*s.suite, n, one.algs) &&
           lab_.control.add_sa(std::move(one), {}, lab_.clock).has_value();
}

std::shared_ptr<gateway> gateway::make(const shape& s, std::span<const ipsec::policy> rules) {
    const std::shared_ptr<gateway> made(new gateway);
    for (std::uint32_t n = 0; n < s.sas; ++n)
        if (!made->add_sa(s, n)) return nullptr;
    for (const ipsec::policy& p : rules)
        made->lab_.add_policy(s.outbound ? p : reversed(p, ipsec::policy_direction::fwd));
    if (s.outbound) return made;
    const ipsec::address own = near_gateway();
    for (std::uint32_t n = 0; n < s.sas; ++n) {
        const wire::be32 spi(spi_of(n));
        made->in_.push_back(made->lab_.tables.inbound().find(
            fastpath::hash_of_spi(spi, own.bytes.data(), ipsec::family::ipv4),
            [spi](const fastpath::sa_in& sa) { return sa.spi == spi; }));
    }
    return made;
}

path_contender::path_contender(std::shared_ptr<const traffic> packets, std::shared_ptr<gateway> g)
    : contender(std::move(packets))
    , gateway_(std::move(g))
    , memory_(of().pool())
    , frames_(of().pool()) {}

void path_contender::prepare() {
    for (unsigned i = 0; i < of().pool(); ++i) {
        const unsigned n = nth(i);
        const auto ip = of().outbound ? packets().inner(n) : packets().sealed(n);
        std::uint8_t* const at = memory_.at(i);
        wire::ethernet_header ethernet{};
        ethernet.destination = gateway_->whole().network.links[of().outbound ? 0 : 1].mac;
        ethernet.type.set(wire::ethertype_ipv4);
        wire::store(at, ethernet);
        std::memcpy(at + sizeof ethernet, ip.data(), ip.size());
        packet& p = frames_[i] = {};
        p.data = at;
        p.length = static_cast<std::uint32_t>(sizeof ethernet + ip.size());
        p.headroom = packet_memory::headroom;
        p.tailroom = static_cast<std::uint16_t>(room_behind - p.length);
        p.owner = &buffers_;
    }
}

void path_contender::run() noexcept {
    const std::span<packet> all(frames_);
    const std::uint8_t from = of().outbound ? lab::plain : lab::secure;
    for (std::size_t at = 0; at < all.size(); at += burst)
        gateway_->path().process(all.subspan(at, burst), from, gateway_->whole().clock);
}

bytes path_contender::output(unsigned i) const {
    const packet& p = frames_[i];
    if (p.drop != 0) return {};
    const std::size_t front = sizeof(wire::ethernet_header) +
                              (of().outbound ? sizeof(wire::ipv4_header) : std::size_t{0});
    if (p.length < front) return {};
    return {p.data + front, p.data + p.length};
}

/// The SAs of the chunk that was, so that the next one finds its own as cold as they were.
void path_contender::reopen() {
    if (of().outbound) return;
    static const std::vector<std::uint32_t> empty(window / 32);
    for (unsigned i = 0; i < of().pool(); ++i)
        gateway_->inbound(packets().sa_of(nth(i))).window.restore(0, empty);
}

} // namespace esplane::bench
