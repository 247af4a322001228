// SPDX-License-Identifier: Apache-2.0
#include "tools/answers.h"

#include <unistd.h>

#include "lib/base/huge_memory.h"
#include "tools/report.h"
#include "tools/run_dir.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

json report_down(const engine& e, const daemon_facts& facts) {
    json down = json::array();
    for (const fastpath::port* p : e.ports()) {
        if (p->up()) continue;
        const std::string why = facts.ports != nullptr ? facts.ports->why_down(*p) : p->why_down();
        down.push_back({{"name", p->name()}, {"device", p->device()}, {"why", why}});
    }
    return down;
}

json stuck_workers(const engine& e, const daemon_facts& facts) {
    json stuck = json::array();
    for (std::size_t i = 0; facts.workers != nullptr && i < e.workers().size(); ++i)
        if (facts.workers->watch().stuck(i)) stuck.push_back(i);
    return stuck;
}

json report_routes(const fastpath::fib_usage& u) {
    return {{"ipv4", u.routes_v4},        {"ipv6", u.routes_v6}, {"next_hops", u.next_hops},
            {"neighbours", u.neighbours}, {"vrfs", u.vrfs},      {"bytes", u.bytes},
            {"refused", u.refused}};
}

/// null where nobody is served.
json report_clients(engine& e) {
    if (e.xfrm() == nullptr) return {};
    const xfrm::server_counters& c = e.xfrm()->counters();
    return {{"connected", c.clients},       {"requests", c.requests},
            {"events_lost", c.events_lost}, {"replies_lost", c.replies_lost},
            {"refused", c.refused_peers},   {"broken", c.broken_clients}};
}

json report_state(const daemon_facts& facts) {
    if (facts.state == nullptr) return {};
    const state_file::standing s = facts.state->stands();
    return {{"written", s.written}, {"lost", s.lost}, {"memory_short", s.not_lasting}};
}

/// In MiB, of --reserve.
json report_memory() {
    constexpr std::size_t mib = 1 << 20;
    const huge_memory::figures now = huge_memory::now();
    return {{"reserved", now.reserved / mib},
            {"unused", now.unused / mib},
            {"not_huge", now.not_huge / mib}};
}

json report_status(engine& e, const daemon_facts& facts) {
    fastpath::worker_counters counted;
    e.count(counted);
    const control::spd_counts policies = e.control().policy_counts();
    const std::uint64_t uptime_ns = fastpath::now().monotonic_ns - facts.started_ns;
    return {{"version", ESPLANE_VERSION},
            {"pid", ::getpid()},
            {"run_dir", facts.run_dir},
            {"uptime_s", uptime_ns / 1'000'000'000},
            {"xfrm", e.xfrm() != nullptr ? json(xfrm_socket_path(facts.run_dir)) : json()},
            {"clients", report_clients(e)},
            {"crypto", e.workers().front()->engine().architecture()},
            {"gcm_kernel", e.workers().front()->engine().gcm_kernel()},
            {"workers", e.workers().size()},
            {"stuck_workers", stuck_workers(e, facts)},
            {"ports", e.ports().size()},
            {"ports_down", report_down(e, facts)},
            {"sas", e.control().sa_count()},
            {"policies", {{"in", policies.in}, {"out", policies.out}, {"fwd", policies.fwd}}},
            {"routes", report_routes(e.tables().routes().usage())},
            {"state", report_state(facts)},
            {"memory", report_memory()},
            {"packets", report_packets(counted)}};
}

json report_drops_of(const engine& e) {
    fastpath::worker_counters counted;
    e.count(counted);
    return {{"packets", report_packets(counted)}, {"drops", report_drops(counted)}};
}

json report_ports(const engine& e) {
    json ports = json::array();
    for (const fastpath::port* p : e.ports())
        ports.push_back(report_port(*p));
    return {{"ports", std::move(ports)}};
}

json report_workers(const engine& e, const daemon_facts& facts) {
    json workers = json::array();
    for (std::size_t i = 0; i < e.workers().size(); ++i)
        workers.push_back(report_worker(*e.workers()[i], i, facts.workers));
    return {{"workers", std::move(workers)}};
}

/// Sets the one that is named where a value is given; all of them, or the one.
json answer_sysctl(xfrm::proc_files& files, const json& request) {
    const auto text_at = [&request](const char* key) -> std::optional<std::string> {
        const auto at = request.find(key);
        if (at == request.end() || !at->is_string()) return std::nullopt;
        return at->get<std::string>();
    };
    const auto name = text_at("name");
    const auto value = text_at("value");
    if (name && value)
        if (const auto done = files.write(*name, *value); !done)
            return {{"error", done.error().text}};
    json shown = json::object();
    for (const std::string_view one : xfrm::proc_files::sysctl_names())
        if (!name || *name == one)
            shown[std::string(one)] = std::stoul(files.read(one).value_or("0"));
    if (shown.empty()) return {{"error", *name + ": no such sysctl of XFRM"}};
    return {{"sysctls", std::move(shown)}};
}

/// Where a page begins; false where the request says no place.
bool read_cursor(const json& request, control::cursor& into) {
    const auto at = request.find("cursor");
    if (at == request.end()) return true;
    if (!at->is_number_unsigned()) return false;
    into.next = at->get<std::uint64_t>();
    return true;
}

} // namespace

json answer(engine& e, const daemon_facts& facts, const json& request) {
    const auto at = request.find("command");
    const std::string command =
        at != request.end() && at->is_string() ? at->get<std::string>() : std::string();
    control::cursor from;
    if (!read_cursor(request, from)) return {{"error", "cursor: must be a number"}};
    if (command == "status") return report_status(e, facts);
    if (command == "sa") return report_sas(e.control(), from);
    if (command == "policy") return report_policies(e.control(), from);
    if (command == "ports") return report_ports(e);
    if (command == "drops") return report_drops_of(e);
    if (command == "workers") return report_workers(e, facts);
    if (command == "filter") return report_filter(e.filter());
    if (command == "sysctl") return answer_sysctl(e.files(), request);
    return {{"error", "unknown command \"" + command +
                          "\": there are status, sa, policy, ports, drops, workers, filter "
                          "and sysctl"}};
}

} // namespace esplane::tools
