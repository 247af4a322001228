// SPDX-License-Identifier: Apache-2.0
//
// The engine touches the packet and not one byte beside it.
//
//   [ unmapped ][ packet .......         ][ unmapped ]     begins after an unmapped page
//   [ unmapped ][          ....... packet ][ unmapped ]    ends before one
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/crypto/engine.h"
#include "lib/crypto/gcm.h"
#include "tests/unit/crypto/openssl_esp.h"

namespace esplane::test {
namespace {

/// One page of memory between two that nobody may touch.
class guarded_page {
  public:
    guarded_page()
        : page_(static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)))
        , start_(static_cast<std::uint8_t*>(
              ::mmap(nullptr, 3 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {
        if (start_ == MAP_FAILED || ::mprotect(begin(), page_, PROT_READ | PROT_WRITE) != 0)
            throw std::bad_alloc();
    }
    ~guarded_page() { ::munmap(start_, 3 * page_); }
    guarded_page(const guarded_page&) = delete;
    guarded_page& operator=(const guarded_page&) = delete;

    [[nodiscard]] std::uint8_t* begin() const { return start_ + page_; }
    [[nodiscard]] std::uint8_t* end() const { return begin() + page_; }

  private:
    std::size_t page_;
    std::uint8_t* start_;
};

sa_keys counting_keys(ipsec::suite s) {
    sa_keys keys{s, bytes(cipher_key_length(s)), {}, {}};
    std::iota(keys.cipher.begin(), keys.cipher.end(), std::uint8_t{1});
    if (is_aead(s)) keys.salt = {1, 2, 3, 4};
    if (!is_aead(s)) keys.auth = bytes(32, 7);
    return keys;
}

class GuardPage : public testing::TestWithParam<unsigned> {};

TEST_P(GuardPage, IsNeverTouched) {
    const auto s = static_cast<ipsec::suite>(GetParam());
    auto made = crypto::engine::make();
    ASSERT_TRUE(made) << made.error().text;
    const sa_keys keys = counting_keys(s);
    const auto expanded = crypto::key::make(algorithms_for(keys));
    ASSERT_TRUE(expanded);
    const std::array<guarded_page, 16> pages; // as many as fill the library's lanes
    const auto layout = ipsec::layout_of(s);
    const std::size_t step = is_aead(s) ? 1 : layout.block_length;

    const std::size_t longest = is_gcm(s) ? 2100 : 128;

    for (std::size_t n = 0; n <= longest; n += step) {
        bytes clear(esp_header_length + layout.iv_length + n);
        std::iota(clear.begin(), clear.end(), std::uint8_t{0});
        for (const bool esn : {false, true}) {
            const bytes sealed = openssl_seal(keys, clear, esn ? std::optional(9U) : std::nullopt);
            for (const std::size_t count : {std::size_t{1}, pages.size()}) {
                for (const bool at_end : {false, true}) {
                    std::vector<crypto::job> jobs;
                    for (std::size_t i = 0; i < count; ++i) {
                        std::uint8_t* const at =
                            at_end ? pages[i].end() - sealed.size() : pages[i].begin();
                        std::copy(clear.begin(), clear.end(), at);
                        jobs.push_back({.keys = &(*expanded)->get(),
                                        .esp = at,
                                        .text_length = static_cast<std::uint32_t>(n),
                                        .seq_high = 9,
                                        .esn = esn});
                    }
                    (*made)->encrypt(jobs);
                    for (const auto& j : jobs)
                        ASSERT_TRUE(std::equal(sealed.begin(), sealed.end(), j.esp)) << n;
                    (*made)->decrypt(jobs);
                    for (const auto& j : jobs)
                        ASSERT_TRUE(j.ok && std::equal(clear.begin(), clear.end(), j.esp)) << n;
                }
            }
        }
    }
}

INSTANTIATE_TEST_SUITE_P(EverySuite, GuardPage, testing::Range(0U, ipsec::suite_count),
                         [](const auto& suite) { return "suite" + std::to_string(suite.param); });

} // namespace
} // namespace esplane::test
