// SPDX-License-Identifier: Apache-2.0
//
// What a packet costs: the whole path as esplaned runs it, from received frame to ready to send
// (parse, policy, SA, ESP, next hop, MAC, counters), and beside it in the same run bare
// intel-ipsec-mb by its fastest call on the same payloads.
//
//   flows     1,024, each of its own host pair
//   policies  one per site, as on a hub: 100, or one per SA where there are more SAs
//   timing    a chunk is 256 to 1,024 packets, well under 1 ms; the best of all chunks counts;
//             chunks of all cases are interleaved
//   verified  every output packet once, outside the timing: what the path encrypts by a second
//             gateway, what it decrypts against what was encrypted
#include <cstdlib>
#include <memory>

#include <intel-ipsec-mb.h>

#include "bench/path.h"

namespace esplane::bench {
namespace {

/// intel-ipsec-mb's direct GCM call, which is its fastest, on the path's payloads and keys.
class crypto_case {
  public:
    explicit crypto_case(const shape& s)
        : shape_(s)
        , keys_(s.sas)
        , manager_(alloc_mb_mgr(0)) {
        init_mb_mgr_auto(manager_, nullptr);
        pool_ = std::move(*fastpath::buffer_pool::make(2048));
        for (unsigned n = 0; n < s.sas; ++n) {
            std::array<std::uint8_t, 16> key;
            tests::fixed_random(n)(key);
            IMB_AES128_GCM_PRE(manager_, key.data(), &keys_[n]);
        }
    }
    ~crypto_case() { free_mb_mgr(manager_); }
    crypto_case(const crypto_case&) = delete;
    crypto_case& operator=(const crypto_case&) = delete;

    [[nodiscard]] double chunk() {
        return seconds_of([&] { run(); }) / shape_.pool();
    }

  private:
    void run() noexcept {
        const std::uint32_t text = (shape_.length + 2 + 3) & ~3u;
        for (unsigned i = 0; i < shape_.pool(); ++i) {
            std::uint8_t* esp = pool_->base() + std::size_t{i} * fastpath::buffer_pool::frame_size +
                                fastpath::buffer_pool::headroom;
            std::uint8_t* start = esp + 16;
            const gcm_key_data& key = keys_[i % shape_.sas];
            const auto call = shape_.outbound ? manager_->gcm128_enc : manager_->gcm128_dec;
            call(&key, &context_, start, start, text, esp + 4, esp, 8, start + text, 16);
        }
    }

    shape shape_;
    std::vector<gcm_key_data> keys_;
    gcm_context_data context_{};
    IMB_MGR* manager_;
    std::unique_ptr<fastpath::buffer_pool> pool_;
};

} // namespace
} // namespace esplane::bench

int main(int argc, char** argv) {
    using namespace esplane::bench;
    report r("engine", argc, argv);
    for (const std::uint32_t length : {64u, 512u, 1420u})
        for (const unsigned sas : {1u, 1000u})
            for (const bool outbound : {true, false}) {
                const shape s{outbound, sas, length};
                auto path = std::make_shared<path_case>(s);
                if (!path->verify()) {
                    std::fprintf(stderr, "bench engine: %s: the path's output is wrong\n",
                                 s.name().c_str());
                    return EXIT_FAILURE;
                }
                register_case("path", s, path);
                register_case("crypto", s, std::make_shared<crypto_case>(s));
                r.row({s.name(), "path/" + s.name(), "crypto/" + s.name()});
            }
    r.target_difference("out/64B/1SA", 60);
    r.target_difference("in/64B/1SA", 60);
    r.target_ratio("out/1420B/1SA", 1.3);
    r.target_ratio("in/1420B/1SA", 1.3);
    return r.run();
}
