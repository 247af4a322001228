// SPDX-License-Identifier: Apache-2.0
#include "tools/host_routing.h"

#include <algorithm>
#include <fstream>

#include <net/if.h>
#include <netinet/in.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "tools/number.h"
#include "tools/run_dir.h"

namespace esplane::tools {

using nlohmann::json;
using xfrm::host_prefix;
using xfrm::host_route;
using xfrm::host_routes;
using xfrm::host_rule;

namespace {

/// Tables of host ports with marks of their own follow the first in these steps.
constexpr std::uint32_t table_step = 1000;

constexpr ipsec::family families[] = {ipsec::family::ipv4, ipsec::family::ipv6};

// The record.

struct record {
    std::uint64_t network_namespace = 0;
    std::uint32_t table = 0;
    std::uint32_t first = 0; ///< priorities of rules
    std::uint32_t last = 0;

    friend bool operator==(const record&, const record&) = default;
};

std::string record_path(const std::string& run_dir) {
    return run_dir + "/routing";
}

std::optional<record> record_from(const json& j) {
    const auto number = [&](const char* key) -> std::optional<std::uint64_t> {
        const auto at = j.find(key);
        if (at == j.end() || !at->is_number_unsigned()) return {};
        return at->get<std::uint64_t>();
    };
    const auto ns = number("network_namespace"), table = number("table");
    const auto first = number("first_priority"), last = number("last_priority");
    if (!ns || !table || !first || !last) return {};
    return record{*ns, static_cast<std::uint32_t>(*table), static_cast<std::uint32_t>(*first),
                  static_cast<std::uint32_t>(*last)};
}

result<std::vector<record>> read_record(const std::string& run_dir) {
    const std::string path = record_path(run_dir);
    std::ifstream file(path);
    if (!file && errno == ENOENT) return std::vector<record>{};
    if (!file) return fail_errno(path);
    std::vector<record> all;
    const json list = json::parse(file, nullptr, false);
    const auto broken = [&] {
        return fail(EINVAL, path + ": not a list of routing tables: was it changed by hand?");
    };
    if (!list.is_array()) return broken();
    for (const json& entry : list) {
        const auto r = entry.is_object() ? record_from(entry) : std::nullopt;
        if (!r) return broken();
        all.push_back(*r);
    }
    return all;
}

result<void> write_record(const std::string& run_dir, const std::vector<record>& all) {
    const std::string path = record_path(run_dir);
    if (all.empty()) {
        if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(path);
        return {};
    }
    json list = json::array();
    for (const record& r : all)
        list.push_back({{"network_namespace", r.network_namespace},
                        {"table", r.table},
                        {"first_priority", r.first},
                        {"last_priority", r.last}});
    const std::string fresh = path + ".new";
    {
        std::ofstream file(fresh, std::ios::trunc);
        file << list.dump() << '\n' << std::flush;
        if (!file) return fail_errno(fresh);
    }
    if (::rename(fresh.c_str(), path.c_str()) != 0) return fail_errno(path);
    return {};
}

result<std::size_t> release(const record& r) {
    for (const ipsec::family family : families) {
        auto open = host_routes::open(r.table);
        if (!open) return tl::unexpected(open.error());
        if (auto gone = open->set_rules(family, r.first, r.last, {});
            !gone && family == ipsec::family::ipv4)
            return tl::unexpected(gone.error());
    }
    auto routes = host_routes::open(r.table);
    if (!routes) return tl::unexpected(routes.error());
    if (auto done = routes->read(); !done) return tl::unexpected(done.error());
    const auto there = routes->there();
    for (const auto& [where, route] : there)
        if (auto done = routes->remove(where); !done) return tl::unexpected(done.error());
    return there.size();
}

// Settings of devices.

std::string read_setting(const std::string& path) {
    std::ifstream file(path);
    std::string value;
    file >> value;
    return value;
}

bool write_setting(const std::string& path, const std::string& value) {
    std::ofstream file(path);
    file << value << std::flush;
    return static_cast<bool>(file);
}

std::string conf(const char* family, const std::string& device, const char* setting) {
    return std::string("/proc/sys/net/") + family + "/conf/" + device + "/" + setting;
}

} // namespace

struct host_routing::outlet {
    host_device device;
    host_routes routes;
    std::uint32_t table;
    route_plan plan;
    int ifindex = 0;
};

host_routing::host_routing(const routing_options& options, routing_surroundings around)
    : options_(options)
    , around_(std::move(around)) {}

host_routing::~host_routing() = default;

result<std::unique_ptr<host_routing>> host_routing::make(const routing_options& options,
                                                         std::vector<host_device> devices,
                                                         routing_surroundings around) {
    std::unique_ptr<host_routing> r(new host_routing(options, std::move(around)));
    auto recorded = read_record(r->around_.run_dir);
    if (!recorded) return tl::unexpected(recorded.error());
    std::vector<record> all = *recorded;
    std::uint32_t table = options.table;
    for (host_device& d : devices) {
        const record own{current_network_namespace(), table, options.priority - 2,
                         options.priority + 2};
        if (std::find(all.begin(), all.end(), own) == all.end()) all.push_back(own);
        if (auto added = r->add(std::move(d), table); !added) return tl::unexpected(added.error());
        table += table_step;
    }
    if (auto written = write_record(r->around_.run_dir, all); !written)
        return tl::unexpected(written.error());
    if (auto done = r->set_rules(); !done) return tl::unexpected(done.error());
    return r;
}

result<void> host_routing::add(host_device device, std::uint32_t table) {
    auto routes = host_routes::open(table);
    if (!routes) return tl::unexpected(routes.error());
    if (auto read = routes->read(); !read) return read;
    closed_ |= !routes->there().empty();
    outlets_.push_back(std::make_unique<outlet>(
        outlet{std::move(device), std::move(*routes), table, {options_, around_.mtu}}));
    tune(*outlets_.back());
    return {};
}

/// Routes into a device that nobody reads must count, whatever `default` says of new devices; and
/// what comes out of a tunnel need not come from where a route leads.
void host_routing::tune(outlet& o) {
    o.ifindex = o.device.ifindex();
    char name[IF_NAMESIZE];
    if (::if_indextoname(static_cast<unsigned>(o.ifindex), name) == nullptr) return;
    const auto set = [&](const std::string& path, const char* value) {
        if (read_setting(path) != value && !write_setting(path, value))
            around_.log(o.device.port + ": cannot set " + path + " to " + value +
                        ": is /proc/sys writable?");
    };
    if (read_setting(conf("ipv4", "all", "rp_filter")) == "1" ||
        read_setting(conf("ipv4", name, "rp_filter")) == "1")
        set(conf("ipv4", name, "rp_filter"), "2");
    for (const char* family : {"ipv4", "ipv6"})
        if (read_setting(conf(family, name, "ignore_routes_with_linkdown")) == "1")
            set(conf(family, name, "ignore_routes_with_linkdown"), "0");
}

/// The landing first, the lookups last: at no moment does ESP find our table.  Nor charon's own at
/// priority 220, behind ours: what charon sees of our routes it takes for ways to the peer.
///
/// That the landing asks for a protocol, of what comes in too, makes the kernel look for it there:
/// else the rules before it would not hold where rp_filter asks for the way back.
result<void> host_routing::set_rules() {
    for (const ipsec::family family : families) {
        const host_rule landing{.family = family,
                                .priority = options_.priority + 2,
                                .what = host_rule::verdict::landing,
                                .protocol = IPPROTO_ESP};
        std::vector<host_rule> rules{landing};
        host_rule jump{.family = family,
                       .priority = options_.priority - 2,
                       .what = host_rule::verdict::jump,
                       .to = landing.priority,
                       .of_machine = true,
                       .protocol = IPPROTO_ESP};
        rules.push_back(jump);
        jump.protocol = IPPROTO_UDP;
        for (const std::uint16_t port : around_.udp_ports) {
            jump.source_port = port;
            rules.push_back(jump);
        }
        if (options_.unless_marked)
            rules.push_back({.family = family,
                             .priority = options_.priority - 2,
                             .what = host_rule::verdict::jump,
                             .to = landing.priority,
                             .mark = options_.mark.value,
                             .mask = options_.mark.mask});
        for (const auto& o : outlets_) {
            const bool has_mark = o->device.mark.given();
            rules.push_back({.family = family,
                             .priority = options_.priority - (has_mark ? 1 : 0),
                             .to = o->table,
                             .mark = has_mark ? o->device.mark.value : options_.mark.value,
                             .mask = has_mark ? o->device.mark.mask : options_.mark.mask,
                             .unless = !has_mark && options_.unless_marked});
        }
        auto set = outlets_.front()->routes.set_rules(family, options_.priority - 2,
                                                      options_.priority + 2, rules);
        if (set) continue;
        if (family == ipsec::family::ipv4) return set;
        around_.log("routing of IPv6 stays as it is: " + set.error().text);
    }
    return {};
}

/// The host port whose packets the policy is for.
host_routing::outlet* host_routing::outlet_of(const ipsec::policy& p) {
    for (const auto& o : outlets_)
        if (p.mark.given() ? p.mark.matches(o->device.mark.value) : !o->device.mark.given())
            return o.get();
    return nullptr;
}

void host_routing::on_event(const ipsec::event& e) {
    if (const auto* added = std::get_if<ipsec::policy_added>(&e)) learn(added->what);
    if (const auto* updated = std::get_if<ipsec::policy_updated>(&e)) learn(updated->what);
    if (const auto* deleted = std::get_if<ipsec::policy_deleted>(&e)) forget(deleted->what);
    if (const auto* flushed = std::get_if<ipsec::policy_flushed>(&e)) forget_all(flushed->type);
    if (const auto* migrated = std::get_if<ipsec::policies_migrated>(&e);
        migrated && migrated->selected != nullptr)
        learn(*migrated->selected);
    if (const auto* changed = std::get_if<ipsec::defaults_changed>(&e)) learn(changed->what);
    if (const auto* expired = std::get_if<ipsec::policy_expired>(&e); expired && expired->hard)
        forget(expired->what);
}

/// Those of others that were there before stay until the first that protects has its own route.
void host_routing::learn(const ipsec::policy& p) {
    if (p.dir != ipsec::policy_direction::out) return;
    outlet* o = outlet_of(p);
    if (o == nullptr) {
        around_.log("policy " + p.sel.to_string() +
                    ": no host port has its mark: give one (mark=), or its traffic is not led "
                    "into any");
        return;
    }
    const auto touched = o->plan.learn(p);
    const bool opens = closed_ && (p.protects() || p.action == ipsec::policy_action::block);
    if (opens) closed_ = false;
    apply(*o, touched);
    if (opens)
        for (const auto& each : outlets_)
            reconcile(*each, false);
}

void host_routing::forget(const ipsec::policy& p) {
    if (outlet* o = outlet_of(p)) apply(*o, o->plan.forget(p.index));
}

void host_routing::forget_all(ipsec::policy_type type) {
    for (const auto& o : outlets_)
        apply(*o, o->plan.forget_all(type));
    if (blocks_by_default_) learn_default();
}

void host_routing::learn(const ipsec::default_actions& defaults) {
    blocks_by_default_ =
        ipsec::action_of(defaults, ipsec::policy_direction::out) == ipsec::policy_action::block;
    const bool opens = closed_ && blocks_by_default_;
    if (opens) closed_ = false;
    learn_default();
    if (opens)
        for (const auto& each : outlets_)
            reconcile(*each, false);
}

/// A default that blocks is a policy behind all others, in every port.
void host_routing::learn_default() {
    for (const ipsec::family f : families) {
        ipsec::policy p;
        p.sel.fam = p.sel.source.fam = p.sel.destination.fam = f;
        p.priority = ~std::uint32_t{0};
        p.position = ~std::uint64_t{0};
        p.index = ~std::uint32_t{0} - static_cast<std::uint32_t>(f == families[0]); // nobody's
        p.action = ipsec::policy_action::block;
        for (const auto& o : outlets_)
            apply(*o, blocks_by_default_ ? o->plan.learn(p) : o->plan.forget(p.index));
    }
}

void host_routing::apply(outlet& o, const route_plan::prefixes& all) {
    if (closed_) return;
    for (const host_prefix& where : all)
        apply(o, where);
}

void host_routing::apply(outlet& o, const host_prefix& where) {
    const auto planned = o.plan.route_to(where);
    if (planned && planned->what == planned_route::way::nowhere)
        say(where, "the peer's own address is all this tunnel is for: blocked, as "
                   "allow_peer_ts=no says");
    const auto route = planned ? resolve(o, where, *planned) : std::nullopt;
    const auto done = route ? put(o, where, *route) : o.routes.remove(where);
    incomplete_ |= !done;
    if (!done)
        say(where, done.error().text + "; until it works its traffic may leave in clear");
    else if (!planned || planned->what != planned_route::way::nowhere)
        said_.erase(where);
}

/// Nothing where there is no way past.
std::optional<host_route> host_routing::resolve(outlet& o, const host_prefix& where,
                                                const planned_route& planned) {
    using planned_way = planned_route::way;
    if (planned.what == planned_way::nowhere) return host_route{.what = host_route::way::nowhere};
    if (planned.what == planned_way::around) return host_route{.what = host_route::way::around};
    if (planned.what == planned_way::past) {
        const auto way =
            o.routes.way_to(where.address, options_.unless_marked ? options_.mark.value : 0);
        return way ? std::optional(*way) : std::nullopt;
    }
    host_route r{.ifindex = o.ifindex, .source = planned.source};
    if (planned.if_id != 0) {
        const auto all = around_.interfaces();
        const auto found =
            std::find_if(all.begin(), all.end(), [&](const fastpath::tunnel_binding& i) {
                return i.if_id == planned.if_id;
            });
        r.ifindex = found == all.end() ? 0 : found->ifindex;
        if (r.ifindex == 0) return host_route{.what = host_route::way::nowhere};
    }
    r.mtu = planned.mtu;
    r.mss = options_.mss;
    return r;
}

/// An address that is not ready yet (IPv6) is taken for the source when it is: that is a change.
result<void> host_routing::put(outlet& o, const host_prefix& where, host_route route) {
    auto done = o.routes.put(where, route);
    if (done || done.error().code != EINVAL || route.source.is_any()) return done;
    route.source = {};
    return o.routes.put(where, route);
}

/// All as planned, what nobody plans away.  read   first see what is there
void host_routing::reconcile(outlet& o, bool read) {
    if (read)
        if (auto done = o.routes.read(); !done) around_.log(done.error().text);
    auto all = o.plan.destinations();
    for (const auto& [where, route] : o.routes.there())
        all.insert(where);
    apply(o, all);
}

void host_routing::set_network(const control::network_change& change, const control::network& now) {
    for (const auto& o : outlets_) {
        if (change.interfaces) {
            if (o->ifindex != o->device.ifindex()) tune(*o);
            o->plan.set_addresses(now, o->ifindex);
            reconcile(*o, true);
        } else if (options_.roam_events && !change.routes.empty()) {
            apply(*o, o->plan.peers());
        }
    }
}

void host_routing::tend(std::uint64_t now_ns) {
    constexpr std::uint64_t pause_ns = 1'000'000'000;
    if (!incomplete_ || now_ns < retry_ns_) return;
    retry_ns_ = now_ns + pause_ns;
    incomplete_ = false;
    refresh();
}

void host_routing::refresh() {
    for (const auto& o : outlets_)
        apply(*o, o->plan.destinations());
}

void host_routing::say(const host_prefix& where, const std::string& line) {
    std::string& said = said_[where];
    if (said == line) return;
    said = line;
    around_.log("routing of " + where.to_string() + ": " + line);
}

std::vector<host_device> host_devices(const std::vector<fastpath::port*>& all) {
    std::vector<host_device> found;
    for (const fastpath::port* p : all)
        if (p->of_machine())
            found.push_back({p->name(), p->device(), p->mark(), [p] { return p->ifindex(); }});
    std::stable_partition(found.begin(), found.end(),
                          [](const host_device& d) { return !d.mark.given(); });
    return found;
}

std::vector<std::uint16_t> exempt_udp_ports(const std::vector<port_spec>& ports) {
    std::vector<std::uint16_t> all{500, 4500};
    for (const port_spec& spec : ports) {
        std::uint16_t own = 0;
        if (spec.kind == "socket" && read_number(spec.device, own) &&
            std::find(all.begin(), all.end(), own) == all.end())
            all.push_back(own);
    }
    return all;
}

result<std::vector<released_routing>> release_routing(const std::string& run_dir) {
    const auto recorded = read_record(run_dir);
    if (!recorded) return tl::unexpected(recorded.error());
    std::vector<released_routing> outcomes;
    std::vector<record> kept;
    for (const record& r : *recorded) {
        released_routing outcome{.table = r.table};
        if (r.network_namespace != current_network_namespace()) {
            outcome.failure = "is in another network namespace: release it there (ip netns exec)";
        } else if (const auto released = release(r)) {
            outcome.routes = *released;
        } else {
            outcome.failure = released.error().text;
        }
        if (!outcome.failure.empty()) kept.push_back(r);
        outcomes.push_back(std::move(outcome));
    }
    if (auto written = write_record(run_dir, kept); !written)
        return tl::unexpected(written.error());
    return outcomes;
}

} // namespace esplane::tools
