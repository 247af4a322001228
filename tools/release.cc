// SPDX-License-Identifier: Apache-2.0
#include "tools/release.h"

#include <net/if.h>
#include <unistd.h>

#include "fastpath/tap.h"
#include "fastpath/tun.h"
#include "tools/host_routing.h"
#include "tools/state_place.h"

#ifdef ESPLANE_HAVE_XDP
#include "tools/xdp_helper.h"
#endif

namespace esplane::tools {

namespace {

#ifdef ESPLANE_HAVE_XDP
result<std::vector<std::string>> take_off(const std::string& device) {
    const auto means = means_of_this_process();
    if (!means) return tl::unexpected(means.error());
    const auto off = (*means)->release(device);
    if (!off) return tl::unexpected(off.error());
    std::vector<std::string> removed;
    if (off->ingress) removed.push_back("XDP program");
    if (off->egress) removed.push_back("egress program");
    if (off->qdisc) removed.push_back("clsact qdisc");
    return removed;
}
#else
result<std::vector<std::string>> take_off(const std::string& device) {
    return fail(ENOTSUP, device + ": this build has no AF_XDP ports: release it with one that has");
}
#endif

/// A host port's has a queue for each worker, and goes with the last that has it open.
result<void> take_off_tun(const guarded_device& d, const std::string& name) {
    if (d.if_id != 0) return fastpath::tun::remove(d.ifindex);
    auto queues = fastpath::tun_queues::open(name, fastpath::tun::smallest_mtu, 1);
    if (!queues) return tl::unexpected(queues.error());
    queues->forsake();
    return {};
}

result<std::vector<std::string>> take_off(const guarded_device& d, const std::string& name) {
    if (d.kind == "dpdk") {
        if (auto removed = fastpath::tap::remove(name); !removed)
            return tl::unexpected(removed.error());
        return std::vector<std::string>{"TAP"};
    }
    if (d.kind != "tun") return take_off(name);
    if (auto removed = take_off_tun(d, name); !removed) return tl::unexpected(removed.error());
    return std::vector<std::string>{"interface"};
}

/// A device may have been renamed since; its number stays.
released_device release_device(const guarded_device& d) {
    released_device outcome{d, {}, false, {}};
    if (d.network_namespace != current_network_namespace()) {
        outcome.failure = "is in another network namespace: release it there (ip netns exec)";
        return outcome;
    }
    char name[IF_NAMESIZE];
    if (::if_indextoname(static_cast<unsigned>(d.ifindex), name) == nullptr) {
        outcome.gone = true;
        return outcome;
    }
    outcome.what.device = name;
    if (auto removed = take_off(d, name))
        outcome.removed = std::move(*removed);
    else
        outcome.failure = removed.error().text;
    return outcome;
}

/// As if each table were a device.
result<std::vector<released_device>> release_tables(const std::string& run_dir) {
    const auto released = release_routing(run_dir);
    if (!released) return tl::unexpected(released.error());
    std::vector<released_device> outcomes;
    for (const released_routing& r : *released) {
        const guarded_device what{
            .name = "routing", .kind = "table", .device = "table " + std::to_string(r.table)};
        outcomes.push_back(
            {what,
             {"rules", std::to_string(r.routes) + (r.routes == 1 ? " route" : " routes")},
             false,
             r.failure});
    }
    return outcomes;
}

std::string joined(const std::vector<std::string>& parts) {
    std::string text;
    for (const std::string& part : parts)
        text += (text.empty() ? "" : ", ") + part;
    return text;
}

} // namespace

result<std::vector<released_device>> release_devices(const std::string& run_dir) {
    const auto lock = run_lock::take(run_dir, false);
    if (!lock && lock.error().code == EBUSY)
        return fail(EBUSY, run_dir + ": esplaned is running: stop it first (SIGTERM)");
    if (!lock && lock.error().code == ENOENT)
        return fail(ENOENT, run_dir + ": no such directory: name the daemon's with --run-dir");
    const bool refused = !lock && (lock.error().code == EPERM || lock.error().code == EACCES);
    if (refused && ::geteuid() != 0)
        return fail(lock.error().code, run_dir + ": run `esplane release` as root");
    if (!lock) return tl::unexpected(lock.error());
    const auto recorded = read_guarded(run_dir);
    if (!recorded) return tl::unexpected(recorded.error());
    forget_state(run_dir);
    auto tables = release_tables(run_dir);
    if (!tables) return tl::unexpected(tables.error());
    std::vector<released_device> outcomes = std::move(*tables);
    std::vector<guarded_device> kept;
    for (const guarded_device& d : *recorded) {
        outcomes.push_back(release_device(d));
        if (!outcomes.back().failure.empty()) kept.push_back(d);
    }
    if (auto written = write_guarded(run_dir, kept); !written)
        return tl::unexpected(written.error());
    return outcomes;
}

nlohmann::json report_release(const std::vector<released_device>& devices) {
    nlohmann::json list = nlohmann::json::array();
    for (const released_device& d : devices)
        list.push_back(
            {{"name", d.what.name},
             {"device", d.what.device},
             {"removed", d.removed},
             {"gone", d.gone},
             {"failure", d.failure.empty() ? nlohmann::json() : nlohmann::json(d.failure)}});
    return {{"released", std::move(list)}};
}

std::string text_of_release(const std::vector<released_device>& devices) {
    if (devices.empty()) return "nothing to release: no device is guarded\n";
    std::string text;
    for (const released_device& d : devices) {
        text += d.what.name + " (" + d.what.device + "): ";
        if (d.gone)
            text += "the device is gone";
        else if (!d.failure.empty())
            text += d.failure;
        else
            text += d.removed.empty() ? "nothing was there" : "removed " + joined(d.removed);
        text += '\n';
    }
    return text;
}

} // namespace esplane::tools
