// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_timed.h"

#include <algorithm>
#include <arpa/inet.h>
#include <cstddef>
#include <netinet/in.h>
#include <random>
#include <string_view>
#include <vector>

#include "xfrm/message.h"

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;

constexpr std::uint64_t infinite = ~std::uint64_t{0};
constexpr unsigned steps = 14;
constexpr std::uint32_t most_earlier_s = 8;
constexpr std::uint32_t first_spi = 0x2000;    ///< of SAs
constexpr std::uint32_t first_larval = 0x3000; ///< of what ALLOCSPI gives
constexpr std::uint32_t the_rest_ms = 58'500;  ///< beyond every limit, and between two seconds

xfrm_address_t address(const char* text) {
    xfrm_address_t a{};
    ::inet_pton(AF_INET, text, &a.a4);
    return a;
}

class timed_author {
  public:
    explicit timed_author(std::uint64_t seed)
        : random_(seed) {}

    /// SAs come, change and go; what is due at a moment comes before what is asked then.
    session write_sas() {
        begin();
        put_policy(XFRM_MSG_NEWPOLICY, true, {}, number());
        new_sa();
        for (unsigned i = 0; i < steps; ++i)
            step();
        return end();
    }
    /// Nothing is asked while policies expire: the kernel is late with them.
    session write_policies() {
        begin();
        for (std::uint32_t n = 1; n <= 3; ++n)
            put_sa(XFRM_MSG_NEWSA, n, {infinite, infinite, infinite, infinite, 0, 0, 0, 0}, false);
        put_policy(XFRM_MSG_NEWPOLICY, true, policy_limits(), number());
        if (chance(50)) put_policy(XFRM_MSG_UPDPOLICY, true, policy_limits(), number());
        put_policy(XFRM_MSG_NEWPOLICY, false, policy_limits(), number());
        if (chance(70)) send_packets();
        wait(1000 * below(3));
        if (chance(70)) send_packets();
        return end();
    }

