// SPDX-License-Identifier: Apache-2.0
//
// DPDK's librte_ipsec over the ipsec-mb drivers, in both of its modes:
//
//   lookaside     prepare -> enqueue -> dequeue -> group -> process, as through a crypto device
//   synchronous   prepare, which encrypts -> process
//
// It has no Ethernet, parsing, policy, SA lookup or next hop: packets come with their session.
// Packets of one session that follow each other go in one call.  All its memory lies on huge pages
// where the kernel gives some, as esplane's does.
#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include <rte_cryptodev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ipsec.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>

#include "bench/esp_judge.h"
#include "lib/wire/headers.h"

namespace esplane::bench {

namespace {

constexpr unsigned burst = 32;
constexpr std::uint32_t window = 64;
constexpr std::uint16_t iv_offset = sizeof(rte_crypto_op) + sizeof(rte_crypto_sym_op);
constexpr std::size_t heap_for_few = std::size_t{256} << 20;
constexpr std::size_t heap_for_each = 1800; ///< a session with its pool's headers, at most
constexpr const char* driver_of[] = {"crypto_aesni_gcm", "crypto_aesni_mb"};

[[noreturn]] void fail(const char* what) {
    throw std::runtime_error(std::string("librte_ipsec: ") + what + ": " + rte_strerror(rte_errno));
}

/// EAL, once, without hugetlbfs, devices of its own or root.
void start_eal() {
    static bool started = false;
    if (started) return;
    started = true;
    const char* arguments[] = {"bench",    "--no-huge",      "-m",          "128",
                               "--no-pci", "--no-telemetry", "--no-shconf", "--log-level=error",
                               "--vdev",   driver_of[0],     "--vdev",      driver_of[1]};
    std::vector<char*> all;
    for (const char* a : arguments)
        all.push_back(const_cast<char*>(a));
    cpu_set_t before;
    sched_getaffinity(0, sizeof before, &before);
    if (rte_eal_init(static_cast<int>(all.size()), all.data()) < 0) fail("EAL");
    sched_setaffinity(0, sizeof before, &before);
}

/// Memory for DPDK to allocate from.
class heap {
  public:
    explicit heap(std::size_t size)
        : name_(unique_name("heap"))
        , memory_(size) {
        constexpr std::size_t page = 2u << 20;
        if (rte_malloc_heap_create(name_.c_str()) != 0) fail("heap");
        if (rte_malloc_heap_memory_add(name_.c_str(), memory_.data(), memory_.size(), nullptr,
                                       static_cast<unsigned>(memory_.size() / page), page) != 0)
            fail("memory");
    }
    ~heap() {
        rte_malloc_heap_memory_remove(name_.c_str(), memory_.data(), memory_.size());
        rte_malloc_heap_destroy(name_.c_str());
    }
    heap(const heap&) = delete;
    heap& operator=(const heap&) = delete;
    [[nodiscard]] int socket() const { return rte_malloc_heap_get_socket(name_.c_str()); }

    [[nodiscard]] static std::string unique_name(const char* what) {
        static unsigned made = 0;
        return what + std::to_string(made++);
    }

