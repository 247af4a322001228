// SPDX-License-Identifier: Apache-2.0
//
// What `engine` compares: the same packets, under the same keys, through esplane's whole path and
// through those who do parts of it.
//
// A shape says which packets; a contender takes them, chunk after chunk.  Buffers are prepared and
// output is verified outside the timing; OpenSSL judges (esp_judge.h), whoever made it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "bench/rulesets/rulesets.h"
#include "lib/ipsec/algorithm.h"
#include "lib/ipsec/policy.h"

namespace esplane::bench {

using bytes = std::vector<std::uint8_t>;

/// What an SA is made of, by the names that clients give.
struct suite_choice {
    const char* name;   ///< "AES-128-GCM"
    const char* aead;   ///< the kernel's names; nullptr: none
    const char* cipher; ///< with `auth`
    const char* auth;
    unsigned cipher_key; ///< bytes, without an AEAD's salt
    unsigned auth_key;
    unsigned iv, icv, block; ///< bytes

    [[nodiscard]] bool is_aead() const noexcept { return aead != nullptr; }
    [[nodiscard]] bool is_gcm() const noexcept {
        return is_aead() && iv == 8 && block == 4 && !chacha();
    }
    [[nodiscard]] bool chacha() const noexcept { return is_aead() && name[0] == 'C'; }
};

extern const suite_choice aes128_gcm, aes256_gcm, cbc_sha1, cbc_sha256, chacha20_poly1305;

/// Keys of SA number `n`: `length` bytes, the same for all contenders.
[[nodiscard]] bytes cipher_key(const suite_choice& s, std::uint32_t n); ///< an AEAD's salt behind
[[nodiscard]] bytes auth_key(const suite_choice& s, std::uint32_t n);
/// As the control layer takes them; false where esplane does not have the suite.
[[nodiscard]] bool make_algorithms(const suite_choice& s, std::uint32_t n, ipsec::algorithms& into);

/// Bytes of a packet that stand for the Internet's mix: 7 of 64, 4 of 570, 1 of 1420.
inline constexpr std::uint32_t imix = 0;

struct shape {
    bool outbound = true;
    std::uint32_t length = 64; ///< of the inner packet, or `imix`
    unsigned sas = 1;          ///< each packet takes one at random
    unsigned policies = 1;     ///< at least one for each SA, whatever this says
    rule_kind rules = rule_kind::hub;
    const suite_choice* suite = &aes128_gcm;

    [[nodiscard]] unsigned rule_count() const noexcept { return policies < sas ? sas : policies; }
    /// Packets of a chunk: so many that they lie in the second-level cache, buffers and all.
    [[nodiscard]] unsigned pool() const noexcept { return length > 570 ? 256 : 512; }
    /// "out/64B/1SA/10000hub", and the suite unless it is AES-128-GCM.
    [[nodiscard]] std::string name() const;
};

/// The gateways at both ends of all SAs.
[[nodiscard]] ipsec::address near_gateway();
[[nodiscard]] ipsec::address far_gateway();
/// The `out` policies of a shape; number n asks for SA n % sas, whose reqid is one more.
[[nodiscard]] std::vector<ipsec::policy> rules_of(const shape& s);

/// The packets of a shape, in their order, round and round.
class traffic {
  public:
    /// rules   rules_of(s)
    traffic(const shape& s, std::span<const ipsec::policy> rules);

    [[nodiscard]] const shape& of() const noexcept { return shape_; }
    [[nodiscard]] unsigned count() const noexcept { return static_cast<unsigned>(flows_.size()); }
    /// Whether they are so few that a path may find all they touch in its caches.
    [[nodiscard]] bool few() const noexcept;
    [[nodiscard]] std::uint32_t sa_of(unsigned n) const noexcept { return flows_[n].sa; }
    /// The inner packet.
    [[nodiscard]] std::span<const std::uint8_t> inner(unsigned n) const noexcept {
        return {inner_.data() + flows_[n].at, flows_[n].length};
    }
    /// The same under ESP, outer IPv4 header first; inbound alone.
    [[nodiscard]] std::span<const std::uint8_t> sealed(unsigned n) const noexcept {
        return {sealed_.data() + flows_[n].sealed_at, flows_[n].sealed_length};
    }

