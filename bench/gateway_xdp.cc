// SPDX-License-Identifier: Apache-2.0
//
// What ESP costs a gateway on AF_XDP ports, beside forwarding in clear.
//
//   live frames --> feed ===== lan  one worker  wan ===== sink: the kernel drops them
//
// Veths in a network namespace of the benchmark's own.  A ring full of frames is put into lan, then
// the worker's loops are timed by its thread's CPU time until all have left by wan; clear and
// protected frames take turns, and the medians of many turns count.  The time holds the kernel's
// part in sending, which on a veth is most of it.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <sched.h>

#include <fcntl.h>

#include "bench/gateway.h"
#include "fastpath/xdp/port_xdp.h"
#include "tests/support/lab.h"
#include "tests/support/live_frames.h"

namespace esplane::bench {

namespace {

using fastpath::guard;
using fastpath::xdp_port;
using tests::frame;
using tests::live_frames;

constexpr std::uint32_t frames_a_turn = 512; ///< half an rx ring
constexpr unsigned turns = 300;              ///< of each kind
constexpr unsigned idle_loops = 16;          ///< after which what is not there is lost
constexpr std::uint32_t inner_bytes = 64;
constexpr const char* row_name = "xdp_esp_cost";

double thread_ns() {
    timespec t;
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) * 1e9 + static_cast<double>(t.tv_nsec);
}

double median(std::vector<double> of) {
    std::nth_element(of.begin(), of.begin() + static_cast<long>(of.size() / 2), of.end());
    return of[of.size() / 2];
}

/// This process in a network namespace of its own, as long as it lives.
class own_namespace {
  public:
    own_namespace()
        : before_(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC))
        , entered_(before_.valid() && ::unshare(CLONE_NEWNET) == 0) {}
    ~own_namespace() {
        if (entered_) (void)::setns(before_.get(), CLONE_NEWNET);
    }
    own_namespace(const own_namespace&) = delete;
    own_namespace& operator=(const own_namespace&) = delete;
    [[nodiscard]] bool entered() const noexcept { return entered_; }

  private:
    unique_fd before_;
    bool entered_;
};

/// The gateway: tables of a lab, ports of its own.
class xdp_gateway {
  public:
    [[nodiscard]] static result<std::unique_ptr<xdp_gateway>> open() {
        if (std::system("ip link add lan type veth peer name feed && ip link set lan up && "
                        "ip link set feed up && ip link add wan type veth peer name sink && "
                        "ip link set wan up && ip link set sink up") != 0)
            return fail(EPERM, "veths cannot be made");
        std::unique_ptr<xdp_gateway> g(new xdp_gateway);
        for (side* s : {&g->lan_, &g->wan_})
            if (auto opened = s->open(*g->pool_); !opened) return tl::unexpected(opened.error());
        fastpath::port* const ports[] = {g->lan_.port.get(), g->wan_.port.get()};
        auto worker = fastpath::worker::make(g->lab_.tables, *g->pool_, ports, {});
        if (!worker) return tl::unexpected(worker.error());
        g->worker_ = std::move(*worker);
        g->feeder_ = std::make_unique<live_frames>("feed");
        (void)g->worker_->run_once(fastpath::now()); // fills the rings
        return g;
    }

    /// Thread time a frame took, of a turn; or why that cannot be said.
    [[nodiscard]] result<double> turn(const frame& f) {
        const std::uint64_t sent_before = sent();
        if (!feeder_->put(f, frames_a_turn)) return fail_errno("BPF_PROG_TEST_RUN");
        std::size_t received = 0;
        const double start = thread_ns();
        for (unsigned idle = 0; sent() - sent_before < frames_a_turn && idle < idle_loops;) {
            const std::size_t n = worker_->run_once(fastpath::now());
            received += n;
            idle = n == 0 ? idle + 1 : 0;
        }
        const double spent = thread_ns() - start;
        if (sent() - sent_before == frames_a_turn) return spent / frames_a_turn;
        return fail(EIO, "of " + std::to_string(frames_a_turn) + " frames " +
                             std::to_string(received) + " came and " +
                             std::to_string(sent() - sent_before) + " left");
    }
    [[nodiscard]] std::uint64_t encrypted() const { return worker_->counters().encrypted.get(); }

    /// A packet for the peer's site, which a policy protects, or for a network beside it.
    [[nodiscard]] static frame packet_to(unsigned site) {
        return tests::with_ethernet(tests::make_packet({.to = site, .length = inner_bytes}));
    }
    static constexpr unsigned peer_site = 2;
    static constexpr unsigned clear_site = 9;

  private:
    struct side {
        std::string device;
        std::unique_ptr<guard> keeper{};
        std::unique_ptr<xdp_port> port{};

        [[nodiscard]] result<void> open(fastpath::buffer_pool& pool) {
            auto g = guard::open(device);
            if (!g) return tl::unexpected(g.error());
            keeper = std::move(*g);
            if (auto attached = keeper->attach(); !attached) return attached;
            auto p = xdp_port::open({device, device}, pool, *keeper);
            if (!p) return tl::unexpected(p.error());
            port = std::move(*p);
            return {};
        }
    };

    xdp_gateway()
        : lab_(1)
        , pool_(*fastpath::buffer_pool::make(8192)) {
        lab_.add_tunnel({});
        control::route clear = lab_.network.routes.back();
        for (const control::route& r : lab_.network.routes)
            if (r.destination == *ipsec::address::parse("10.2.0.0")) clear = r;
        clear.destination = *ipsec::address::parse("10.9.0.0");
        lab_.network.routes.push_back(clear);
        lab_.publish_network();
    }
    [[nodiscard]] std::uint64_t sent() const { return worker_->counters().sent.get(); }

    tests::lab lab_;
    std::unique_ptr<fastpath::buffer_pool> pool_;
    side lan_{"lan"};
    side wan_{"wan"};
    std::unique_ptr<fastpath::worker> worker_;
    std::unique_ptr<live_frames> feeder_;
};

} // namespace

gateway_rows measure_xdp() {
    const own_namespace inside;
    if (!inside.entered()) return {not_measured(row_name, "needs root")};
    auto gateway = xdp_gateway::open();
    if (!gateway) return {not_measured(row_name, gateway.error().text)};
    const frame clear = xdp_gateway::packet_to(xdp_gateway::clear_site);
    const frame secret = xdp_gateway::packet_to(xdp_gateway::peer_site);
    std::vector<double> in_clear, as_esp;
    for (unsigned i = 0; i < turns; ++i) {
        const auto c = (*gateway)->turn(clear);
        const auto e = (*gateway)->turn(secret);
        if (!c || !e) return {not_measured(row_name, (c ? e : c).error().text)};
        in_clear.push_back(*c);
        as_esp.push_back(*e);
    }
    if ((*gateway)->encrypted() != std::uint64_t{turns} * frames_a_turn)
        return {not_measured(row_name, "not the frames that were meant to be were encrypted")};
    gateway_row row;
    row.name = row_name;
    row.measured = median(as_esp) / median(in_clear);
    row.unit = "x";
    row.limit = 1.15;
    std::array<char, 96> note;
    std::snprintf(note.data(), note.size(),
                  "thread time a packet: %.0f ns as ESP, %.0f ns in clear", median(as_esp),
                  median(in_clear));
    row.note = note.data();
    return {row};
}

} // namespace esplane::bench
