// SPDX-License-Identifier: Apache-2.0
#include "tools/port_watch.h"

#include <utility>

namespace esplane::tools {

namespace {

constexpr std::uint64_t interval_ns = 1'000'000'000;

std::string described(const fastpath::port& p) {
    return "port " + p.name() + " (" + p.device() + ")";
}

} // namespace

port_watch::port_watch(const std::vector<fastpath::port*>& ports,
                       std::function<std::vector<guarded_device>()> devices, std::string run_dir,
                       log l)
    : devices_(std::move(devices))
    , run_dir_(std::move(run_dir))
    , log_(std::move(l))
    , recorded_(devices_()) {
    for (fastpath::port* p : ports) {
        ports_.push_back({p, p->up(), {}, {}});
        if (!p->up()) say_down(ports_.back());
    }
}

/// Links say nothing of a lost device that is apart from its twin, and looking for it costs more.
bool port_watch::tend(std::uint64_t now_ns, bool links_changed) {
    const bool due = now_ns >= next_ns_;
    if (!due && !links_changed) return false;
    if (due) next_ns_ = now_ns + interval_ns;
    bool changed = false;
    for (watched& w : ports_)
        if (due || w.port->up() || !w.port->twin_apart()) changed |= tend(w, due);
    return record() || changed;
}

bool port_watch::tend(watched& w, bool due) {
    const auto done = w.port->tend();
    w.complaint = done ? "" : done.error().text;
    const bool is_up = w.port->up();
    const bool turned = is_up != std::exchange(w.up, is_up);
    if (turned && is_up) log_(described(*w.port) + ": is up again");
    // Another reason is said when it lasts: a device comes back by several steps.
    if (!is_up && (turned || (due && why_down(*w.port) != w.said))) say_down(w);
    return turned || (done && *done);
}

void port_watch::say_down(watched& w) {
    w.said = why_down(*w.port);
    log_(described(*w.port) + ": is down: " + w.said);
}

std::string port_watch::why_down(const fastpath::port& p) const {
    if (p.up()) return {};
    for (const watched& w : ports_)
        if (w.port == &p && !w.complaint.empty()) return w.complaint;
    return p.why_down();
}

/// Whatever happens, `esplane release` finds the devices.
bool port_watch::record() {
    auto now = devices_();
    if (now == recorded_) return false;
    auto all = read_guarded(run_dir_);
    const auto written = all ? write_guarded(run_dir_, merge_guarded(std::move(*all), now))
                             : result<void>(tl::unexpected(all.error()));
    if (!written) log_("recording guarded devices: " + written.error().text);
    recorded_ = std::move(now);
    return true;
}

} // namespace esplane::tools
