// SPDX-License-Identifier: Apache-2.0
#include "fastpath/handover.h"

#include <bit>
#include <unistd.h>

namespace esplane::fastpath {

handover_mesh::handover_mesh(unsigned workers)
    : workers_(workers)
    , rings_(std::size_t{workers} * workers)
    , beds_(std::make_unique<bed[]>(workers)) {}

void handover_mesh::join(unsigned worker, int eventfd) {
    beds_[worker].bell = eventfd;
    for (unsigned from = 0; from < workers_; ++from)
        if (from != worker) rings_[from * workers_ + worker] = std::make_unique<handover_ring>();
}

bool handover_mesh::lie_down(unsigned worker) noexcept {
    beds_[worker].asleep.store(true, std::memory_order_seq_cst);
    for (unsigned from = 0; from < workers_; ++from) {
        if (from == worker || ring(from, worker).empty()) continue;
        get_up(worker);
        return false;
    }
    return true;
}

void handover_mesh::ring_bell(unsigned worker) noexcept {
    bed& b = beds_[worker];
    if (!b.asleep.load(std::memory_order_seq_cst) || !b.asleep.exchange(false)) return;
    const std::uint64_t one = 1;
    (void)!::write(b.bell, &one, sizeof one);
}

unsigned outbox::idle() noexcept {
    for (unsigned i = 0; i < mesh_.workers(); ++i) {
        last_idle_ = last_idle_ + 1 == mesh_.workers() ? 0 : last_idle_ + 1;
        if (last_idle_ != self_ && !mesh_.has_arrivals(last_idle_) &&
            mesh_.ring(self_, last_idle_).waiting() < max_burst)
            return last_idle_;
    }
    return none;
}

// What was finished for a worker that is nudged comes before the look at its bed, too: see
// handover_ring::publish().
void outbox::publish() noexcept {
    for (std::uint64_t rings = touched_; rings != 0; rings &= rings - 1)
        mesh_.ring(self_, static_cast<unsigned>(std::countr_zero(rings))).publish();
    if (nudged_ != 0) std::atomic_thread_fence(std::memory_order_seq_cst);
    for (std::uint64_t beds = touched_ | nudged_; beds != 0; beds &= beds - 1)
        mesh_.ring_bell(static_cast<unsigned>(std::countr_zero(beds)));
    touched_ = nudged_ = 0;
}

} // namespace esplane::fastpath
