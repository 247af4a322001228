// SPDX-License-Identifier: Apache-2.0
#include "bench/memif_generator.h"

#include <array>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "fastpath/dpdk/eal.h"
#include "fastpath/dpdk/ethdev.h"

namespace esplane::bench {

namespace {

constexpr unsigned burst = 32;
constexpr unsigned frames_of_its_own = 1023; ///< what it receives lies elsewhere
constexpr int start_ms = 10'000;
constexpr std::uint32_t memory_mib = 64;

/// Every mbuf of the pool gets the frame; what was sent comes back to the pool as it was.
void write_into_all(rte_mempool* pool, const std::uint8_t* frame, std::uint32_t length) {
    std::vector<rte_mbuf*> all;
    while (rte_mbuf* m = rte_pktmbuf_alloc(pool)) {
        std::memcpy(rte_pktmbuf_mtod(m, void*), frame, length);
        all.push_back(m);
    }
    rte_pktmbuf_free_bulk(all.data(), static_cast<unsigned>(all.size()));
}

void send_burst(std::uint16_t id, rte_mempool* pool, std::uint32_t length) {
    std::array<rte_mbuf*, burst> mbufs;
    if (rte_pktmbuf_alloc_bulk(pool, mbufs.data(), burst) != 0) return;
    for (rte_mbuf* m : mbufs) {
        m->data_len = static_cast<std::uint16_t>(length);
        m->pkt_len = length;
    }
    const std::uint16_t sent = rte_eth_tx_burst(id, 0, mbufs.data(), burst);
    if (sent < burst) rte_pktmbuf_free_bulk(&mbufs[sent], burst - sent);
}

unsigned receive_burst(std::uint16_t id) {
    std::array<rte_mbuf*, burst> mbufs;
    const unsigned n = rte_eth_rx_burst(id, 0, mbufs.data(), burst);
    rte_pktmbuf_free_bulk(mbufs.data(), n);
    return n;
}

result<std::unique_ptr<fastpath::ethdev>> listen_on(const std::string& socket,
                                                    fastpath::mbuf_memory& memory) {
    auto device = fastpath::ethdev::open(
        {"generator", "net_memif0", "role=server,rsize=9,socket-abstract=no,socket=" + socket, 1},
        memory, nullptr);
    if (!device) return device;
    if (auto started = (*device)->start(); !started) return tl::unexpected(started.error());
    return device;
}

} // namespace

result<std::unique_ptr<memif_generator>> memif_generator::start(unsigned cpu) {
    std::unique_ptr<memif_generator> g(new memif_generator);
    char path[] = "/tmp/esplane.memif.XXXXXX";
    if (::mkdtemp(path) == nullptr) return fail_errno(path);
    g->directory_ = path;
    void* at = ::mmap(nullptr, sizeof(shared_state), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) return fail_errno("shared memory");
    g->shared_ = new (at) shared_state;
    g->process_ = ::fork();
    if (g->process_ < 0) return fail_errno("fork");
    if (g->process_ == 0) {
        g->run(cpu);
        ::_exit(EXIT_SUCCESS);
    }
    for (int ms = 0; ms < start_ms && !g->shared_->listening.load(); ++ms) {
        if (::waitpid(g->process_, nullptr, WNOHANG) == g->process_) {
            g->process_ = -1;
            break;
        }
        ::usleep(1000);
    }
    if (!g->shared_->listening.load()) return fail(ECHILD, "the generator did not start");
    return g;
}

memif_generator::~memif_generator() {
    if (process_ > 0) {
        shared_->quit.store(true);
        ::usleep(100'000);
        ::kill(process_, SIGKILL);
        ::waitpid(process_, nullptr, 0);
    }
    if (shared_ != nullptr) ::munmap(shared_, sizeof *shared_);
    ::unlink(socket().c_str());
    ::rmdir(directory_.c_str());
}

void memif_generator::send(const std::vector<std::uint8_t>& frame) noexcept {
    shared_->length = 0;
    std::memcpy(shared_->frame, frame.data(), std::min(frame.size(), longest_frame));
    shared_->length = static_cast<std::uint32_t>(std::min(frame.size(), longest_frame));
    shared_->generation.fetch_add(1);
}

std::uint64_t memif_generator::received() const noexcept {
    return shared_->received.load(std::memory_order_relaxed);
}

void memif_generator::run(unsigned cpu) noexcept {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    (void)::sched_setaffinity(0, sizeof one, &one);
    fastpath::mbuf_memory memory;
    if (!fastpath::start_eal({"", {}, memory_mib})) return;
    auto device = listen_on(socket(), memory);
    auto frames = memory.make_pool("frames", frames_of_its_own, longest_frame, -1);
    if (!device || !frames) return;
    const std::uint16_t id = (*device)->id();
    shared_->listening.store(true);
    std::uint32_t generation = 0, length = 0;
    while (!shared_->quit.load(std::memory_order_relaxed)) {
        if (const std::uint32_t now = shared_->generation.load(); now != generation) {
            generation = now;
            length = shared_->length;
            write_into_all(*frames, shared_->frame, length);
        }
        if (length != 0) send_burst(id, *frames, length);
        std::uint64_t received = 0;
        for (unsigned n = burst; n == burst && received < 4 * burst; received += n)
            n = receive_burst(id);
        shared_->received.store(shared_->received.load(std::memory_order_relaxed) + received,
                                std::memory_order_relaxed);
    }
}

} // namespace esplane::bench
