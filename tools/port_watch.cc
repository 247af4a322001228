// SPDX-License-Identifier: Apache-2.0
#include "tools/port_watch.h"

namespace esplane::tools {

namespace {

constexpr std::uint64_t interval_ns = 1'000'000'000;

std::string described(const fastpath::port& p) {
    return "port " + p.name() + " (" + p.device() + ")";
}

} // namespace

port_watch::port_watch(port_set& ports, std::string run_dir, log l)
    : set_(ports)
    , run_dir_(std::move(run_dir))
    , log_(std::move(l))
    , recorded_(ports.devices()) {
    for (fastpath::port* p : ports.ports()) {
        ports_.push_back({p, {}});
        if (!p->up()) log_(described(*p) + ": is down, and will be used when it comes up");
    }
}

bool port_watch::tend(std::uint64_t now_ns, bool at_once) {
    if (now_ns < next_ns_ && !at_once) return false;
    next_ns_ = now_ns + interval_ns;
    bool changed = false;
    for (watched& w : ports_)
        changed |= tend(w);
    return record() || changed;
}

bool port_watch::tend(watched& w) {
    const bool was_up = w.port->up();
    const auto done = w.port->tend();
    if (!done && done.error().text != w.complaint)
        log_(described(*w.port) + ": " + done.error().text + "; it is tried again");
    w.complaint = done ? "" : done.error().text;
    const bool changed = w.port->up() != was_up || (done && *done);
    if (changed)
        log_(described(*w.port) +
             (w.port->up() ? ": is up again" : ": is down until its device is there again"));
    return changed;
}

/// Whatever happens, `esplane release` finds the devices.
bool port_watch::record() {
    auto now = set_.devices();
    if (now == recorded_) return false;
    auto all = read_guarded(run_dir_);
    const auto written = all ? write_guarded(run_dir_, merge_guarded(std::move(*all), now))
                             : result<void>(tl::unexpected(all.error()));
    if (!written) log_("recording guarded devices: " + written.error().text);
    recorded_ = std::move(now);
    return true;
}

} // namespace esplane::tools
