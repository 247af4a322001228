// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/api/gateway.h"

#include <stdexcept>

#include <arpa/inet.h>

namespace esplane::tests {

namespace {

void must(int returned) {
    if (returned < 0)
        throw std::runtime_error("esplane: " + std::to_string(returned) + " " +
                                 esplane_error_text());
}

constexpr std::uint8_t around = 0xa5;

} // namespace

esplane_address ip(const std::string& text) {
    esplane_address a{};
    if (::inet_pton(AF_INET, text.c_str(), a.bytes) == 1)
        a.family = ESPLANE_IPV4;
    else if (::inet_pton(AF_INET6, text.c_str(), a.bytes) == 1)
        a.family = ESPLANE_IPV6;
    else
        throw std::runtime_error(text + " is no address");
    return a;
}

bytes gcm_key() {
    bytes key(20);
    for (std::size_t i = 0; i < key.size(); ++i)
        key[i] = static_cast<std::uint8_t>(17 * i + 3);
    return key;
}

esplane_sa make_sa(unsigned from, const bytes& key) {
    esplane_sa s;
    esplane_sa_init(&s);
    s.source = ip("192.168.77." + std::to_string(from));
    s.id.destination = ip("192.168.77." + std::to_string(3 - from));
    s.id.spi = 0x1000 + from;
    s.reqid = 1;
    s.replay_window = 64;
    s.aead = {"rfc4106(gcm(aes))", key.data(), static_cast<std::uint32_t>(key.size()), 128};
    s.flags = ESPLANE_SA_ANY_INNER_FAMILY;
    return s;
}

esplane_policy make_policy(std::uint8_t direction, unsigned from, esplane_template& via) {
    esplane_template_init(&via);
    via.family = ESPLANE_IPV4;
    via.source = ip("192.168.77." + std::to_string(from));
    via.id.destination = ip("192.168.77." + std::to_string(3 - from));
    via.reqid = 1;
    esplane_policy p;
    esplane_policy_init(&p);
    p.direction = direction;
    p.selector.family = ESPLANE_IPV4;
    p.selector.source = ip("10." + std::to_string(from) + ".0.0");
    p.selector.destination = ip("10." + std::to_string(3 - from) + ".0.0");
    p.selector.source_prefix = p.selector.destination_prefix = 16;
    p.templates = &via;
    p.template_count = 1;
    return p;
}

esplane_time at(std::uint64_t seconds) {
    return {seconds * 1'000'000'000, 1'700'000'000 + seconds};
}

buffer::buffer(const bytes& p, std::uint16_t headroom, std::uint16_t tailroom)
    : memory_(headroom + p.size() + tailroom, around)
    , length_(static_cast<std::uint32_t>(p.size()))
    , headroom_(headroom) {
    std::copy(p.begin(), p.end(), memory_.begin() + headroom);
    before_ = memory_;
    packet.data = memory_.data() + headroom;
    packet.length = length_;
    packet.headroom = headroom;
    packet.tailroom = tailroom;
    packet.user = this;
}

bytes buffer::content() const {
    return {packet.data, packet.data + packet.length};
}

bool buffer::untouched() const {
    return memory_ == before_ && packet.data == memory_.data() + headroom_ &&
           packet.length == length_ && packet.headroom == headroom_ && packet.user == this;
}

gateway::gateway(unsigned which, void (*change)(esplane_engine_options&))
    : site(which) {
    esplane_engine_options o;
    esplane_engine_options_init(&o);
    if (change != nullptr) change(o);
    must(esplane_engine_create(&o, &engine));
    const esplane_address own = ip("192.168.77." + std::to_string(site));
    must(esplane_set_addresses(engine, &own, 1));
}

gateway::~gateway() {
    (void)esplane_engine_destroy(engine);
}

void gateway::add_sa(unsigned from) {
    const esplane_sa s = make_sa(from, key);
    must(esplane_sa_add(engine, &s, at(clock)));
}

void gateway::add_policy(std::uint8_t direction, unsigned from) {
    esplane_template via;
    const esplane_policy p = make_policy(direction, from, via);
    must(esplane_policy_add(engine, &p, at(clock)));
}

void gateway::add_tunnel() {
    add_sa(site);
    add_sa(3 - site);
    add_policy(ESPLANE_OUT, site);
    add_policy(ESPLANE_FORWARD, 3 - site);
    add_policy(ESPLANE_IN, 3 - site);
}

void gateway::outbound(buffer& b, std::uint32_t flags) {
    working([&] { must(esplane_outbound(worker, &b.packet, 1, at(clock), flags)); });
}

void gateway::inbound(buffer& b) {
    working([&] { must(esplane_inbound(worker, &b.packet, 1, at(clock))); });
}

void gateway::working(const std::function<void()>& what) {
    must(esplane_worker_register(engine, &worker));
    what();
    must(esplane_worker_unregister(worker));
}

std::uint64_t gateway::dropped(const std::string& reason) const {
    for (std::uint16_t r = 1; r < esplane_reason_count(); ++r)
        if (esplane_reason_name(r) == reason) {
            std::uint64_t n = 0;
            must(esplane_drops(engine, r, &n));
            return n;
        }
    throw std::runtime_error("no reason " + reason);
}

esplane_counters gateway::counters() const {
    esplane_counters c;
    esplane_counters_init(&c);
    must(esplane_counters_get(engine, &c));
    return c;
}

} // namespace esplane::tests