  private:
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_() % n); }
    bool chance(unsigned percent) { return below(100) < percent; }

    void begin() {
        s_.timed = true;
        s_.capped_acks = true;
    }
    session end() {
        wait(the_rest_ms);
        dump(XFRM_MSG_GETSA);
        dump(XFRM_MSG_GETPOLICY);
        return std::move(s_);
    }

    void step() {
        using writer = void (timed_author::*)();
        static constexpr writer all[] = {
            &timed_author::send_packets, &timed_author::send_packets,  &timed_author::send_packets,
            &timed_author::new_sa,       &timed_author::new_used_sa,   &timed_author::change_sa,
            &timed_author::change_sa,    &timed_author::expire,        &timed_author::allocate,
            &timed_author::fill_larval,  &timed_author::change_policy, &timed_author::give,
            &timed_author::look,
        };
        (this->*all[below(std::size(all))])();
        constexpr std::uint32_t seconds[] = {0, 0, 1, 1, 2, 3, 6, 12};
        wait(1000 * seconds[below(std::size(seconds))]);
    }

    /// Time that passes after what was asked last.
    void wait(std::uint32_t ms) {
        s_.asked.back().wait_ms += ms;
        passed_ms_ += ms;
    }

    // Limits

    /// Of one kind: an SA of which any soft limit was told before that since it was added, the
    /// kernel lets live longer than its hard one says.
    xfrm_lifetime_cfg limits() {
        xfrm_lifetime_cfg l{infinite, infinite, infinite, infinite, 0, 0, 0, 0};
        if (chance(60)) {
            pair(80, 2, 15, l.soft_add_expires_seconds, l.hard_add_expires_seconds);
        } else {
            pair(50, 2, 4, l.soft_packet_limit, l.hard_packet_limit);
            pair(50, 150, 400, l.soft_byte_limit, l.hard_byte_limit);
        }
        return l;
    }
    /// Where the first use comes after the kernel's first look, a second after the SA, the kernel
    /// looks again when as much time has passed as the limit says: not asked.
    xfrm_lifetime_cfg use_limits() {
        xfrm_lifetime_cfg l{infinite, infinite, infinite, infinite, 0, 0, 0, 0};
        pair(100, 2, 12, l.soft_use_expires_seconds, l.hard_use_expires_seconds);
        return l;
    }
    /// None of them before packets have gone.
    xfrm_lifetime_cfg policy_limits() {
        xfrm_lifetime_cfg l{infinite, infinite, infinite, infinite, 0, 0, 0, 0};
        pair(60, 4, 12, l.soft_add_expires_seconds, l.hard_add_expires_seconds);
        pair(60, 4, 12, l.soft_use_expires_seconds, l.hard_use_expires_seconds);
        return l;
    }
    /// The one, the other or both of a soft and a hard limit.
    void pair(unsigned percent, std::uint32_t least, std::uint32_t span, __u64& soft, __u64& hard) {
        if (!chance(percent)) return;
        const std::uint32_t first = least + below(span);
        if (!chance(25)) soft = first;
        if (!chance(25)) hard = first + 1 + below(span);
    }

    // Requests

    template <typename Fixed, typename Attributes>
    question& ask(std::uint16_t type, std::uint16_t flags, const Fixed& fixed,
                  Attributes&& attributes) {
        datagram d;
        message_writer w(d, type, static_cast<std::uint16_t>(NLM_F_REQUEST | flags), ++sequence_,
                         0);
        w.fixed(fixed);
        attributes(w);
        w.finish();
        question q;
        q.bytes.assign(d.begin(), d.end());
        s_.asked.push_back(std::move(q));
        return s_.asked.back();
    }
    template <typename Fixed>
    question& ask(std::uint16_t type, const Fixed& fixed) {
        return ask(type, NLM_F_ACK, fixed, [](message_writer&) {});
    }

    xfrm_usersa_info sa_info(std::uint32_t spi, std::uint32_t reqid) {
        xfrm_usersa_info i{};
        i.family = AF_INET;
        i.id.daddr = address(tunnel_destination);
        i.saddr = address(tunnel_source);
        i.id.spi = htonl(spi);
        i.id.proto = IPPROTO_ESP;
        i.mode = XFRM_MODE_TUNNEL;
        i.reqid = reqid;
        i.lft = limits();
        return i;
    }
    static void add_key(message_writer& w) {
        constexpr std::string_view name = "rfc4106(gcm(aes))";
        constexpr std::uint32_t key_bytes = 20, icv_bits = 128;
        std::vector<std::uint8_t> value(sizeof(xfrm_algo_aead) + key_bytes, 7);
        xfrm_algo_aead head{};
        name.copy(head.alg_name, sizeof head.alg_name - 1);
        head.alg_key_len = key_bytes * 8;
        head.alg_icv_len = icv_bits;
        std::memcpy(value.data(), &head, sizeof head);
        w.attribute_bytes(XFRMA_ALG_AEAD, value);
    }
    /// Nobody hears of sequence numbers that move.
    static void add_silence(message_writer& w) {
        w.attribute(XFRMA_REPLAY_THRESH, std::uint32_t{0});
        w.attribute(XFRMA_ETIMER_THRESH, std::uint32_t{0});
    }
    /// An SA as it came to be a little before the session began, and was used.
    xfrm_lifetime_cur earlier() {
        const auto before = [this] { return std::uint64_t{0} - 1 - below(most_earlier_s - 1); };
        return {below(3) * 100, below(3), before(), before()};
    }
    static void add_times(question& q) {
        const auto end = static_cast<std::uint32_t>(q.bytes.size());
        q.times.push_back(end - static_cast<std::uint32_t>(sizeof(xfrm_lifetime_cur) -
                                                           offsetof(xfrm_lifetime_cur, add_time)));
        const std::uint32_t used =
            end - static_cast<std::uint32_t>(sizeof(xfrm_lifetime_cur) -
                                             offsetof(xfrm_lifetime_cur, use_time));
        std::uint64_t value = 0;
        std::memcpy(&value, q.bytes.data() + used, sizeof value);
        if (value != 0) q.times.push_back(used);
    }

    std::uint32_t number() { return 1 + below(3); }

    void put_sa(std::uint16_t type, std::uint32_t n, const xfrm_lifetime_cfg& lifetimes, bool old) {
        const xfrm_lifetime_cur current = earlier();
        xfrm_usersa_info info = sa_info(first_spi + n, n);
        info.lft = lifetimes;
        question& q = ask(type, NLM_F_ACK, info, [&](message_writer& w) {
            add_key(w);
            add_silence(w);
            if (old) w.attribute(XFRMA_LTIME_VAL, current);
        });
        if (old) add_times(q);
    }
    void new_sa() {
        const bool old = chance(25);
        put_sa(XFRM_MSG_NEWSA, number(), old && chance(60) ? use_limits() : limits(), old);
    }
    /// A packet goes at once.
    void new_used_sa() {
        const std::uint32_t n = number();
        put_policy(XFRM_MSG_UPDPOLICY, true, {}, n);
        put_sa(XFRM_MSG_NEWSA, n, chance(60) ? use_limits() : limits(), false);
        send_packets();
    }
    /// Where a hard limit is found passed before the soft one was told, the kernel puts off the
    /// time that the SA was added at: not asked.
    void change_sa() {
        xfrm_lifetime_cfg l = limits();
        if (l.hard_add_expires_seconds != 0) {
            l.hard_add_expires_seconds += passed_ms_ / 1000 + most_earlier_s;
            if (l.soft_add_expires_seconds == 0) l.soft_add_expires_seconds = 1;
        }
        put_sa(XFRM_MSG_UPDSA, number(), l, false);
    }
    void expire() {
        xfrm_user_expire e{};
        e.state = sa_info(first_spi + number(), 0);
        e.hard = chance(30) ? 1 : 0;
        ask(XFRM_MSG_EXPIRE, e);
    }
    void give() {
        const std::uint64_t now = passed_ms_ / 1000;
        const xfrm_lifetime_cur current{below(3) * 100, below(3), now,
                                        chance(50) ? 0 : now - below(3)};
        xfrm_aevent_id id{};
        id.sa_id.family = AF_INET;
        id.sa_id.daddr = address(tunnel_destination);
        id.sa_id.spi = htonl(first_spi + number());
        id.sa_id.proto = IPPROTO_ESP;
        add_times(ask(XFRM_MSG_NEWAE, NLM_F_ACK | NLM_F_REPLACE, id,
                      [&](message_writer& w) { w.attribute(XFRMA_LTIME_VAL, current); }));
    }

    void allocate() {
        xfrm_userspi_info i{};
        const std::uint32_t n = number();
        i.info = sa_info(0, 10 + n);
        i.info.lft = {};
        i.min = i.max = first_larval + n;
        ask(XFRM_MSG_ALLOCSPI, i);
    }
    void fill_larval() {
        const std::uint32_t n = number();
        ask(XFRM_MSG_UPDSA, NLM_F_ACK, sa_info(first_larval + n, 10 + n), [](message_writer& w) {
            add_key(w);
            add_silence(w);
        });
    }

    void put_policy(std::uint16_t type, bool out, const xfrm_lifetime_cfg& lifetimes,
                    std::uint32_t reqid) {
        xfrm_userpolicy_info p{};
        p.sel.family = AF_INET;
        p.sel.prefixlen_s = p.sel.prefixlen_d = 16;
        p.sel.saddr = address(out ? packet_source : packet_destination);
        p.sel.daddr = address(out ? packet_destination : packet_source);
        p.lft = lifetimes;
        p.dir = out ? XFRM_POLICY_OUT : XFRM_POLICY_IN;
        xfrm_user_tmpl t{};
        t.family = AF_INET;
        t.id.daddr = address(tunnel_destination);
        t.saddr = address(tunnel_source);
        t.id.proto = IPPROTO_ESP;
        t.mode = XFRM_MODE_TUNNEL;
        t.reqid = reqid;
        t.aalgos = t.ealgos = t.calgos = ~0u;
        ask(type, NLM_F_ACK, p, [&](message_writer& w) {
            if (out) w.attribute(XFRMA_TMPL, t);
        });
    }
    void change_policy() { put_policy(XFRM_MSG_UPDPOLICY, true, {}, number()); }

    void send_packets() {
        question q;
        q.packets = 1 + below(3);
        s_.asked.push_back(std::move(q));
    }

    void look() {
        xfrm_usersa_id id{};
        id.family = AF_INET;
        id.daddr = address(tunnel_destination);
        id.spi = htonl(first_spi + number());
        id.proto = IPPROTO_ESP;
        ask(XFRM_MSG_GETSA, id);
    }
    void dump(std::uint16_t type) {
        ask(type, NLM_F_DUMP, std::uint32_t{0}, [](message_writer&) {});
        s_.asked.back().bytes.resize(sizeof(nlmsghdr));
        const std::uint32_t length = sizeof(nlmsghdr);
        std::memcpy(s_.asked.back().bytes.data(), &length, sizeof length);
    }

    std::mt19937_64 random_;
    std::uint32_t sequence_ = 0;
    std::uint32_t passed_ms_ = 0;
    session s_;
};

} // namespace

session make_timed_session(std::uint64_t seed, std::uint32_t number) {
    timed_author author(seed * 1'000'003 + number);
    return number % 4 == 3 ? author.write_policies() : author.write_sas();
}

} // namespace esplane::tests::oracle