  private:
    std::string name_;
    large_memory memory_;
};

/// A crypto device with one queue pair, made once.
std::uint8_t device_of(rte_device d) {
    static int ids[2] = {-1, -1};
    int& id = ids[static_cast<unsigned>(d)];
    if (id >= 0) return static_cast<std::uint8_t>(id);
    const char* const name = driver_of[static_cast<unsigned>(d)];
    id = rte_cryptodev_get_dev_id(name);
    if (id < 0) fail(name);
    const auto dev = static_cast<std::uint8_t>(id);
    rte_cryptodev_config config{};
    config.nb_queue_pairs = 1;
    config.ff_disable = RTE_CRYPTODEV_FF_ASYMMETRIC_CRYPTO | RTE_CRYPTODEV_FF_SECURITY;
    if (rte_cryptodev_configure(dev, &config) != 0) fail("configure");
    rte_cryptodev_qp_conf queue{};
    queue.nb_descriptors = 512;
    if (rte_cryptodev_queue_pair_setup(dev, 0, &queue, 0) != 0) fail("queue pair");
    if (rte_cryptodev_start(dev) != 0) fail("start");
    return dev;
}

/// What a session is made of, for as long as its keys are there.
class transforms {
  public:
    transforms(const shape& s, std::uint32_t sa)
        : key_(cipher_key(*s.suite, sa))
        , auth_(auth_key(*s.suite, sa)) {
        if (s.suite->is_aead())
            describe_aead(s);
        else
            describe_chain(s);
    }
    [[nodiscard]] rte_crypto_sym_xform* first() noexcept { return first_; }
    [[nodiscard]] std::uint32_t salt(const suite_choice& s) const noexcept {
        return s.is_aead() ? wire::load<std::uint32_t>(key_.data() + s.cipher_key) : 0;
    }

  private:
    void describe_aead(const shape& s) {
        first_ = &cipher_;
        cipher_.type = RTE_CRYPTO_SYM_XFORM_AEAD;
        auto& a = cipher_.aead;
        a.op = s.outbound ? RTE_CRYPTO_AEAD_OP_ENCRYPT : RTE_CRYPTO_AEAD_OP_DECRYPT;
        a.algo = s.suite->chacha() ? RTE_CRYPTO_AEAD_CHACHA20_POLY1305 : RTE_CRYPTO_AEAD_AES_GCM;
        a.key = {key_.data(), static_cast<std::uint16_t>(s.suite->cipher_key)};
        a.iv = {iv_offset, 12};
        a.digest_length = static_cast<std::uint16_t>(s.suite->icv);
        a.aad_length = sizeof(wire::esp_header);
    }
    void describe_chain(const shape& s) {
        cipher_.type = RTE_CRYPTO_SYM_XFORM_CIPHER;
        auto& c = cipher_.cipher;
        c.op = s.outbound ? RTE_CRYPTO_CIPHER_OP_ENCRYPT : RTE_CRYPTO_CIPHER_OP_DECRYPT;
        c.algo = RTE_CRYPTO_CIPHER_AES_CBC;
        c.key = {key_.data(), static_cast<std::uint16_t>(key_.size())};
        c.iv = {iv_offset, 16};
        hash_.type = RTE_CRYPTO_SYM_XFORM_AUTH;
        auto& a = hash_.auth;
        a.op = s.outbound ? RTE_CRYPTO_AUTH_OP_GENERATE : RTE_CRYPTO_AUTH_OP_VERIFY;
        a.algo = s.suite->auth_key == 20 ? RTE_CRYPTO_AUTH_SHA1_HMAC : RTE_CRYPTO_AUTH_SHA256_HMAC;
        a.key = {auth_.data(), static_cast<std::uint16_t>(auth_.size())};
        a.digest_length = static_cast<std::uint16_t>(s.suite->icv);
        first_ = s.outbound ? &cipher_ : &hash_;
        first_->next = s.outbound ? &hash_ : &cipher_;
    }

