// SPDX-License-Identifier: Apache-2.0
#include "tools/daemon.h"

#include <algorithm>
#include <csignal>
#include <iostream>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <systemd/sd-daemon.h>

#include "fastpath/reservation.h"
#include "tools/neighbours.h"
#include "tools/ports_socket.h"

namespace esplane::tools {

namespace {

/// Blocks the signals that end the daemon, in every thread, and gives them by descriptor.
unique_fd take_signals() {
    ::signal(SIGPIPE, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
    return unique_fd(::signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
}

} // namespace

void log(const std::string& line) {
    std::cerr << "esplaned: " + line + "\n";
}

daemon::daemon(daemon_options options)
    : options_(std::move(options))
    , signals_(take_signals())
    , wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}

/// What the engine takes down on its way out is not told to the guards: they stay as they are.
daemon::~daemon() {
    if (state_) state_->leave();
    if (!engine_) return;
    engine_->control().unsubscribe(guarding_.get());
    if (routing_) engine_->control().unsubscribe(routing_.get());
    engine_->backend().on_encap_ports({});
}

bool daemon::is_for_helper() const noexcept {
    return std::all_of(options_.ports.begin(), options_.ports.end(),
                       [](const port_spec& p) { return p.kind == "xdp"; });
}

result<void> daemon::start() {
    facts_ = {options_.run_dir, fastpath::now().monotonic_ns};
    if (options_.takeover)
        if (auto taken = take_over(); !taken) return taken;
    auto lock = run_lock::take(options_.run_dir, true);
    if (!lock) return tl::unexpected(lock.error());
    lock_ = std::make_unique<run_lock>(std::move(*lock));
    for (const auto step :
         {&daemon::check_cpus, &daemon::guard_devices, &daemon::find_state, &daemon::make_engine,
          &daemon::adopt_interfaces, &daemon::follow_network, &daemon::lead_traffic,
          &daemon::restore_state, &daemon::open_sockets, &daemon::watch_all})
        if (auto done = (this->*step)(); !done) return done;
    return begin_work();
}

/// Devices that an earlier daemon guarded stay closed until a client has programmed a policy: what
/// a policy protected must not leave in clear because a daemon died.  Its programs go when ours
/// know what to keep in.
result<void> daemon::begin_work() {
    const auto guards = devices_->guards();
    const bool guarded = std::any_of(guards.begin(), guards.end(),
                                     [](const fastpath::guard* g) { return g->was_guarded(); });
    if ((guarded || twin_was_kept_) && !restored_) {
        engine_->tables().close(true);
        guarding_->stay_closed([this] { engine_->tables().close(false); });
        log("these devices were guarded before: nothing passes until a policy is programmed "
            "(`esplane release` before the start forgets that)");
    }
    guarding_->begin();
    if (auto started = engine_->start(); !started) return started;
    if (auto replaced = devices_->replace_cover(); !replaced) {
        engine_->stop();
        return replaced;
    }
    announce();
    return {};
}

/// Early, while nothing is attached yet.
result<void> daemon::check_cpus() {
    cpu_set_t allowed;
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) return fail_errno("--cpus");
    for (const unsigned cpu : options_.cpus)
        if (!CPU_ISSET(cpu, &allowed))
            return fail(EINVAL,
                        "--cpus " + std::to_string(cpu) +
                            ": this process may not run there: choose another (taskset -p)");
    return {};
}

/// The record first: whatever happens from then on, `esplane release` finds the devices.
result<void> daemon::guard_devices() {
    auto devices = port_set::reserve(options_, log, std::move(buffers_ahead_));
    if (!devices) return tl::unexpected(devices.error());
    devices_ = std::move(*devices);
    auto recorded = read_guarded(options_.run_dir);
    if (!recorded) return tl::unexpected(recorded.error());
    twin_was_kept_ = devices_->keeps_twin_of(*recorded);
    if (auto written = record_devices(*recorded); !written) return written;
    if (auto attached = devices_->cover(); !attached) return attached;
    if (auto opened = devices_->open(); !opened) return opened;
    if (auto written = record_devices(*recorded); !written) return written; // those it has made
    watch_ = std::make_unique<port_watch>(
        devices_->ports(), [this] { return devices_->devices(); }, options_.run_dir, log);
    facts_.ports = watch_.get();
    return {};
}

result<void> daemon::record_devices(const std::vector<guarded_device>& earlier) {
    const auto now = devices_->devices();
    guarded_ = !now.empty();
    return write_guarded(options_.run_dir, merge_guarded(earlier, now));
}

std::vector<fastpath::worker_options> daemon::worker_options() const {
    std::vector<fastpath::worker_options> workers(options_.workers);
    for (std::size_t i = 0; i < workers.size(); ++i) {
        if (!options_.cpus.empty()) workers[i].cpu = static_cast<int>(options_.cpus[i]);
        workers[i].wake_control = wake_.get();
        if (options_.always_poll) workers[i].idle_loops = ~0u;
        workers[i].punts = options_.punts.shared_by(options_.workers);
        workers[i].crypto = options_.crypto;
    }
    return workers;
}

/// SAs may be put in from here on: what has to hear of each is there.
result<void> daemon::make_databases() {
    engine_ = std::make_unique<engine>(worker_options());
    engine_->backend().set_esp_mark(exempt_mark(options_.ports, options_.routing));
    paths_ = std::make_unique<path_care>(*engine_, log);
    keepalives_ = std::make_unique<nat_keepalives>(
        engine_->control(), [this](const ipsec::sa& s) { send_keepalive(s); });
    if (state_)
        if (auto prepared = state_->prepare(engine_->backend()); !prepared) return prepared;
    return reserve_memory();
}

/// While there is one thread.
result<void> daemon::reserve_memory() {
    if (options_.reserve == 0) return {};
    auto reserved = fastpath::reserve_memory(options_.reserve, engine_->backend().memory());
    if (reserved) return {};
    return fail(reserved.error().code, "--reserve " + std::to_string(options_.reserve) + ": " +
                                           reserved.error().text + ": choose less");
}

result<void> daemon::make_engine() {
    if (!engine_)
        if (auto made = make_databases(); !made) return made;
    std::vector<fastpath::worker_options> workers = worker_options();
    const bool on_host = std::ranges::any_of(
        devices_->ports(), [](const fastpath::port* p) { return p->of_machine(); });
    if (on_host && !options_.always_poll)
        for (fastpath::worker_options& w : workers)
            w.idle_loops = fastpath::idle_loops_on_host;
    if (auto equipped = engine_->equip(devices_->buffers(), devices_->ports(), std::move(workers));
        !equipped)
        return equipped;
    guarding_ = std::make_unique<guarding>(devices_->guards(), log);
    workers_ = std::make_unique<worker_care>(*engine_, log);
    facts_.workers = workers_.get();
    paths_->follow_ports(ports_of_fixed_mtu());
    engine_->set_filter(options_.filter);
    engine_->tables().set_mss_clamp(options_.mss_clamp);
    engine_->control().subscribe(guarding_.get());
    introduce_policies(*guarding_);
    const auto tell_encap_ports = [this] {
        guarding_->set_encap_ports(engine_->backend().encap_ports());
    };
    engine_->backend().on_encap_ports(tell_encap_ports);
    tell_encap_ports();
    return {};
}

/// After the guards: where it cannot be read nothing is forwarded, and what the machine sends is
/// held against what an earlier daemon's programs know, or denied.  A state that is off now must
/// not come back later, when its numbers are past.
result<void> daemon::find_state() {
    if (state_) return {}; // of a daemon that was taken over from
    const state_options& o = options_.state;
    if (!o.on) forget_state(options_.run_dir);
    if (!o.on) return {};
    if (o.automatic() && !is_in_memory(options_.run_dir)) {
        log("no state is kept over a restart: " + options_.run_dir +
            " is not in memory (--state, --run-dir)");
        return {};
    }
    auto place =
        o.kept_by_manager ? kept_place(handed_.token) : named_place(options_.run_dir, o.log_path);
    if (!place) return tl::unexpected(place.error());
    if (handed_.log.valid())
        place = handed_place(std::move(handed_.log), std::move(handed_.live), std::move(*place));
    auto state = state_file::open(o, std::move(*place), options_.run_dir, log);
    if (!state) return tl::unexpected(state.error());
    state_ = std::move(*state);
    facts_.state = state_.get();
    return {};
}

/// Before any client, and before any packet.
result<void> daemon::restore_state() {
    if (!state_) return {};
    const auto back = state_->restore(engine_->control(), fastpath::now());
    if (!back) return tl::unexpected(back.error());
    engine_->control().subscribe(state_.get());
    restored_ = back->found;
    if (back->found)
        log("restored: " + std::to_string(back->sas) + " SAs, " + std::to_string(back->policies) +
            " policies");
    if (back->lost != 0)
        log("not restored: " + std::to_string(back->lost) +
            " SAs and policies, of before a reboot "
            "or no longer carried");
    return {};
}

std::vector<std::string> daemon::ports_of_fixed_mtu() const {
    std::vector<std::string> names;
    for (const port_spec& p : options_.ports)
        if (options_.routing.mtu != 0 ||
            std::ranges::any_of(p.options, [](const auto& o) { return o.first == "mtu"; }))
            names.push_back(p.name);
    return names;
}

result<void> daemon::adopt_interfaces() {
    interfaces_ = std::make_unique<interfaces>(
        engine_->interfaces(), options_.run_dir,
        [this] {
            engine_->set_tunnels(interfaces_->bindings());
            devices_changed_ = true;
            if (routes_) kernel_spoke();
            if (routing_) routing_->refresh();
        },
        log);
    return interfaces_->adopt();
}

result<void> daemon::follow_network() {
    auto links = xfrm::link_watch::open();
    if (!links) return tl::unexpected(links.error());
    links_ = std::make_unique<xfrm::link_watch>(std::move(*links));
    auto routes = xfrm::route_monitor::open();
    if (!routes) return tl::unexpected(routes.error());
    routes_ = std::move(*routes);
    do
        kernel_spoke();
    while (routes_->unfinished());
    if (const std::size_t n = routes_->skipped_rules(); n != 0)
        log("routing rules with conditions are not followed: " + std::to_string(n) + " (ip rule)");
    return {};
}

/// What the machine sends is led into its ports: without one nothing of it happens.
result<void> daemon::lead_traffic() {
    auto devices = host_devices(devices_->ports());
    if (devices.empty() || !options_.routing.install_routes) return {};
    auto made =
        host_routing::make(options_.routing, std::move(devices),
                           {.run_dir = options_.run_dir,
                            .udp_ports = exempt_udp_ports(options_.ports),
                            .mtu = [this](const ipsec::policy& p) { return paths_->mtu_for(p); },
                            .interfaces = [this] { return interfaces_->bindings(); },
                            .log = log});
    if (!made) return tl::unexpected(made.error());
    routing_ = std::move(*made);
    control::network_change all;
    all.interfaces = true;
    routing_->set_network(all, routes_->current());
    engine_->control().subscribe(routing_.get());
    introduce_policies(*routing_);
    paths_->on_change([this] { routing_->refresh(); });
    return {};
}

result<void> daemon::open_sockets() {
    if (options_.serve_xfrm) {
        if (auto open = engine_->open_xfrm(xfrm_socket_path(options_.run_dir)); !open) return open;
        engine_->xfrm()->set_strict(options_.strict_xfrm);
        engine_->xfrm()->set_exempt_mark(exempt_mark(options_.ports, options_.routing));
    }
    auto control = control_server::open(
        control_socket_path(options_.run_dir), [this](const nlohmann::json& request) {
            return interfaces::knows(request) ? interfaces_->answer(request)
                                              : answer(*engine_, facts_, request);
        });
    if (!control) return tl::unexpected(control.error());
    control_ = std::move(*control);
    auto takeover =
        takeover_server::open(options_.run_dir, [this](const std::string& state, bool for_good) {
            return hand_over(state, for_good);
        });
    if (!takeover) return tl::unexpected(takeover.error());
    takeover_ = std::move(*takeover);
    auto traces = trace::make(engine_->control(), engine_->xfrm());
    if (!traces) return tl::unexpected(traces.error());
    trace_ = std::move(*traces);
    control_->set_taker([this](const nlohmann::json& request, unique_fd& connection) {
        return trace_->take(request, connection);
    });
    return {};
}

result<void> daemon::watch_all() {
    const std::pair<int, std::function<void()>> watched[] = {
        {signals_.get(), [this] { stopping_ = true; }},
        {wake_.get(), [this] { worker_spoke(); }},
        {links_->descriptor(), [this] { kernel_spoke(); }},
        {routes_->descriptor(), [this] { kernel_spoke(); }},
        {control_->descriptor(), [this] { control_->serve(); }},
        {takeover_->descriptor(), [this] { serve_takeover(); }},
        {trace_->descriptor(), [this] { trace_->serve(); }},
    };
    for (const auto& [fd, ready] : watched)
        if (auto done = loop_.watch(fd, ready); !done) return done;
    if (engine_->xfrm() == nullptr) return {};
    return loop_.watch(engine_->xfrm()->descriptor(), [this] { client_spoke(); });
}

void daemon::announce() {
    const std::size_t n = options_.ports.size();
    log("ready: " + std::to_string(n) + (n == 1 ? " port" : " ports") +
        (options_.serve_xfrm ? ", XFRM at " + xfrm_socket_path(options_.run_dir) : ", no XFRM"));
    ::sd_notifyf(0, "READY=1\nMAINPID=%d", static_cast<int>(::getpid()));
}

void daemon::run() {
    while (!stopping_) {
        loop_.turn(routes_->unfinished() || !state_is_written_ ? 0 : timeout_ms());
        if (routes_->unfinished()) kernel_spoke();
        tend_ports(false);
        workers_->tend(fastpath::now().monotonic_ns);
        paths_->tend(fastpath::now().monotonic_ns);
        if (routing_) routing_->tend(fastpath::now().monotonic_ns);
        engine_->control().tick(fastpath::now());
        keepalives_->tick(fastpath::now());
        state_is_written_ = !state_ || !state_->tend(fastpath::now());
    }
    ::sd_notify(0, "STOPPING=1");
    engine_->stop();
}

void daemon::take_network(const control::network_change& change) {
    engine_->apply_network(change, routes_->current());
    paths_->network_changed();
    if (routing_) routing_->set_network(change, routes_->current());
    if (!change.interfaces) return;
    guarding_->set_network(routes_->current());
}

void daemon::tend_ports(bool links_changed) {
    if (!watch_->tend(fastpath::now().monotonic_ns, links_changed)) return;
    control::network_change devices;
    devices.interfaces = true;
    devices.continues = true; // of routes that are being loaded
    take_network(devices);
}

/// The TUN devices of ports that are the machine itself.  Whoever leads traffic into one (stock
/// charon finds our routes and repeats them in its own table) means the machine's, not our ESP.
std::vector<int> daemon::machine_links() const {
    std::vector<int> links;
    for (const fastpath::port* p : devices_->ports())
        if (p->of_machine() && p->ifindex() != 0) links.push_back(p->ifindex());
    return links;
}

/// Ports first: a device that has come back is to be guarded before anything is sent on it.
void daemon::kernel_spoke() {
    tend_ports(links_->changed());
    routes_->pass_over(machine_links());
    auto change = routes_->poll();
    if (!change) log("reading routes: " + change.error().text);
    if (change && change->interfaces) interfaces_->tend();
    if (!change) return; // the next poll() says it all
    change->interfaces |= std::exchange(devices_changed_, false);
    take_network(*change);
}

void daemon::worker_spoke() {
    std::uint64_t count = 0;
    (void)!::read(wake_.get(), &count, sizeof count);
    engine_->control().tick(fastpath::now()); // it dates what the worker tells
    for (const wanted_next_hop& hop : engine_->deliver_events())
        (void)resolve_neighbour(*routes_, hop.ifindex, hop.address); // the worker asks again
}

/// What cannot be sent is tried again after the SA's interval.
void daemon::send_keepalive(const ipsec::sa& s) {
    if (!keepalive_sockets_) {
        auto opened =
            fastpath::keepalive_sender::open(exempt_mark(options_.ports, options_.routing));
        if (!opened) {
            log("NAT keepalives: " + opened.error().text);
            return;
        }
        keepalive_sockets_ = std::move(*opened);
    }
    (void)keepalive_sockets_->send(s);
}

/// An IKE daemon sets the sysctl when it starts, that is at any time; and connects when it has
/// bound a UDP port that a port of ours may share.
void daemon::client_spoke() {
    engine_->files().follow_kernel(fastpath::now());
    const std::uint64_t before = engine_->xfrm()->counters().clients;
    engine_->xfrm()->serve();
    if (engine_->xfrm()->counters().clients > before) tend_ports(true);
}

/// Until the next deadline of the control layer, the ports or the workers.
int daemon::timeout_ms() {
    const std::uint64_t tend_at =
        std::min({watch_->next_ns(), workers_->next_ns(), paths_->next_ns()});
    const std::uint64_t deadline =
        std::min({engine_->control().next_deadline_ns().value_or(tend_at),
                  keepalives_->next_ns().value_or(tend_at), tend_at});
    const std::uint64_t now_ns = fastpath::now().monotonic_ns;
    return deadline <= now_ns ? 0 : static_cast<int>((deadline - now_ns) / 1'000'000 + 1);
}

} // namespace esplane::tools
