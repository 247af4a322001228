// SPDX-License-Identifier: Apache-2.0
#include "tools/engine.h"

#include <algorithm>
#include <stdexcept>
#include <sys/random.h>
#include <thread>

#include "tools/process.h"
#include "tools/xfrm_stat.h"

namespace esplane::tools {

void kernel_random(std::span<std::uint8_t> into) {
    while (!into.empty()) {
        const ssize_t n = ::getrandom(into.data(), into.size(), 0);
        if (n < 0 && errno != EINTR) throw std::runtime_error("getrandom: no random numbers");
        if (n > 0) into = into.subspan(static_cast<std::size_t>(n));
    }
}

namespace {

/// Those they are pinned to; else by their numbers.
std::vector<std::uint32_t> cpus_of(const std::vector<fastpath::worker_options>& workers) {
    std::vector<std::uint32_t> cpus;
    for (const fastpath::worker_options& w : workers)
        cpus.push_back(w.cpu >= 0 ? static_cast<std::uint32_t>(w.cpu)
                                  : static_cast<std::uint32_t>(cpus.size()));
    return cpus;
}

} // namespace

engine::engine(const std::vector<fastpath::worker_options>& workers)
    : backend_(tables_, kernel_random)
    , layer_(backend_, kernel_random)
    , files_(
          layer_, [](std::string_view name) { return read_sysctl(name); },
          [this] {
              fastpath::worker_counters counted;
              count(counted);
              return xfrm_stat_of(counted);
          })
    , mesh_(static_cast<unsigned>(workers.size())) {
    backend_.set_cpus(cpus_of(workers));
}

result<std::unique_ptr<engine>> engine::make(fastpath::buffer_pool& buffers,
                                             std::vector<fastpath::port*> ports,
                                             std::vector<fastpath::worker_options> workers) {
    auto e = std::make_unique<engine>(workers);
    if (auto done = e->equip(buffers, std::move(ports), std::move(workers)); !done)
        return tl::unexpected(done.error());
    return e;
}

result<void> engine::equip(fastpath::buffer_pool& buffers, std::vector<fastpath::port*> ports,
                           std::vector<fastpath::worker_options> workers) {
    ports_ = std::move(ports);
    auto interfaces = fastpath::tun_port::make(buffers, tables_.graveyard(),
                                               static_cast<unsigned>(workers.size()));
    if (!interfaces) return tl::unexpected(interfaces.error());
    interfaces_ = std::move(*interfaces);
    std::vector<fastpath::port*> all = ports_;
    all.push_back(interfaces_.get());
    for (fastpath::worker_options options : workers) {
        options.index = static_cast<unsigned>(workers_.size());
        auto worker = fastpath::worker::make(tables_, buffers, all, options, &mesh_);
        if (!worker) return tl::unexpected(worker.error());
        workers_.push_back(std::move(*worker));
    }
    return {};
}

result<void> engine::start() {
    for (const auto& worker : workers_)
        if (auto started = worker->start(); !started) {
            stop();
            return started;
        }
    return {};
}

void engine::stop() {
    for (const auto& worker : workers_)
        worker->stop();
}

bool engine::stop_within(std::chrono::milliseconds limit) {
    constexpr std::chrono::microseconds pause(200);
    const auto until = std::chrono::steady_clock::now() + limit;
    const auto at_work = [](const auto& worker) { return worker->is_at_work(); };
    for (const auto& worker : workers_)
        worker->ask_to_stop();
    while (std::ranges::any_of(workers_, at_work)) {
        if (std::chrono::steady_clock::now() >= until) return false;
        std::this_thread::sleep_for(pause);
    }
    stop();
    return true;
}

void engine::count(fastpath::worker_counters& into) const noexcept {
    for (const auto& worker : workers_)
        into.add(worker->counters());
}

result<void> engine::open_xfrm(const std::string& path) {
    auto server = xfrm::server::open(layer_, path, fastpath::now);
    if (!server) return tl::unexpected(server.error());
    server_ = std::move(*server);
    server_->set_files(files_);
    return {};
}

void engine::apply_network(const control::network_change& change, const control::network& now) {
    fastpath::device_bindings bindings{{}, tunnels_};
    for (std::size_t i = 0; i < ports_.size(); ++i) {
        const auto index = static_cast<std::uint8_t>(i);
        bindings.ports.push_back({ports_[i]->ifindex(), index, ports_[i]->of_machine()});
        if (ports_[i]->by_kernel()) bindings.by_kernel = index;
    }
    tables_.apply(change, now, bindings);
}

void engine::set_filter(std::vector<fastpath::filter_rule> rules) {
    filter_ = nullptr;
    if (rules.empty()) {
        tables_.set_filter(nullptr);
        return;
    }
    auto filter = std::make_unique<fastpath::rule_filter>(std::move(rules),
                                                          static_cast<unsigned>(workers_.size()));
    filter_ = filter.get();
    tables_.set_filter(std::move(filter));
}

std::vector<wanted_next_hop> engine::deliver_events() {
    std::vector<wanted_next_hop> wanted;
    for (const auto& worker : workers_)
        for (fastpath::worker_event e; worker->events().pop(e);) {
            if (e.kind == fastpath::worker_event_kind::neighbour_wanted)
                wanted.push_back({e.ifindex, e.id.destination});
            else if (e.kind == fastpath::worker_event_kind::path_limit) {
                if (hear_path_limit_) hear_path_limit_(e);
            } else
                backend_.deliver(e);
        }
    return wanted;
}

} // namespace esplane::tools
