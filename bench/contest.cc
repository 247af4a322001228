// SPDX-License-Identifier: Apache-2.0
#include "bench/contest.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sys/mman.h>

#include "bench/esp_judge.h"
#include "lib/wire/checksum.h"
#include "lib/wire/headers.h"

namespace esplane::bench {

const suite_choice aes128_gcm{
    "AES-128-GCM", "rfc4106(gcm(aes))", nullptr, nullptr, 16, 0, 8, 16, 4};
const suite_choice aes256_gcm{
    "AES-256-GCM", "rfc4106(gcm(aes))", nullptr, nullptr, 32, 0, 8, 16, 4};
const suite_choice cbc_sha1{
    "AES-128-CBC+SHA1", nullptr, "cbc(aes)", "hmac(sha1)", 16, 20, 16, 12, 16};
const suite_choice cbc_sha256{
    "AES-256-CBC+SHA256", nullptr, "cbc(aes)", "hmac(sha256)", 32, 32, 16, 16, 16};
const suite_choice chacha20_poly1305{
    "CHACHA20-POLY1305", "rfc7539esp(chacha20,poly1305)", nullptr, nullptr, 32, 0, 8, 16, 4};

namespace {

constexpr std::size_t aead_salt = 4;
constexpr unsigned few_flows = 1024;
/// What they touch fits no cache.
constexpr unsigned many_flows = 65536;

/// Well mixed, and the same everywhere.
std::uint64_t mixed(std::uint64_t x) noexcept {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

bytes derived(std::uint64_t seed, std::size_t length) {
    bytes key(length);
    for (std::size_t i = 0; i < length; ++i)
        key[i] = static_cast<std::uint8_t>(mixed(seed * 16 + i / 8) >> (i % 8 * 8));
    return key;
}

std::uint32_t length_of(const shape& s, unsigned n) noexcept {
    constexpr std::array<std::uint32_t, 12> mix{64,   570, 64,  64, 570, 64,
                                                1420, 64,  570, 64, 570, 64};
    return s.length == imix ? mix[n % mix.size()] : s.length;
}

/// A TCP or UDP packet, checksums right.
bytes inner_packet(const ipsec::flow& f, std::uint32_t length, std::uint32_t number) {
    bytes p(length);
    for (std::size_t i = sizeof(wire::ipv4_header) + 20; i < length; ++i)
        p[i] = static_cast<std::uint8_t>(i * 7 + number);
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.total_length.set(static_cast<std::uint16_t>(length));
    ip.fragment.set(wire::ipv4_df);
    ip.ttl = 64;
    ip.protocol = f.protocol;
    ip.source = f.source.as_v4();
    ip.destination = f.destination.as_v4();
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(p.data(), ip);

    std::uint8_t* const l4 = p.data() + sizeof ip;
    const auto l4_length = static_cast<std::uint32_t>(length - sizeof ip);
    const bool udp = f.protocol == wire::proto_udp;
    wire::store(l4, f.source_port);
    wire::store(l4 + 2, f.destination_port);
    if (udp) wire::store(l4 + 4, wire::be16(static_cast<std::uint16_t>(l4_length)));
    const std::uint64_t pseudo = wire::checksum_pseudo(
        f.source.bytes.data(), f.destination.bytes.data(), 4, f.protocol, l4_length);
    wire::store(l4 + (udp ? 6 : 16),
                wire::checksum_finish(wire::checksum_add(pseudo, l4, l4_length)));
    return p;
}

/// What a router makes of it.
bytes one_hop_on(bytes packet) {
    auto ip = wire::load<wire::ipv4_header>(packet.data());
    --ip.ttl;
    ip.checksum = {};
    ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
    wire::store(packet.data(), ip);
    return packet;
}

/// Writes to more than the largest cache holds.
void empty_caches() {
    constexpr std::size_t more_than_cache = std::size_t{96} << 20;
    constexpr std::size_t line = 64;
    static const large_memory other(more_than_cache);
    for (std::size_t at = 0; at < more_than_cache; at += line)
        ++other.data()[at];
}

ipsec::keyed_algorithm named(const char* name, const bytes& key, unsigned icv_bits) {
    return {name, secret(key), icv_bits};
}

} // namespace

bytes cipher_key(const suite_choice& s, std::uint32_t n) {
    return derived(std::uint64_t{n} * 2 + 1, s.cipher_key + (s.is_aead() ? aead_salt : 0));
}

bytes auth_key(const suite_choice& s, std::uint32_t n) {
    return derived(std::uint64_t{n} * 2 + 2, s.auth_key);
}

bool make_algorithms(const suite_choice& s, std::uint32_t n, ipsec::algorithms& into) {
    if (s.is_aead()) {
        into.aead = named(s.aead, cipher_key(s, n), s.icv * 8);
    } else {
        into.cipher = named(s.cipher, cipher_key(s, n), 0);
        into.auth = named(s.auth, auth_key(s, n), s.icv * 8);
    }
    return ipsec::resolve(into).has_value();
}

std::string shape::name() const {
    std::string size = length == imix ? "IMIX" : std::to_string(length) + "B";
    std::string all = std::string(outbound ? "out/" : "in/") + size + "/" + std::to_string(sas) +
                      "SA/" + std::to_string(rule_count()) + std::string(name_of(rules));
    return suite == &aes128_gcm ? all : all + "/" + suite->name;
}

ipsec::address near_gateway() {
    return *ipsec::address::parse("192.168.77.1");
}
ipsec::address far_gateway() {
    return *ipsec::address::parse("192.168.77.2");
}

std::vector<ipsec::policy> rules_of(const shape& s) {
    return make_rules(s.rules, s.rule_count(), {near_gateway(), far_gateway(), s.sas});
}

traffic::traffic(const shape& s, std::span<const ipsec::policy> rules)
    : shape_(s) {
    const bool cached = s.rules == rule_kind::hub && s.rule_count() <= 10'000;
    const unsigned count = cached ? few_flows : many_flows;
    flows_.reserve(count);
    for (unsigned n = 0; n < count; ++n) {
        const std::size_t rule = mixed(n) % rules.size();
        ipsec::flow f = make_flows(rules.subspan(rule, 1), 1, n + 1).front();
        if (!s.outbound) {
            std::swap(f.source, f.destination);
            std::swap(f.source_port, f.destination_port);
        }
        add(f, static_cast<std::uint32_t>(rule % s.sas), length_of(s, n));
    }
    if (!s.outbound) seal_all();
}

bool traffic::few() const noexcept {
    return count() == few_flows;
}

void traffic::add(const ipsec::flow& of, std::uint32_t sa, std::uint32_t length) {
    const bytes packet = inner_packet(of, length, static_cast<std::uint32_t>(flows_.size()));
    flows_.push_back({sa, length, inner_.size(), 0, 0});
    inner_.insert(inner_.end(), packet.begin(), packet.end());
}

/// Each SA's packets in their order.
void traffic::seal_all() {
    const suite_choice& suite = *shape_.suite;
    std::vector<std::uint32_t> sent(shape_.sas);
    for (unsigned n = 0; n < count(); ++n) {
        flow& f = flows_[n];
        const std::uint32_t text = text_length(suite, f.length);
        f.sealed_at = sealed_.size();
        f.sealed_length = static_cast<std::uint32_t>(
            sizeof(wire::ipv4_header) + sizeof(wire::esp_header) + suite.iv + text + suite.icv);
        sealed_.resize(sealed_.size() + f.sealed_length);
        std::uint8_t* const outer = sealed_.data() + f.sealed_at;
        wire::ipv4_header ip{};
        ip.version_ihl = 0x45;
        ip.total_length.set(static_cast<std::uint16_t>(f.sealed_length));
        ip.fragment.set(wire::ipv4_df);
        ip.ttl = 64;
        ip.protocol = wire::proto_esp;
        ip.source = far_gateway().as_v4();
        ip.destination = near_gateway().as_v4();
        ip.checksum = wire::checksum_finish(wire::checksum_add(0, &ip, sizeof ip));
        wire::store(outer, ip);
        lay_out(suite, f.sa, ++sent[f.sa], inner(n), outer + sizeof ip);
        esp_keys(suite, f.sa, true).encrypt(outer + sizeof ip, text);
    }
}

namespace {
constexpr std::size_t huge_page = 2u << 20;
}

large_memory::large_memory(std::size_t size)
    : size_((size / huge_page + 1) * huge_page) {
    void* at = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    ::madvise(at, size_, MADV_HUGEPAGE);
    data_ = static_cast<std::uint8_t*>(at);
}

large_memory::~large_memory() {
    ::munmap(data_, size_);
}

double contender::chunk() {
    prepare();
    const auto start = std::chrono::steady_clock::now();
    run();
    const auto end = std::chrono::steady_clock::now();
    reopen();
    next();
    return std::chrono::duration<double, std::nano>(end - start).count() / of().pool();
}

void contender::warm_up() {
    const bool few = packets().few();
    const unsigned chunks = few ? packets().count() / of().pool() : 1;
    if (!few) empty_caches();
    for (unsigned i = 0; i < chunks; ++i)
        (void)chunk();
}

bool contender::verify() {
    for (unsigned done = 0; done < packets().count(); done += of().pool()) {
        prepare();
        run();
        for (unsigned i = 0; i < of().pool(); ++i)
            if (!right(i)) return false;
        reopen();
        next();
    }
    return true;
}

bool contender::right(unsigned i) const {
    const unsigned n = nth(i);
    const std::span<const std::uint8_t> inner = packets().inner(n);
    bytes expected(inner.begin(), inner.end());
    if (routes()) expected = one_hop_on(std::move(expected));
    bytes out = output(i);
    if (of().outbound) out = open_esp(*of().suite, packets().sa_of(n), std::move(out));
    return out == expected;
}

} // namespace esplane::bench