    bytes key_, auth_;
    rte_crypto_sym_xform cipher_{};
    rte_crypto_sym_xform hash_{};
    rte_crypto_sym_xform* first_ = nullptr;
};

rte_ipsec_sa_prm parameters_of(const shape& s, std::uint32_t sa, transforms& t,
                               const rte_ipv4_hdr& outer) {
    rte_ipsec_sa_prm p{};
    p.ipsec_xform.spi = spi_of(sa);
    p.ipsec_xform.salt = t.salt(*s.suite);
    p.ipsec_xform.direction =
        s.outbound ? RTE_SECURITY_IPSEC_SA_DIR_EGRESS : RTE_SECURITY_IPSEC_SA_DIR_INGRESS;
    p.ipsec_xform.proto = RTE_SECURITY_IPSEC_SA_PROTO_ESP;
    p.ipsec_xform.mode = RTE_SECURITY_IPSEC_SA_MODE_TUNNEL;
    p.ipsec_xform.tunnel.type = RTE_SECURITY_IPSEC_TUNNEL_IPV4;
    p.ipsec_xform.replay_win_sz = window;
    p.crypto_xform = t.first();
    p.tun.hdr_len = sizeof outer;
    p.tun.next_proto = wire::proto_ipip;
    p.tun.hdr = &outer;
    return p;
}

rte_ipv4_hdr outer_header() {
    rte_ipv4_hdr ip{};
    ip.version_ihl = 0x45;
    ip.time_to_live = 64;
    ip.next_proto_id = wire::proto_esp;
    ip.src_addr = near_gateway().as_v4().network();
    ip.dst_addr = far_gateway().as_v4().network();
    return ip;
}

/// SAs of one device and what they need.
class sessions {
  public:
    sessions(const shape& s, rte_device d)
        : heap_(heap_for_few + std::size_t{s.sas} * heap_for_each)
        , device_(device_of(d))
        , size_(sa_size(s))
        , sa_memory_(std::size_t{s.sas} * size_)
        , fresh_(s.outbound ? 0 : std::size_t{s.sas} * size_)
        , handle_memory_(std::size_t{s.sas} * 2 * sizeof(rte_ipsec_session)) {
        made_ = rte_cryptodev_sym_session_pool_create(
            heap::unique_name("sessions").c_str(), s.sas,
            rte_cryptodev_sym_get_private_session_size(device_), 0, 0, heap_.socket());
        if (made_ == nullptr) fail("session pool");
        mbufs_ = rte_pktmbuf_pool_create(heap::unique_name("mbufs").c_str(), s.pool(), 0, 0,
                                         RTE_MBUF_DEFAULT_BUF_SIZE, heap_.socket());
        ops_ =
            rte_crypto_op_pool_create(heap::unique_name("ops").c_str(),
                                      RTE_CRYPTO_OP_TYPE_SYMMETRIC, burst, 0, 16, heap_.socket());
        if (mbufs_ == nullptr || ops_ == nullptr) fail("pool");
        for (std::uint32_t n = 0; n < s.sas; ++n)
            add(s, n);
        if (!s.outbound) std::memcpy(fresh_.data(), sa_memory_.data(), s.sas * size_);
    }
    ~sessions() {
        for (rte_cryptodev_sym_session* one : crypto_)
            rte_cryptodev_sym_session_free(device_, one);
        rte_mempool_free(made_);
        rte_mempool_free(mbufs_);
        rte_mempool_free(ops_);
    }
    sessions(const sessions&) = delete;
    sessions& operator=(const sessions&) = delete;

    [[nodiscard]] rte_ipsec_session& of(std::uint32_t sa, rte_manner m) const noexcept {
        return reinterpret_cast<rte_ipsec_session*>(
            handle_memory_.data())[std::size_t{sa} * 2 + static_cast<unsigned>(m)];
    }
    /// Its window as it was made.
    void reopen(std::uint32_t sa) noexcept {
        std::memcpy(sa_memory_.data() + sa * size_, fresh_.data() + sa * size_, size_);
    }
    [[nodiscard]] std::uint8_t device() const noexcept { return device_; }
    [[nodiscard]] rte_mempool* mbufs() const noexcept { return mbufs_; }
    [[nodiscard]] rte_mempool* ops() const noexcept { return ops_; }

    /// Whether the device has the suite.
    [[nodiscard]] static bool has(const shape& s, rte_device d) {
        return d == rte_device::aesni_mb || s.suite->is_gcm();
    }

