// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_requests.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <netinet/in.h>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <sys/socket.h>

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;

using byte_vector = std::vector<std::uint8_t>;

template <typename T>
byte_vector bytes_of(const T& value) {
    byte_vector out(sizeof value);
    std::memcpy(out.data(), &value, sizeof value);
    return out;
}

template <typename T>
void append(byte_vector& to, const T& value) {
    const byte_vector more = bytes_of(value);
    to.insert(to.end(), more.begin(), more.end());
}

struct attribute {
    std::uint16_t type = 0;
    byte_vector value;
    std::optional<std::uint16_t> said_length; ///< nla_len, where that is a lie
};

struct draft {
    std::uint16_t type = 0;
    std::uint16_t flags = NLM_F_REQUEST;
    byte_vector fixed;
    std::vector<attribute> attributes;
    byte_vector behind; ///< what is no attribute
    /// Where in `fixed` an SPI of ALLOCSPI's goes, and whose.
    std::optional<patch> spi;

    template <typename T>
    void add(std::uint16_t attribute_type, const T& value) {
        attributes.push_back({attribute_type, bytes_of(value), {}});
    }
};

constexpr std::uint64_t infinite = ~std::uint64_t{0};

class author {
  public:
    explicit author(std::uint64_t seed)
        : random_(seed) {}

    session write(unsigned datagrams) {
        session s;
        s.capped_acks = chance(50);
        s.extended_acks = !chance(10);
        while (s.asked.size() < datagrams)
            s.asked.push_back(write_datagram(static_cast<std::uint32_t>(s.asked.size())));
        for (const std::uint16_t type : {XFRM_MSG_GETSA, XFRM_MSG_GETPOLICY})
            s.asked.push_back(whole_dump(type));
        return s;
    }

