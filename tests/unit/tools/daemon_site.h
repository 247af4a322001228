// SPDX-License-Identifier: Apache-2.0
//
// A daemon, as far as its state knows it.
#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "fastpath/backend.h"
#include "tools/engine.h"
#include "tools/state_file.h"

namespace esplane::tools {

inline constexpr moment now{1'000'000'000, 1'700'000'000};

inline const std::string key_bytes(20, 'k');

inline ipsec::sa some_sa(std::uint32_t spi) {
    ipsec::sa s;
    s.id = {ipsec::address::v4(wire::be32(0xc0a84d02)), wire::be32(spi), 50, {}};
    s.source = ipsec::address::v4(wire::be32(0xc0a84d01));
    s.algs.aead = {"rfc4106(gcm(aes))",
                   secret({reinterpret_cast<const std::uint8_t*>(key_bytes.data()), 20}), 128};
    EXPECT_TRUE(ipsec::resolve(s.algs));
    s.replay_window = 64;
    s.replay = {17, 1000, {1, 0}};
    return s;
}

inline ipsec::policy some_policy(std::uint8_t n) {
    ipsec::policy p;
    p.sel.fam = ipsec::family::ipv4;
    p.sel.source = ipsec::address::v4(wire::be32(0x0a000000u + n));
    p.sel.source_prefix = 32;
    p.action = ipsec::policy_action::block;
    return p;
}

/// It has not restored yet.
inline constexpr struct {
} ahead;

struct daemon_site {
    daemon_site(const std::string& directory, decltype(ahead) /*tag*/,
                std::unique_ptr<state_place> place, const state_options& options)
        : backend(tables, kernel_random)
        , control(backend, kernel_random) {
        auto opened =
            state_file::open(options, std::move(place), directory, [](const std::string&) {});
        if (!opened) {
            failure = opened.error().text;
            return;
        }
        state = std::move(*opened);
        EXPECT_TRUE(state->prepare(backend));
    }
    daemon_site(const std::string& directory, decltype(ahead) tag,
                const state_options& options = {})
        : daemon_site(directory, tag, named_place(directory, options.log_path).value(), options) {}
    daemon_site(const std::string& directory, std::unique_ptr<state_place> place,
                const state_options& options)
        : daemon_site(directory, ahead, std::move(place), options) {
        if (state) restore();
    }
    explicit daemon_site(const std::string& directory, const state_options& options = {})
        : daemon_site(directory, named_place(directory, options.log_path).value(), options) {}
    ~daemon_site() {
        if (state) state->leave();
    }
    daemon_site(const daemon_site&) = delete;
    daemon_site& operator=(const daemon_site&) = delete;

    void restore() {
        const auto restored = state->restore(control, now);
        ASSERT_TRUE(restored);
        back = *restored;
        control.subscribe(state.get());
    }

    std::string failure;
    state_file::counts back;
    std::unique_ptr<state_file> state; ///< outlives the backend, whose SAs are in its memory
    fastpath::tables tables;
    fastpath::user_backend backend;
    control::layer control;
};

} // namespace esplane::tools