  private:
    static std::size_t sa_size(const shape& s) {
        const rte_ipv4_hdr outer = outer_header();
        transforms t(s, 0);
        const rte_ipsec_sa_prm p = parameters_of(s, 0, t, outer);
        const int size = rte_ipsec_sa_size(&p);
        if (size < 0) fail("SA size");
        return (static_cast<std::size_t>(size) + 63) / 64 * 64;
    }
    void add(const shape& s, std::uint32_t n) {
        const rte_ipv4_hdr outer = outer_header();
        transforms t(s, n);
        const rte_ipsec_sa_prm p = parameters_of(s, n, t, outer);
        auto* const sa = reinterpret_cast<rte_ipsec_sa*>(sa_memory_.data() + n * size_);
        if (rte_ipsec_sa_init(sa, &p, static_cast<std::uint32_t>(size_)) < 0) fail("SA");
        auto* const crypto = static_cast<rte_cryptodev_sym_session*>(
            rte_cryptodev_sym_session_create(device_, t.first(), made_));
        if (crypto == nullptr) fail("session");
        crypto_.push_back(crypto);
        // A lookaside session is found by its crypto session again: it comes last.
        for (const rte_manner m : {rte_manner::synchronous, rte_manner::lookaside}) {
            rte_ipsec_session& ss = of(n, m);
            ss.sa = sa;
            ss.type = m == rte_manner::lookaside ? RTE_SECURITY_ACTION_TYPE_NONE
                                                 : RTE_SECURITY_ACTION_TYPE_CPU_CRYPTO;
            ss.crypto.ses = crypto;
            ss.crypto.dev_id = device_;
            if (rte_ipsec_session_prepare(&ss) != 0) fail("prepare");
        }
    }

    heap heap_;
    std::uint8_t device_;
    std::size_t size_;
    large_memory sa_memory_, fresh_, handle_memory_;
    rte_mempool* made_ = nullptr;
    rte_mempool* mbufs_ = nullptr;
    rte_mempool* ops_ = nullptr;
    std::vector<rte_cryptodev_sym_session*> crypto_;
};

class rte_contender final : public contender {
  public:
    rte_contender(std::shared_ptr<const traffic> packets, std::shared_ptr<sessions> all,
                  rte_manner m)
        : contender(std::move(packets))
        , sessions_(std::move(all))
        , manner_(m)
        , mbufs_(of().pool())
        , session_of_(of().pool()) {}

  protected:
    void prepare() override {
        if (rte_pktmbuf_alloc_bulk(sessions_->mbufs(), mbufs_.data(), of().pool()) != 0)
            fail("mbufs");
        if (rte_crypto_op_bulk_alloc(sessions_->ops(), RTE_CRYPTO_OP_TYPE_SYMMETRIC, ops_.data(),
                                     burst) != burst)
            fail("ops");
        for (unsigned i = 0; i < of().pool(); ++i) {
            const unsigned n = nth(i);
            const auto ip = of().outbound ? packets().inner(n) : packets().sealed(n);
            rte_mbuf& m = *mbufs_[i];
            std::memcpy(rte_pktmbuf_mtod(&m, void*), ip.data(), ip.size());
            m.data_len = static_cast<std::uint16_t>(ip.size());
            m.pkt_len = m.data_len;
            m.l3_len = sizeof(rte_ipv4_hdr);
            session_of_[i] = &sessions_->of(packets().sa_of(n), manner_);
        }
    }
    void run() noexcept override {
        for (unsigned at = 0; at < mbufs_.size(); at += burst)
            if (manner_ == rte_manner::lookaside)
                run_lookaside(at);
            else
                run_synchronous(at);
    }
    /// Buffers go back here: prepare() and reopen() are outside the timing.
    void reopen() override {
        if (!of().outbound)
            for (unsigned i = 0; i < of().pool(); ++i)
                sessions_->reopen(packets().sa_of(nth(i)));
        rte_pktmbuf_free_bulk(mbufs_.data(), of().pool());
        rte_mempool_put_bulk(sessions_->ops(), reinterpret_cast<void**>(ops_.data()), burst);
    }
    [[nodiscard]] bytes output(unsigned i) const override {
        const rte_mbuf& m = *mbufs_[i];
        const std::size_t front = of().outbound ? sizeof(rte_ipv4_hdr) : 0;
        if (finished_ != of().pool() || m.data_len < front) return {};
        const auto* const at = rte_pktmbuf_mtod(&m, const std::uint8_t*);
        return {at + front, at + m.data_len};
    }

