// SPDX-License-Identifier: Apache-2.0
//
// Frames by the million into a veth, for whose other end XDP runs in the driver.  Needs root.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <net/if.h>

#include "fastpath/xdp/bpf.h"
#include "lib/base/unique_fd.h"

namespace esplane::tests {

class live_frames {
  public:
    /// device   the end to send them on
    explicit live_frames(const char* device) {
        const auto ifindex = static_cast<int>(::if_nametoindex(device));
        const std::array<bpf_insn, 4> redirect{{
            {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, ifindex},
            {BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_2, 0, 0, 0},
            {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect},
            {BPF_JMP | BPF_EXIT, 0, 0, 0, 0},
        }};
        program_ = unique_fd(bpf_prog_load(BPF_PROG_TYPE_XDP, "feed", "GPL", redirect.data(),
                                           redirect.size(), nullptr));
    }
    /// Returns when the other end has them.
    [[nodiscard]] bool put(std::span<const std::uint8_t> f, std::uint32_t count) const {
        bpf_test_run_opts run;
        fastpath::clear(run);
        run.data_in = f.data();
        run.data_size_in = static_cast<std::uint32_t>(f.size());
        run.repeat = static_cast<int>(count);
        run.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
        return bpf_prog_test_run_opts(program_.get(), &run) == 0;
    }

  private:
    unique_fd program_;
};

} // namespace esplane::tests
