// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/punt_queue.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "fastpath/xdp/bpf.h"

namespace esplane::fastpath {

punt_queue::punt_queue(int program, int ifindex, const wire::mac_address& source)
    : program_(program)
    , ifindex_(ifindex)
    , source_(source)
    , slots_(std::make_unique<std::array<slot, capacity>>()) {}

bool punt_queue::push(std::span<const std::uint8_t> frame, bool urgent) noexcept {
    const std::size_t room = urgent ? capacity : capacity - urgent_share;
    if (used_ >= room || frame.size() > max_frame || frame.size() < sizeof(wire::ethernet_header))
        return false;
    slot& s = (*slots_)[(head_ + used_) % capacity];
    s.length = static_cast<std::uint32_t>(frame.size());
    std::memcpy(s.bytes.data(), frame.data(), frame.size());
    if (source_ != wire::mac_address{})
        std::memcpy(s.bytes.data() + offsetof(wire::ethernet_header, source), source_.data(),
                    source_.size());
    ++used_;
    return true;
}

punt_queue::outcome punt_queue::hand_up() noexcept {
    outcome o;
    for (std::size_t n = std::min(used_, frames_a_loop); n > 0; --n) {
        ++(inject((*slots_)[head_]) ? o.taken : o.refused);
        head_ = (head_ + 1) % capacity;
        --used_;
    }
    return o;
}

std::size_t punt_queue::restart(int ifindex, const wire::mac_address& source) noexcept {
    ifindex_ = ifindex;
    source_ = source;
    head_ = 0;
    return std::exchange(used_, 0);
}

bool punt_queue::inject(slot& s) const noexcept {
    xdp_md context{};
    context.data_end = s.length;
    context.ingress_ifindex = static_cast<std::uint32_t>(ifindex_);
    bpf_test_run_opts run;
    clear(run);
    run.data_in = s.bytes.data();
    run.data_size_in = s.length;
    run.ctx_in = &context;
    run.ctx_size_in = sizeof context;
    run.repeat = 1;
    run.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
    run.batch_size = 1;
    return bpf_prog_test_run_opts(program_, &run) == 0;
}

} // namespace esplane::fastpath