  private:
    /// How many from `at` on are of one session and one burst.
    [[nodiscard]] std::uint16_t run_from(unsigned at, unsigned end) const noexcept {
        unsigned to = at + 1;
        while (to < end && session_of_[to] == session_of_[at])
            ++to;
        return static_cast<std::uint16_t>(to - at);
    }
    void run_lookaside(unsigned at) noexcept {
        if (at == 0) finished_ = 0;
        for (unsigned i = at, n; i < at + burst; i += n) {
            n = run_from(i, at + burst);
            (void)rte_ipsec_pkt_crypto_prepare(session_of_[i], &mbufs_[i], &ops_[i - at],
                                               static_cast<std::uint16_t>(n));
        }
        const std::uint16_t sent =
            rte_cryptodev_enqueue_burst(sessions_->device(), 0, ops_.data(), burst);
        std::uint16_t got = 0;
        while (got < sent)
            got = static_cast<std::uint16_t>(
                got + rte_cryptodev_dequeue_burst(sessions_->device(), 0, done_.data() + got,
                                                  static_cast<std::uint16_t>(sent - got)));
        std::array<rte_mbuf*, burst> out;
        std::array<rte_ipsec_group, burst> groups;
        const std::uint16_t n = rte_ipsec_pkt_crypto_group(
            const_cast<const rte_crypto_op**>(done_.data()), out.data(), groups.data(), got);
        for (std::uint16_t i = 0; i < n; ++i)
            finished_ +=
                rte_ipsec_pkt_process(static_cast<const rte_ipsec_session*>(groups[i].id.ptr),
                                      groups[i].m, static_cast<std::uint16_t>(groups[i].cnt));
    }
    void run_synchronous(unsigned at) noexcept {
        if (at == 0) finished_ = 0;
        for (unsigned i = at, n; i < at + burst; i += n) {
            n = run_from(i, at + burst);
            const std::uint16_t ready = rte_ipsec_pkt_cpu_prepare(session_of_[i], &mbufs_[i],
                                                                  static_cast<std::uint16_t>(n));
            finished_ += rte_ipsec_pkt_process(session_of_[i], &mbufs_[i], ready);
        }
    }

    std::shared_ptr<sessions> sessions_;
    rte_manner manner_;
    std::vector<rte_mbuf*> mbufs_;
    std::vector<const rte_ipsec_session*> session_of_;
    std::array<rte_crypto_op*, burst> ops_;
    std::array<rte_crypto_op*, burst> done_;
    unsigned finished_ = 0;
};

/// SAs of a device, while there is a contender with them.
std::shared_ptr<sessions> sessions_of(const shape& s, rte_device d) {
    struct known {
        rte_device device;
        bool outbound;
        unsigned sas, pool;
        const suite_choice* suite;
        std::weak_ptr<sessions> made;
    };
    static std::vector<known> all;
    std::erase_if(all, [](const known& k) { return k.made.expired(); });
    for (const known& k : all)
        if (k.device == d && k.outbound == s.outbound && k.sas == s.sas && k.suite == s.suite &&
            k.pool == s.pool())
            return k.made.lock();
    auto made = std::make_shared<sessions>(s, d);
    all.push_back({d, s.outbound, s.sas, s.pool(), s.suite, made});
    return made;
}

} // namespace

std::unique_ptr<contender> librte_ipsec(std::shared_ptr<const traffic> packets, rte_device d,
                                        rte_manner m) {
    if (!sessions::has(packets->of(), d)) return nullptr;
    start_eal();
    auto all = sessions_of(packets->of(), d);
    return std::make_unique<rte_contender>(std::move(packets), std::move(all), m);
}

} // namespace esplane::bench
