// SPDX-License-Identifier: Apache-2.0
#include "xfrm/slate.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "lib/base/secret.h"

namespace esplane::xfrm {
namespace {

static_assert(sizeof(shim_slate) <= SHIM_SLATE_SIZE);

/// What cannot be cut short under our feet: a read beyond its end would end the daemon.  A hole
/// that the client punches does not: it reads as 0.
bool is_of_fixed_size(int memory) {
    struct stat st {};
    const int seals = ::fcntl(memory, F_GET_SEALS);
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && ::fstat(memory, &st) == 0 &&
           st.st_size == SHIM_SLATE_SIZE;
}

std::atomic_ref<std::uint32_t> shared(std::uint32_t& word) {
    return std::atomic_ref(word);
}

} // namespace

slate::slate(const unique_fd& memory) {
    if (!is_of_fixed_size(memory.get())) return;
    void* const page =
        ::mmap(nullptr, SHIM_SLATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
    if (page != MAP_FAILED) page_ = static_cast<shim_slate*>(page);
}

slate::~slate() {
    if (page_ != nullptr) ::munmap(page_, SHIM_SLATE_SIZE);
}

void slate::stay_awake(bool awake) noexcept {
    shared(page_->awake).store(awake ? 1 : 0); // before take() looks: sequentially consistent
}

bool slate::take(request& r, std::span<std::uint8_t> into) noexcept {
    std::uint32_t turn = shim_asked;
    if (shared(page_->turn).load() != shim_asked ||
        !shared(page_->turn).compare_exchange_strong(turn, shim_at_work))
        return false;
    std::memcpy(&r.header, &page_->header, sizeof r.header);
    r.takes_reply = shared(page_->takes).load(std::memory_order_relaxed) != 0;
    r.length = std::min<std::size_t>(shared(page_->length).load(std::memory_order_relaxed),
                                     SHIM_SLATE_ROOM);
    std::memcpy(into.data(), page_->request, r.length);
    wipe(page_->request, r.length); // it may have held keys
    return true;
}

bool slate::answer(const shim_answer& a, bytes reply) noexcept {
    std::memcpy(&page_->answer, &a, sizeof a);
    if (!reply.empty()) std::memcpy(page_->reply, reply.data(), reply.size());
    shared(page_->length)
        .store(static_cast<std::uint32_t>(reply.size()), std::memory_order_relaxed);
    shared(page_->turn).store(shim_answered); // before it is seen whether the client sleeps
    return shared(page_->asleep).load() != 0;
}

} // namespace esplane::xfrm