  private:
    struct flow {
        std::uint32_t sa;
        std::uint32_t length;
        std::uint64_t at;
        std::uint64_t sealed_at;
        std::uint32_t sealed_length;
    };
    void add(const ipsec::flow& of, std::uint32_t sa, std::uint32_t length);
    void seal_all();

    shape shape_;
    std::vector<flow> flows_;
    bytes inner_;
    bytes sealed_;
};

/// Memory of large tables, on huge pages where the kernel gives some.
class large_memory {
  public:
    explicit large_memory(std::size_t size);
    ~large_memory();
    large_memory(const large_memory&) = delete;
    large_memory& operator=(const large_memory&) = delete;
    [[nodiscard]] std::uint8_t* data() const noexcept { return data_; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

  private:
    std::uint8_t* data_;
    std::size_t size_;
};

/// Packet buffers for a chunk, as a DPDK pool lays them: a stride that spreads them over the
/// cache's sets.
class packet_memory {
  public:
    static constexpr std::size_t stride = 37 * 64;
    static constexpr std::size_t headroom = 256;

    explicit packet_memory(unsigned count)
        : memory_(count * stride) {}
    [[nodiscard]] std::uint8_t* at(unsigned i) const noexcept {
        return memory_.data() + i * stride + headroom;
    }

  private:
    large_memory memory_;
};

class contender {
  public:
    explicit contender(std::shared_ptr<const traffic> packets)
        : packets_(std::move(packets)) {}
    virtual ~contender() = default;
    contender(const contender&) = delete;
    contender& operator=(const contender&) = delete;

    /// Nanoseconds a packet took, mean of a chunk.
    [[nodiscard]] double chunk();
    /// Takes every packet once, where all of them and what they touch fit the caches: whoever was
    /// before has taken those.  Else empties the caches, so that nothing is there that another
    /// contender with the same SAs has left, and takes a chunk for the sake of code and counters.
    void warm_up();
    /// Whether everything that comes out is right: every packet once.
    [[nodiscard]] bool verify();

  protected:
    [[nodiscard]] const traffic& packets() const noexcept { return *packets_; }
    [[nodiscard]] const shape& of() const noexcept { return packets_->of(); }
    /// Which packet is the chunk's number `i`.
    [[nodiscard]] unsigned nth(unsigned i) const noexcept {
        return (first_ + i) % packets_->count();
    }

    /// Puts the chunk's packets into their buffers.
    virtual void prepare() = 0;
    /// What is timed.
    virtual void run() noexcept = 0;
    /// What came out for the chunk's number `i`: outbound from the ESP header on, inbound the inner
    /// packet.  Empty: nothing right did.
    [[nodiscard]] virtual bytes output(unsigned i) const = 0;
    /// Whether a hop is counted on the way.
    [[nodiscard]] virtual bool routes() const noexcept { return false; }
    /// After a chunk: anti-replay windows as before it.
    virtual void reopen() {}

    void next() noexcept { first_ = (first_ + of().pool()) % packets_->count(); }

  private:
    [[nodiscard]] bool right(unsigned i) const;

    std::shared_ptr<const traffic> packets_;
    unsigned first_ = 0;
};

/// intel-ipsec-mb by its fastest call.
[[nodiscard]] std::unique_ptr<contender> bare_library(std::shared_ptr<const traffic> packets);
/// OpenSSL's EVP, a context for each SA.
[[nodiscard]] std::unique_ptr<contender> openssl(std::shared_ptr<const traffic> packets);

enum class rte_device : std::uint8_t { aesni_gcm, aesni_mb };
enum class rte_manner : std::uint8_t { lookaside, synchronous };
/// DPDK's librte_ipsec with its ipsec-mb drivers; nullptr where the device lacks the suite or this
/// build DPDK.  Those of one device share their sessions.
[[nodiscard]] std::unique_ptr<contender> librte_ipsec(std::shared_ptr<const traffic> packets,
                                                      rte_device d, rte_manner m);

} // namespace esplane::bench