  private:
    // Chance

    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }
    bool chance(unsigned percent) { return below(100) < percent; }
    template <typename T, std::size_t N>
    const T& one_of(const T (&pool)[N]) {
        return pool[below(N)];
    }
    template <typename T>
    T one_of(std::initializer_list<T> pool) {
        return pool.begin()[below(static_cast<std::uint32_t>(pool.size()))];
    }

    // Pools

    std::uint16_t family() { return chance(70) ? AF_INET : AF_INET6; }
    xfrm_address_t address(std::uint16_t family) {
        xfrm_address_t a{};
        if (family == AF_INET6) {
            a.a6[0] = htonl(0xfd000000);
            a.a6[3] = htonl(1 + below(3));
        } else {
            a.a4 = htonl(0x0a000001 + below(3));
        }
        return chance(3) ? xfrm_address_t{} : a;
    }
    std::uint32_t spi() { return htonl(chance(4) ? 1 : chance(1) ? 0 : 0x1000 + below(6)); }
    std::uint8_t protocol() {
        return chance(96)
                   ? std::uint8_t{IPPROTO_ESP}
                   : one_of<std::uint8_t>({IPPROTO_AH, IPPROTO_COMP, IPPROTO_ROUTING, 0, 17, 255});
    }
    std::uint8_t mode() {
        return chance(97) ? one_of<std::uint8_t>({XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL})
                          : static_cast<std::uint8_t>(below(8));
    }
    std::uint32_t reqid() { return below(3); }
    xfrm_mark mark() {
        return one_of<xfrm_mark>({{0, 0}, {5, 0xff}, {5, ~0u}, {0x105, 0xff}, {6, 0xf}, {0, 1}});
    }
    std::uint32_t if_id() { return one_of<std::uint32_t>({0, 7, 8}); }

    xfrm_selector selector(std::uint16_t family) {
        xfrm_selector s{};
        s.family = family;
        const bool v4 = family == AF_INET;
        s.saddr = address(family);
        s.daddr = address(family);
        s.prefixlen_s = one_of<std::uint8_t>({0, 24, static_cast<std::uint8_t>(v4 ? 32 : 128)});
        s.prefixlen_d = one_of<std::uint8_t>({0, 24, static_cast<std::uint8_t>(v4 ? 32 : 128)});
        if (chance(20)) s.proto = one_of<std::uint8_t>({IPPROTO_TCP, IPPROTO_UDP});
        if (chance(10)) {
            s.sport = htons(static_cast<std::uint16_t>(500 + below(2)));
            s.sport_mask = 0xffff;
        }
        if (chance(10)) {
            s.dport = htons(static_cast<std::uint16_t>(500 + below(2)));
            s.dport_mask = 0xffff;
        }
        return s;
    }
    /// Of a policy: few, so that they clash.
    xfrm_selector policy_selector() {
        xfrm_selector s{};
        s.family = chance(75) ? AF_INET : AF_INET6;
        if (s.family == AF_INET) {
            s.saddr.a4 = htonl(0x0a010000);
            s.daddr.a4 = htonl(0x0a020000 + (below(3) << 8));
            s.prefixlen_s = chance(80) ? 24 : 16;
            s.prefixlen_d = 24;
        } else {
            s.saddr.a6[0] = htonl(0xfd010000);
            s.daddr.a6[0] = htonl(0xfd020000);
            s.prefixlen_s = 64;
            s.prefixlen_d = chance(50) ? 64 : 48;
        }
        if (chance(10)) s.proto = IPPROTO_UDP;
        return s;
    }
    xfrm_lifetime_cfg limits() {
        xfrm_lifetime_cfg l{infinite, infinite, infinite, infinite, 0, 0, 0, 0};
        if (chance(25)) {
            l.soft_byte_limit = one_of<std::uint64_t>({0, 1000, 1'000'000});
            l.hard_byte_limit = one_of<std::uint64_t>({1000, 2'000'000, infinite});
        }
        if (chance(15)) {
            l.soft_packet_limit = one_of<std::uint64_t>({0, 10, 1000});
            l.hard_packet_limit = one_of<std::uint64_t>({10, 2000, infinite});
        }
        if (chance(20)) l.soft_add_expires_seconds = one_of<std::uint64_t>({3000, 4000});
        if (chance(20)) l.hard_add_expires_seconds = one_of<std::uint64_t>({3600, 7200, infinite});
        if (chance(10)) l.soft_use_expires_seconds = 5000;
        if (chance(10)) l.hard_use_expires_seconds = one_of<std::uint64_t>({6000, infinite});
        return l;
    }

    // Attributes

    void add_mark(draft& d) {
        if (chance(25)) d.add(XFRMA_MARK, mark());
    }
    void add_if_id(draft& d) {
        if (chance(15)) d.add(XFRMA_IF_ID, if_id());
    }
    void add_direction(draft& d) {
        if (chance(30)) d.add(xfrma_sa_dir, one_of({xfrm_sa_dir_in, xfrm_sa_dir_out}));
    }

    byte_vector algorithm(std::string_view name, std::uint32_t key_length,
                          std::optional<std::uint32_t> icv) {
        byte_vector out(64);
        name.copy(reinterpret_cast<char*>(out.data()), 63);
        append(out, std::uint32_t{key_length * 8});
        if (icv) append(out, *icv);
        for (std::uint32_t i = 0; i < key_length; ++i)
            out.push_back(static_cast<std::uint8_t>(i * 7 + 1));
        return out;
    }
    void add_aead(draft& d) {
        const std::uint32_t key = chance(95) ? one_of<std::uint32_t>({20, 28, 36}) : 17 + below(9);
        const char* const name = chance(97) ? "rfc4106(gcm(aes))" : "rfc4106(foo(aes))";
        d.attributes.push_back({XFRMA_ALG_AEAD, algorithm(name, key, 128), {}});
    }
    void add_auth(draft& d) {
        const std::uint32_t key = chance(90) ? 32 : below(80);
        const char* const name = chance(90) ? "hmac(sha256)" : chance(70) ? "sha256" : "hmac(foo)";
        d.attributes.push_back({XFRMA_ALG_AUTH_TRUNC, algorithm(name, key, 128), {}});
    }
    void add_cipher(draft& d) {
        if (chance(20)) {
            const char* const null = chance(80) ? "ecb(cipher_null)" : "cipher_null";
            d.attributes.push_back({XFRMA_ALG_CRYPT, algorithm(null, 0, {}), {}});
            return;
        }
        const std::uint32_t key = chance(93) ? one_of<std::uint32_t>({16, 24, 32}) : below(40);
        const char* const name = chance(90) ? "cbc(aes)" : chance(70) ? "aes" : "cbc(foo)";
        d.attributes.push_back({XFRMA_ALG_CRYPT, algorithm(name, key, {}), {}});
    }
    void add_algorithms(draft& d) {
        if (chance(60)) {
            add_aead(d);
        } else {
            add_auth(d);
            if (!chance(3)) add_cipher(d);
        }
    }

    void add_esn(draft& d, xfrm_usersa_info& info) {
        const std::uint32_t words = one_of<std::uint32_t>({0, 1, 1, 2, 2, 32});
        xfrm_replay_state_esn state{};
        state.bmp_len = words;
        state.replay_window = words == 0 ? 0 : chance(80) ? words * 32 : 1 + below(words * 32);
        if (chance(5)) state.replay_window = below(100);
        if (chance(40)) state.seq = below(100);
        if (chance(40)) state.oseq = below(100);
        if (chance(10)) state.seq_hi = 1;
        if (chance(10)) state.oseq_hi = 1;
        byte_vector value = bytes_of(state);
        if (chance(70)) append_bitmap(value, state);
        d.attributes.push_back({XFRMA_REPLAY_ESN_VAL, value, {}});
        if (!chance(5)) info.replay_window = 0;
        if (chance(70)) info.flags |= XFRM_STATE_ESN;
    }
    /// Bits of numbers that have come, and of no other.
    void append_bitmap(byte_vector& to, const xfrm_replay_state_esn& state) {
        std::vector<std::uint32_t> ring(state.bmp_len);
        const std::uint32_t window = std::min(state.replay_window, state.bmp_len * 32);
        for (std::uint32_t back = 0; back < std::min(window, state.seq); ++back) {
            const std::uint32_t bit = (state.seq - back - 1) % window;
            ring[bit / 32] |= below(2) << (bit % 32);
        }
        for (const std::uint32_t word : ring)
            append(to, word);
    }
    /// The same of the window of 32.
    xfrm_replay_state replay_state(std::uint8_t window) {
        const std::uint32_t received = below(10);
        const std::uint32_t bits = window < 32 ? 0 : below(1u << received);
        return {below(10), received, bits};
    }
    void add_encap(draft& d) {
        xfrm_encap_tmpl e{};
        e.encap_type = static_cast<std::uint16_t>(chance(95) ? 2 : below(8));
        e.encap_sport = htons(static_cast<std::uint16_t>(4500 + below(2)));
        e.encap_dport = htons(4500);
        if (chance(20)) e.encap_oa = address(AF_INET);
        d.add(XFRMA_ENCAP, e);
    }
    /// What an SA may have and most do not.
    void add_seldom(draft& d) {
        if (chance(12)) add_encap(d);
        if (chance(8)) d.add(XFRMA_SA_EXTRA_FLAGS, below(4));
        if (chance(8)) d.add(XFRMA_LTIME_VAL, current());
        if (chance(8)) d.add(XFRMA_REPLAY_THRESH, below(3));
        if (chance(8)) d.add(XFRMA_ETIMER_THRESH, below(3) * 100);
        if (chance(5)) d.add(XFRMA_TFCPAD, below(300));
        if (chance(5)) d.add(XFRMA_COADDR, address(AF_INET6));
        if (chance(5)) d.add(XFRMA_SRCADDR, address(family()));
        if (chance(8)) d.add(XFRMA_SET_MARK, below(3));
        if (chance(8)) d.add(XFRMA_SET_MARK_MASK, one_of<std::uint32_t>({0, 0xff, ~0u}));
        if (chance(4)) d.add(XFRMA_MTIMER_THRESH, below(3));
        if (chance(3)) d.add(XFRMA_LASTUSED, std::uint64_t{77});
        if (chance(4)) d.add(xfrma_nat_keepalive_interval, below(3) * 10);
        if (chance(4)) add_cpu(d);
        if (chance(2)) d.add(XFRMA_OFFLOAD_DEV, xfrm_user_offload{1, 0});
        if (chance(3)) add_context(d, true);
    }
    /// Of one that every machine has, or none: machines have different numbers of them.
    void add_cpu(draft& d) { d.add(xfrma_sa_pcpu, chance(60) ? 0u : 0xffffu); }
    /// whole   else as no kernel takes it, whether it has a security module or not
    void add_context(draft& d, bool whole) {
        constexpr std::string_view label = "system_u:object_r:a_t:s0";
        xfrm_user_sec_ctx c{};
        c.ctx_len = static_cast<std::uint16_t>(label.size());
        c.len = static_cast<std::uint16_t>(sizeof c + label.size());
        c.exttype = XFRMA_SEC_CTX;
        c.ctx_doi = 1;
        c.ctx_alg = 1;
        if (!whole) c.len = static_cast<std::uint16_t>(c.len + 1 + below(100));
        byte_vector value = bytes_of(c);
        value.insert(value.end(), label.begin(), label.end());
        d.attributes.push_back({XFRMA_SEC_CTX, value, {}});
    }
    xfrm_lifetime_cur current() {
        return {below(3) * 1000, below(3) * 10, 1'600'000'000,
                below(2) * std::uint64_t{1'600'000'000}};
    }

    // Requests

    xfrm_usersa_info sa_info() {
        xfrm_usersa_info i{};
        i.family = family();
        i.id.daddr = address(i.family);
        i.saddr = address(i.family);
        i.id.spi = spi();
        i.id.proto = protocol();
        i.mode = mode();
        i.reqid = reqid();
        if (chance(10)) i.seq = below(3);
        if (chance(40)) i.sel = selector(chance(90) ? i.family : family());
        if (chance(10)) i.sel.family = AF_UNSPEC;
        i.lft = limits();
        i.replay_window = one_of<std::uint8_t>({0, 0, 32, 32, 64});
        if (chance(20)) i.flags = static_cast<std::uint8_t>(1u << below(8));
        if (chance(80)) i.flags &= static_cast<std::uint8_t>(~XFRM_STATE_ESN);
        return i;
    }

    draft put_sa(std::uint16_t type) {
        draft d;
        d.type = type;
        xfrm_usersa_info info = sa_info();
        add_algorithms(d);
        if (chance(20)) add_esn(d, info);
        if (chance(15)) d.add(XFRMA_REPLAY_VAL, replay_state(info.replay_window));
        add_direction(d);
        add_mark(d);
        add_if_id(d);
        add_seldom(d);
        const bool larval = type == XFRM_MSG_UPDSA && !allocated_.empty() && chance(30);
        if (larval) fill(info, d);
        d.fixed = bytes_of(info);
        return d;
    }
    /// Makes of it what completes an ALLOCSPI.
    void fill(xfrm_usersa_info& info, draft& d) {
        const asked_spi& a = allocated_[allocated_.size() - 1 -
                                        below(std::min<std::uint32_t>(
                                            3, static_cast<std::uint32_t>(allocated_.size())))];
        info.family = a.info.family;
        info.id.daddr = a.info.id.daddr;
        info.saddr = a.info.saddr;
        info.id.proto = a.info.id.proto;
        info.sel.family = AF_UNSPEC;
        info.sel = {};
        d.spi = {offsetof(xfrm_usersa_info, id) + offsetof(xfrm_id, spi), a.datagram};
        std::erase_if(d.attributes, [](const attribute& x) {
            return x.type == XFRMA_MARK || x.type == xfrma_sa_dir;
        });
        for (const attribute& x : a.attributes)
            if (x.type == XFRMA_MARK || (x.type == xfrma_sa_dir && !chance(10)))
                d.attributes.push_back(x);
    }

    draft name_sa(std::uint16_t type) {
        draft d;
        d.type = type;
        xfrm_usersa_id id{};
        id.family = family();
        id.daddr = address(id.family);
        id.spi = spi();
        id.proto = protocol();
        add_mark(d);
        if (chance(10)) d.add(XFRMA_SRCADDR, address(id.family));
        if (type == XFRM_MSG_GETSA && chance(30)) {
            d.flags |= NLM_F_DUMP;
            if (chance(30)) d.add(XFRMA_PROTO, protocol());
            if (chance(50)) d.add(XFRMA_ADDRESS_FILTER, address_filter());
            if (chance(70)) d.fixed.clear();
        }
        if (!allocated_.empty() && chance(10)) {
            const asked_spi& a = allocated_.back();
            id.family = a.info.family;
            id.daddr = a.info.id.daddr;
            d.spi = {offsetof(xfrm_usersa_id, spi), a.datagram};
        }
        const bool bare_dump = (d.flags & NLM_F_DUMP) == NLM_F_DUMP && !chance(10);
        if (bare_dump)
            d.spi.reset();
        else
            d.fixed = bytes_of(id);
        return d;
    }
    xfrm_address_filter address_filter() {
        xfrm_address_filter f{};
        f.family = chance(80) ? family() : AF_UNSPEC;
        f.saddr = address(f.family);
        f.daddr = address(f.family);
        f.splen = one_of<std::uint8_t>({0, 8, 30, 32, 128, 129});
        f.dplen = one_of<std::uint8_t>({0, 31, 32, 128});
        return f;
    }

    draft allocate() {
        draft d;
        d.type = XFRM_MSG_ALLOCSPI;
        xfrm_userspi_info i{};
        i.info = sa_info();
        i.info.lft = {};
        if (chance(60)) i.info.seq = 0;
        if (chance(50)) {
            i.min = i.max = 0x1000 + below(6);
        } else {
            i.min = first_random_spi;
            i.max = last_random_spi;
        }
        if (chance(5)) i.min = i.max + 1;
        if (chance(2)) i.min = i.max = below(2);
        add_mark(d);
        add_if_id(d);
        add_direction(d);
        d.fixed = bytes_of(i);
        return d;
    }

    draft flush_sa() {
        draft d;
        d.type = XFRM_MSG_FLUSHSA;
        d.fixed = bytes_of(xfrm_usersa_flush{
            one_of<std::uint8_t>({0, 255, IPPROTO_ESP, IPPROTO_AH, IPPROTO_COMP, 17, 0})});
        return d;
    }

    xfrm_user_tmpl template_for(std::uint16_t selector_family) {
        xfrm_user_tmpl t{};
        t.mode = mode();
        t.family = t.mode == XFRM_MODE_TRANSPORT && !chance(5) ? selector_family : family();
        if (chance(10)) t.family = AF_UNSPEC;
        t.id.proto = protocol();
        if (t.mode == XFRM_MODE_TUNNEL || chance(20)) {
            t.id.daddr = address(t.family);
            t.saddr = address(t.family);
        }
        if (chance(10)) t.id.spi = spi();
        t.reqid = reqid();
        t.optional = chance(5) ? 1 : 0;
        t.share = static_cast<std::uint8_t>(chance(95) ? 0 : below(5));
        t.aalgos = t.ealgos = t.calgos = ~0u;
        return t;
    }
    void add_templates(draft& d, std::uint16_t selector_family) {
        const std::uint32_t count = chance(97) ? below(2) : below(8);
        byte_vector value;
        for (std::uint32_t i = 0; i < count; ++i)
            append(value, template_for(selector_family));
        if (count > 0) d.attributes.push_back({XFRMA_TMPL, value, {}});
    }
    void add_policy_type(draft& d) {
        if (!chance(15)) return;
        xfrm_userpolicy_type t{};
        t.type = static_cast<std::uint8_t>(chance(90) ? below(2) : below(5));
        d.add(XFRMA_POLICY_TYPE, t);
    }
    std::uint32_t index(std::uint8_t dir) {
        if (chance(85)) return 0;
        return (below(6) << 3) + (chance(90) ? dir : below(8));
    }
    std::uint8_t direction() { return static_cast<std::uint8_t>(chance(98) ? below(3) : below(8)); }

    draft put_policy(std::uint16_t type) {
        draft d;
        d.type = type;
        xfrm_userpolicy_info i{};
        i.sel = policy_selector();
        i.lft = limits();
        i.priority = below(3) * 1000;
        i.dir = direction();
        i.index = index(i.dir);
        i.action = static_cast<std::uint8_t>(chance(97) ? below(2) : below(4));
        i.share = static_cast<std::uint8_t>(chance(97) ? 0 : below(5));
        if (chance(10)) i.flags = XFRM_POLICY_ICMP;
        add_templates(d, i.sel.family);
        add_policy_type(d);
        add_mark(d);
        add_if_id(d);
        d.fixed = bytes_of(i);
        return d;
    }
    draft name_policy(std::uint16_t type) {
        draft d;
        d.type = type;
        xfrm_userpolicy_id id{};
        id.sel = policy_selector();
        id.dir = direction();
        id.index = index(id.dir);
        if (chance(10)) id.index = (below(10) << 3) + id.dir;
        add_policy_type(d);
        add_mark(d);
        add_if_id(d);
        d.fixed = bytes_of(id);
        if (type == XFRM_MSG_GETPOLICY && chance(30)) {
            d.flags |= NLM_F_DUMP;
            if (chance(80)) d.fixed.clear();
        }
        return d;
    }
    draft flush_policy() {
        draft d;
        d.type = XFRM_MSG_FLUSHPOLICY;
        add_policy_type(d);
        return d;
    }

    draft sa_event(std::uint16_t type) {
        draft d;
        d.type = type;
        xfrm_aevent_id id{};
        id.sa_id.family = family();
        id.sa_id.daddr = address(id.sa_id.family);
        id.sa_id.spi = spi();
        id.sa_id.proto = protocol();
        id.saddr = address(id.sa_id.family);
        id.flags = below(0x80);
        id.reqid = reqid();
        if (type == XFRM_MSG_NEWAE && !chance(10)) d.flags |= NLM_F_REPLACE;
        if (type == XFRM_MSG_NEWAE) {
            if (chance(60)) d.add(XFRMA_REPLAY_VAL, xfrm_replay_state{below(10), below(10), 0});
            if (chance(40)) d.add(XFRMA_LTIME_VAL, current());
            if (chance(20)) add_esn_state(d);
            if (chance(20)) d.add(XFRMA_REPLAY_THRESH, below(3));
            if (chance(20)) d.add(XFRMA_ETIMER_THRESH, below(3));
        }
        add_mark(d);
        d.fixed = bytes_of(id);
        return d;
    }
    void add_esn_state(draft& d) {
        xfrm_usersa_info unused{};
        add_esn(d, unused);
    }

    draft expire() {
        draft d;
        d.type = XFRM_MSG_EXPIRE;
        xfrm_user_expire e{};
        e.state = sa_info();
        e.hard = static_cast<std::uint8_t>(below(3));
        add_mark(d);
        d.fixed = bytes_of(e);
        return d;
    }
    draft expire_policy() {
        draft d;
        d.type = XFRM_MSG_POLEXPIRE;
        xfrm_user_polexpire e{};
        e.pol.sel = policy_selector();
        e.pol.dir = direction();
        e.pol.index = index(e.pol.dir);
        e.hard = static_cast<std::uint8_t>(below(2));
        add_policy_type(d);
        add_mark(d);
        add_if_id(d);
        d.fixed = bytes_of(e);
        return d;
    }
    draft acquire() {
        draft d;
        d.type = XFRM_MSG_ACQUIRE;
        xfrm_user_acquire a{};
        a.id.daddr = address(AF_INET);
        a.id.proto = protocol();
        a.saddr = address(AF_INET);
        a.sel = selector(AF_INET);
        a.policy.sel = policy_selector();
        a.policy.lft = limits();
        a.policy.dir = direction();
        a.aalgos = a.ealgos = a.calgos = ~0u;
        a.seq = below(3);
        add_templates(d, AF_INET);
        add_mark(d);
        d.fixed = bytes_of(a);
        return d;
    }
    draft report() {
        draft d;
        d.type = XFRM_MSG_REPORT;
        d.fixed = bytes_of(xfrm_user_report{IPPROTO_ESP, selector(AF_INET6)});
        return d;
    }
    draft migrate() {
        draft d;
        d.type = XFRM_MSG_MIGRATE;
        xfrm_userpolicy_id id{};
        id.sel = policy_selector();
        id.dir = static_cast<std::uint8_t>(below(3));
        byte_vector moves;
        const std::uint32_t count = chance(90) ? 1 + below(2) : below(8);
        for (std::uint32_t i = 0; i < count; ++i)
            append(moves, move());
        d.attributes.push_back({XFRMA_MIGRATE, moves, {}});
        add_policy_type(d);
        if (chance(20)) {
            xfrm_user_kmaddress km{};
            km.family = AF_INET;
            km.local = address(AF_INET);
            km.remote = address(AF_INET);
            d.add(XFRMA_KMADDRESS, km);
        }
        if (chance(20)) add_encap(d);
        add_if_id(d);
        d.fixed = bytes_of(id);
        return d;
    }
    xfrm_user_migrate move() {
        xfrm_user_migrate m{};
        m.old_family = family();
        m.new_family = chance(90) ? m.old_family : family();
        m.old_daddr = address(m.old_family);
        m.old_saddr = address(m.old_family);
        m.new_daddr = address(m.new_family);
        m.new_saddr = address(m.new_family);
        m.proto = protocol();
        m.mode = mode();
        m.reqid = reqid();
        return m;
    }

    draft numbered(std::uint16_t type) {
        draft d;
        d.type = type;
        d.fixed = bytes_of(below(chance(50) ? 2 : 0xffff));
        if (type == XFRM_MSG_NEWSPDINFO) {
            const auto bits = [&](std::uint32_t most) {
                return static_cast<std::uint8_t>(chance(90) ? below(most + 1) : below(256));
            };
            if (chance(70)) d.add(XFRMA_SPD_IPV4_HTHRESH, xfrmu_spdhthresh{bits(32), bits(32)});
            if (chance(70)) d.add(XFRMA_SPD_IPV6_HTHRESH, xfrmu_spdhthresh{bits(128), bits(128)});
        }
        return d;
    }
    draft mapping() {
        draft d;
        d.type = XFRM_MSG_MAPPING;
        xfrm_user_mapping m{};
        m.id.family = AF_INET;
        m.id.spi = spi();
        m.id.proto = IPPROTO_ESP;
        d.fixed = bytes_of(m);
        return d;
    }
    draft defaults(std::uint16_t type) {
        draft d;
        d.type = type;
        const auto action = [&] { return static_cast<std::uint8_t>(below(chance(90) ? 3 : 6)); };
        d.fixed = bytes_of(xfrm_userpolicy_default{action(), action(), action()});
        return d;
    }
    draft unknown() {
        draft d;
        d.type = one_of<std::uint16_t>({0x0f, 0x29, 0x2a, 0x100, 1, 3, 4, 5});
        d.fixed.resize(below(100));
        return d;
    }

    struct kind {
        unsigned weight;
        draft (author::*write)(std::uint16_t);
        std::uint16_t type;
    };
    template <draft (author::*Write)()>
    draft typed(std::uint16_t) {
        return (this->*Write)();
    }

    draft any_draft() {
        static constexpr kind kinds[] = {
            {200, &author::put_sa, XFRM_MSG_NEWSA},
            {130, &author::put_sa, XFRM_MSG_UPDSA},
            {60, &author::name_sa, XFRM_MSG_DELSA},
            {80, &author::name_sa, XFRM_MSG_GETSA},
            {80, &author::typed<&author::allocate>, 0},
            {8, &author::typed<&author::flush_sa>, 0},
            {130, &author::put_policy, XFRM_MSG_NEWPOLICY},
            {80, &author::put_policy, XFRM_MSG_UPDPOLICY},
            {50, &author::name_policy, XFRM_MSG_DELPOLICY},
            {60, &author::name_policy, XFRM_MSG_GETPOLICY},
            {8, &author::typed<&author::flush_policy>, 0},
            {40, &author::sa_event, XFRM_MSG_NEWAE},
            {40, &author::sa_event, XFRM_MSG_GETAE},
            {30, &author::typed<&author::expire>, 0},
            {25, &author::typed<&author::expire_policy>, 0},
            {10, &author::typed<&author::acquire>, 0},
            {5, &author::typed<&author::report>, 0},
            {40, &author::typed<&author::migrate>, 0},
            {5, &author::numbered, XFRM_MSG_NEWSADINFO},
            {15, &author::numbered, XFRM_MSG_GETSADINFO},
            {20, &author::numbered, XFRM_MSG_NEWSPDINFO},
            {20, &author::numbered, XFRM_MSG_GETSPDINFO},
            {5, &author::typed<&author::mapping>, 0},
            {20, &author::defaults, XFRM_MSG_SETDEFAULT},
            {20, &author::defaults, XFRM_MSG_GETDEFAULT},
            {10, &author::typed<&author::unknown>, 0},
        };
        static constexpr unsigned all = [] {
            unsigned sum = 0;
            for (const kind& k : kinds)
                sum += k.weight;
            return sum;
        }();
        unsigned at = below(all);
        const kind* k = kinds;
        for (; at >= k->weight; ++k)
            at -= k->weight;
        return (this->*k->write)(k->type);
    }

    // Breaking

    void break_something(draft& d) {
        using breaker = void (author::*)(draft&);
        static constexpr breaker all[] = {
            &author::break_fixed,
            &author::break_fixed,
            &author::shorten_fixed,
            &author::drop_attribute,
            &author::say_twice,
            &author::add_random_attribute,
            &author::add_any_attribute,
            &author::shorten_attribute,
            &author::lengthen_attribute,
            &author::break_attribute,
            &author::break_attribute,
            &author::lie_about_length,
            &author::add_behind,
            &author::break_flags,
            &author::break_family,
            &author::break_context,
            &author::misuse,
        };
        (this->*one_of(all))(d);
    }
    attribute* any_of(draft& d) {
        if (d.attributes.empty()) return nullptr;
        return &d.attributes[below(static_cast<std::uint32_t>(d.attributes.size()))];
    }
    void break_bytes(byte_vector& b) {
        if (b.empty()) return;
        std::uint8_t& one = b[below(static_cast<std::uint32_t>(b.size()))];
        one = chance(50) ? static_cast<std::uint8_t>(one ^ (1u << below(8)))
                         : one_of<std::uint8_t>({0, 1, 2, 10, 127, 128, 255});
    }
    /// But for what would make a difference that doc/xfrm-differences.md lists: bytes behind an
    /// IPv4 address; and ranges of SPIs without a pattern.
    void break_fixed(draft& d) {
        if (d.type == XFRM_MSG_ACQUIRE) return; // it holds addresses elsewhere
        const byte_vector before = d.fixed;
        break_bytes(d.fixed);
        const auto at = std::ranges::mismatch(before, d.fixed).in1 - before.begin();
        const auto within = [at](std::ptrdiff_t from, std::ptrdiff_t to) {
            return at >= from && at < to;
        };
        if (within(4, 16) || within(20, 32) || within(60, 72) || within(84, 96) || within(40, 42) ||
            within(45, 48) || within(77, 80) || within(212, 214) ||
            (d.type == XFRM_MSG_ALLOCSPI && at >= 224))
            d.fixed = before;
    }
    void shorten_fixed(draft& d) {
        if (d.fixed.empty()) return;
        d.fixed.resize(below(static_cast<std::uint32_t>(d.fixed.size())));
        if (chance(80)) d.attributes.clear();
        d.spi.reset();
    }
    void drop_attribute(draft& d) {
        if (attribute* a = any_of(d))
            d.attributes.erase(d.attributes.begin() + (a - d.attributes.data()));
    }
    void say_twice(draft& d) {
        if (const attribute* a = any_of(d)) {
            attribute again = *a;
            if (chance(50)) break_value(again);
            d.attributes.push_back(std::move(again));
        }
    }
    void add_random_attribute(draft& d) {
        attribute a;
        a.type = static_cast<std::uint16_t>(below(xfrma_nat_keepalive_interval + 1));
        a.value.resize(below(80));
        d.attributes.push_back(std::move(a));
    }
    /// Beyond what any kernel knows, or with bits that stand for something else.
    void add_any_attribute(draft& d) {
        attribute a;
        a.type = one_of<std::uint16_t>({60, 200, 0x3fff, NLA_F_NESTED | XFRMA_MARK,
                                        NLA_F_NET_BYTEORDER | XFRMA_IF_ID, XFRMA_PAD, 0});
        a.value.resize(below(4) * 4);
        d.attributes.push_back(std::move(a));
    }
    void shorten_attribute(draft& d) {
        if (attribute* a = any_of(d); a != nullptr && !a->value.empty())
            a->value.resize(below(static_cast<std::uint32_t>(a->value.size())));
    }
    void lengthen_attribute(draft& d) {
        if (attribute* a = any_of(d)) a->value.resize(a->value.size() + 1 + below(9));
    }
    void break_attribute(draft& d) {
        if (attribute* const a = any_of(d)) break_value(*a);
    }
    void break_value(attribute& a) {
        const byte_vector before = a.value;
        break_bytes(a.value);
        const auto at = (std::ranges::mismatch(before, a.value).in1 - before.begin()) %
                        static_cast<std::ptrdiff_t>(sizeof(xfrm_user_tmpl));
        const bool unseen =
            (at >= 4 && at < 16) || (at >= 21 && at < 28) || (at >= 32 && at < 44) || at == 51;
        if ((a.type == XFRMA_TMPL && unseen) || (a.type == XFRMA_ENCAP && at >= 12))
            a.value = before;
    }
    void lie_about_length(draft& d) {
        if (attribute* a = any_of(d))
            a->said_length = one_of<std::uint16_t>({0, 3, 4, 5, 200, 0xffff});
    }
    /// A family that is none.
    void break_family(draft& d) {
        const std::size_t at = family_at(d.type);
        if (at + sizeof(std::uint16_t) > d.fixed.size()) return;
        const auto family = one_of<std::uint16_t>({0, 1, 3, 255, 0x0a02});
        std::memcpy(d.fixed.data() + at, &family, sizeof family);
        const bool has_selector = at == offsetof(xfrm_selector, family);
        if (!has_selector || chance(50)) return;
        const auto bits = one_of<std::uint8_t>({33, 128, 129, 255});
        d.fixed[one_of(
            {offsetof(xfrm_selector, prefixlen_s), offsetof(xfrm_selector, prefixlen_d)})] = bits;
    }
    std::size_t family_at(std::uint16_t type) {
        switch (type) {
        case XFRM_MSG_NEWSA:
        case XFRM_MSG_UPDSA:
        case XFRM_MSG_ALLOCSPI:
        case XFRM_MSG_EXPIRE:
            return chance(50) ? offsetof(xfrm_usersa_info, family)
                              : offsetof(xfrm_selector, family);
        case XFRM_MSG_DELSA:
        case XFRM_MSG_GETSA:
        case XFRM_MSG_NEWAE:
        case XFRM_MSG_GETAE:
            return offsetof(xfrm_usersa_id, family);
        default:
            return offsetof(xfrm_selector, family);
        }
    }
    void break_context(draft& d) { add_context(d, false); }
    /// Of attributes that only some messages may have.
    void misuse(draft& d) {
        if (chance(40)) d.add(xfrma_sa_dir, static_cast<std::uint8_t>(below(4)));
        if (chance(40)) add_cpu(d);
        if (chance(40)) d.add(XFRMA_IF_ID, below(2));
        if (chance(20)) d.add(XFRMA_SRCADDR, address(family()));
    }
    void add_behind(draft& d) { d.behind.resize(1 + below(12)); }
    void break_flags(draft& d) { d.flags = static_cast<std::uint16_t>(below(0x1000)); }

    // Datagrams

    /// The kernel keeps bits outside of the mask in some messages, and then does not find the SA.
    static void mask_marks(draft& d) {
        if (d.type != XFRM_MSG_ALLOCSPI && d.type != XFRM_MSG_UPDSA && d.type != XFRM_MSG_ACQUIRE)
            return;
        for (attribute& a : d.attributes) {
            auto m = read_fixed<xfrm_mark>(a.value);
            if (a.type != XFRMA_MARK || !m) continue;
            m->v &= m->m;
            std::memcpy(a.value.data(), &*m, sizeof *m);
        }
    }

    /// Which SPI is chosen from a range that is not first_random_spi's nobody can compare.
    static void keep_range(draft& d) {
        auto i = read_fixed<xfrm_userspi_info>(d.fixed);
        if (d.type != XFRM_MSG_ALLOCSPI || !i || i->min >= i->max) return;
        i->min = first_random_spi;
        i->max = last_random_spi;
        std::memcpy(d.fixed.data(), &*i, sizeof *i);
    }

    /// What comes behind a dump and changes what it shows is shown or not as the dump's datagrams
    /// are long.
    static bool only_asks(std::uint16_t type) {
        constexpr std::uint16_t all[] = {XFRM_MSG_GETSA,      XFRM_MSG_GETPOLICY,
                                         XFRM_MSG_GETAE,      XFRM_MSG_GETSADINFO,
                                         XFRM_MSG_GETSPDINFO, XFRM_MSG_GETDEFAULT};
        return std::ranges::find(all, type) != std::end(all);
    }

    /// Linux up to 6.18 sizes the event of a MIGRATE for one attribute header and writes one for
    /// each move.  Of two moves with XFRMA_KMADDRESS and XFRMA_ENCAP that is beyond its buffer's
    /// end, and a BUG.
    static void spare_kernel(draft& d) {
        if (d.type != XFRM_MSG_MIGRATE) return;
        const auto is = [](std::uint16_t type) {
            return [type](const attribute& a) { return (a.type & NLA_TYPE_MASK) == type; };
        };
        const auto several = [](const attribute& a) {
            return (a.type & NLA_TYPE_MASK) == XFRMA_MIGRATE &&
                   a.value.size() >= 2 * sizeof(xfrm_user_migrate);
        };
        if (std::ranges::any_of(d.attributes, several) &&
            std::ranges::any_of(d.attributes, is(XFRMA_ENCAP)))
            std::erase_if(d.attributes, is(XFRMA_KMADDRESS));
    }
    /// What netlink itself looks at: no request, a shorter one, or one beyond the datagram's end.
    void lie_about_message(byte_vector& all, std::size_t start) {
        const auto length = static_cast<std::uint32_t>(all.size() - start);
        const auto said =
            one_of<std::uint32_t>({0, 1, sizeof(nlmsghdr) - 1, sizeof(nlmsghdr), length - 1,
                                   length - 4, length + 1, length + 1000, 0x7fffffff, 0xffffffff});
        std::memcpy(all.data() + start, &said, sizeof said);
    }

    /// Writes it at the end of `into`; returns where its fixed part lies.
    std::size_t append_message(byte_vector& into, const draft& d) {
        const std::size_t start = into.size();
        append(into, nlmsghdr{0, d.type, d.flags, next_sequence_++, 0});
        const std::size_t fixed = into.size();
        into.insert(into.end(), d.fixed.begin(), d.fixed.end());
        for (const attribute& a : d.attributes) {
            into.resize(start + aligned(into.size() - start));
            const auto length = static_cast<std::uint16_t>(sizeof(nlattr) + a.value.size());
            append(into, nlattr{a.said_length.value_or(length), a.type});
            into.insert(into.end(), a.value.begin(), a.value.end());
        }
        if (!d.behind.empty()) into.resize(start + aligned(into.size() - start));
        into.insert(into.end(), d.behind.begin(), d.behind.end());
        const auto length = static_cast<std::uint32_t>(into.size() - start);
        std::memcpy(into.data() + start, &length, sizeof length);
        into.resize(aligned(into.size()));
        return fixed;
    }

    question write_datagram(std::uint32_t number) {
        question q;
        const std::uint32_t messages = chance(90) ? 1 : 2 + below(3);
        bool dumping = false;
        for (std::uint32_t i = 0; i < messages; ++i) {
            draft d = any_draft();
            if (dumping && !only_asks(d.type)) continue;
            if (chance(40)) d.flags |= NLM_F_ACK;
            if (chance(10))
                d.flags |= one_of<std::uint16_t>(
                    {NLM_F_REPLACE, NLM_F_CREATE, NLM_F_EXCL, NLM_F_ECHO, NLM_F_MULTI});
            const bool broken = chance(25);
            if (broken) break_something(d);
            mask_marks(d);
            keep_range(d);
            spare_kernel(d);
            dumping |= (d.flags & NLM_F_DUMP) != 0;
            const std::size_t fixed = append_message(q.bytes, d);
            if (broken && chance(8)) {
                lie_about_message(q.bytes, fixed - sizeof(nlmsghdr));
                break;
            }
            if (d.spi)
                q.patches.push_back({static_cast<std::uint32_t>(fixed) + d.spi->at, d.spi->from});
            if (d.type == XFRM_MSG_ALLOCSPI && !broken && messages == 1) {
                const auto info = read_fixed<xfrm_userspi_info>(d.fixed);
                allocated_.push_back({number, info->info, d.attributes});
            }
        }
        return q;
    }

    question whole_dump(std::uint16_t type) {
        draft d;
        d.type = type;
        d.flags |= NLM_F_DUMP;
        question q;
        append_message(q.bytes, d);
        return q;
    }

    struct asked_spi {
        std::uint32_t datagram;
        xfrm_usersa_info info;
        std::vector<attribute> attributes;
    };

    std::mt19937_64 random_;
    std::uint32_t next_sequence_ = 1;
    std::vector<asked_spi> allocated_;
};

} // namespace

session make_session(std::uint64_t seed, std::uint32_t number, unsigned datagrams) {
    session s = author(seed * 1'000'003 + number).write(datagrams);
    s.kernel_like = number % 4 == 3;
    return s;
}

} // namespace esplane::tests::oracle
