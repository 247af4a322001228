// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/port_share.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/socket.h>
#include <utility>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <share.skel.h>

#include "fastpath/lane.h"
#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/maps.h"

namespace esplane::fastpath {

using ipsec::family;

namespace {

static_assert(ESPLANE_SHARE_SOCKETS == ESPLANE_SHARE_FIRST_LANE + max_lanes);

constexpr std::uint32_t only_entry = 0;
constexpr unsigned most_waits = 30; ///< looks, without a daemon, before ours bind the port again
constexpr const char* program_name = "esplane_share";
constexpr int netns_cookie = 71; ///< SO_NETNS_COOKIE, Linux 5.14

template <typename T>
T option_of(int fd, int level, int option) noexcept {
    T value{};
    socklen_t length = sizeof value;
    return ::getsockopt(fd, level, option, &value, &length) == 0 ? value : T{};
}

/// A program on a group, and the array that it chooses from.
struct divider {
    unique_fd program, sockets, config;
};

bool is_this(int config, const esplane_share_config& wanted) noexcept {
    esplane_share_config found{};
    return bpf_map_lookup_elem(config, &only_entry, &found) == 0 && found.netns == wanted.netns &&
           found.port == wanted.port && found.family == wanted.family;
}

/// One that was loaded from the same object before; its maps in `into`.
bool is_twin(int program, const bpf_prog_info& ours, divider& into) {
    std::array<std::uint32_t, 8> maps{};
    bpf_prog_info info{};
    info.nr_map_ids = maps.size();
    info.map_ids = reinterpret_cast<std::uintptr_t>(maps.data());
    std::uint32_t length = sizeof info;
    if (bpf_obj_get_info_by_fd(program, &info, &length) != 0 || info.id == ours.id ||
        info.type != BPF_PROG_TYPE_SK_REUSEPORT || std::string(info.name) != program_name ||
        std::memcmp(info.tag, ours.tag, sizeof info.tag) != 0)
        return false;
    for (const std::uint32_t id :
         std::span(maps).first(std::min<std::size_t>(info.nr_map_ids, 8))) {
        unique_fd fd(bpf_map_get_fd_by_id(id));
        bpf_map_info about{};
        std::uint32_t about_length = sizeof about;
        if (!fd.valid() || bpf_obj_get_info_by_fd(fd.get(), &about, &about_length) != 0) continue;
        if (about.type == BPF_MAP_TYPE_REUSEPORT_SOCKARRAY)
            into.sockets = std::move(fd);
        else if (about.value_size == sizeof(esplane_share_config))
            into.config = std::move(fd);
    }
    return into.sockets.valid() && into.config.valid();
}

/// What an earlier esplane left on the group that is described; empty where there is nothing.
divider find_left(const bpf_prog_info& ours, const esplane_share_config& wanted) {
    for (std::uint32_t id = 0; bpf_prog_get_next_id(id, &id) == 0;) {
        unique_fd program(bpf_prog_get_fd_by_id(id));
        divider one;
        if (!program.valid() || !is_twin(program.get(), ours, one) ||
            !is_this(one.config.get(), wanted))
            continue;
        one.program = std::move(program);
        return one;
    }
    return {};
}

result<divider> load(const esplane_share_config& wanted) {
    silence_bpf_libraries();
    const std::unique_ptr<share_bpf, void (*)(share_bpf*)> bpf(share_bpf::open_and_load(),
                                                               share_bpf::destroy);
    if (!bpf && errno == EPERM)
        return fail(EPERM, "sharing the port with an IKE daemon takes CAP_BPF and CAP_NET_ADMIN: "
                           "run esplaned as root");
    if (!bpf) return fail_errno("loading the BPF program that shares the port");
    const int program = bpf_program__fd(bpf->progs.esplane_share);
    bpf_prog_info info{};
    std::uint32_t length = sizeof info;
    if (const int e = bpf_obj_get_info_by_fd(program, &info, &length); e != 0)
        return fail_bpf(e, "BPF program");
    if (divider left = find_left(info, wanted); left.program.valid()) return left;
    return divider{unique_fd(::dup(program)),
                   unique_fd(::dup(bpf_map__fd(bpf->maps.share_sockets))),
                   unique_fd(::dup(bpf_map__fd(bpf->maps.share_config)))};
}

bool holds(int array, std::uint32_t slot, int socket) noexcept {
    std::uint64_t cookie = 0;
    return bpf_map_lookup_elem(array, &slot, &cookie) == 0 &&
           cookie == option_of<std::uint64_t>(socket, SOL_SOCKET, SO_COOKIE);
}

/// What an array of a program that was replaced holds it lets go of once no CPU runs that any more.
constexpr unsigned patience_ms = 500;

/// 0, or -EBUSY where the socket is in another array.
int put(int array, std::uint32_t slot, int socket, unsigned wait_ms) noexcept {
    constexpr timespec moment{0, 1'000'000};
    const auto value = static_cast<std::uint64_t>(socket);
    if (holds(array, slot, socket)) return 0;
    int e = bpf_map_update_elem(array, &slot, &value, BPF_ANY);
    for (; e == -EBUSY && wait_ms != 0; --wait_ms) {
        ::nanosleep(&moment, nullptr);
        e = bpf_map_update_elem(array, &slot, &value, BPF_ANY);
    }
    return e;
}

std::string who(const fetched_socket& s) {
    return s.command + " (process " + std::to_string(s.process) + ")";
}

/// Whether a group with that socket is possible.
result<void> check(const fetched_socket& s, family fam, const std::string& port) {
    if (option_of<int>(s.fd.get(), IPPROTO_UDP, UDP_GRO) != 0)
        return fail(EBUSY, port + ": " + who(s) + " is another esplane: stop that one");
    if (fam == family::ipv6 && option_of<int>(s.fd.get(), IPPROTO_IPV6, IPV6_V6ONLY) == 0)
        return fail(EOPNOTSUPP, port + ": " + who(s) +
                                    " has bound IPv6 and IPv4 by one socket: let it bind one a "
                                    "family (IPV6_V6ONLY)");
    return {};
}

} // namespace

struct port_share::division {
    divider by;
    port_holder holder; ///< whose socket is in the array
    int process = 0;    ///< its; 0: there is none
    port_holder refused;
    bool alone = false;  ///< it did not share the port by itself
    unsigned waited = 0; ///< looks since ours have left the port
};

port_share::port_share(std::uint16_t port, unsigned lanes)
    : port_(port)
    , lanes_(lanes)
    , divisions_{std::make_unique<division>(), std::make_unique<division>()} {}

port_share::~port_share() = default;

auto port_share::of(family f) const noexcept -> division& {
    return *divisions_[f == family::ipv4 ? 0 : 1];
}

int port_share::daemon(family f) const noexcept {
    return of(f).process;
}

std::string port_share::port_name() const {
    return "UDP port " + std::to_string(port_);
}

/// The daemon's socket, among those on the port: the one that is known already, else one that could
/// be shared with.
result<std::optional<port_holder>> port_share::find_holder(family f) const {
    const std::vector<port_holder> all = port_holders(f, port_);
    if (std::find(all.begin(), all.end(), of(f).holder) != all.end()) return of(f).holder;
    const auto one = std::find_if(all.begin(), all.end(), [](const port_holder& h) {
        return h.any_address && h.user == ::geteuid();
    });
    if (one != all.end()) return *one;
    if (all.empty() || all.front() == of(f).refused) return std::nullopt;
    of(f).refused = all.front();
    if (all.front().any_address)
        return fail(EPERM, port_name() + ": a daemon of another user has it: run it and esplaned "
                                         "as the same one");
    return fail(EOPNOTSUPP, port_name() + ": a daemon has bound one address alone, and gets all "
                                          "that is for it: let it bind all addresses");
}

result<fetched_socket> port_share::fetch(family f, const port_holder& holder) const {
    auto fetched = fetch_socket(holder.inode);
    if (!fetched)
        return fail(fetched.error().code,
                    port_name() +
                        ": a daemon has it that cannot be shared with: " + fetched.error().text);
    if (auto fits = check(*fetched, f, port_name()); !fits) return tl::unexpected(fits.error());
    return fetched;
}

result<void> port_share::make_room(family f) {
    auto holder = find_holder(f);
    if (!holder) return tl::unexpected(holder.error());
    if (!*holder) return {};
    auto fetched = fetch(f, **holder);
    if (!fetched) return tl::unexpected(fetched.error());
    const int on = 1;
    if (option_of<int>(fetched->fd.get(), SOL_SOCKET, SO_REUSEPORT) == 0) of(f).alone = true;
    if (::setsockopt(fetched->fd.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0)
        return fail_errno(port_name() + ": SO_REUSEPORT on the socket of " + who(*fetched));
    return {};
}

/// With the daemon in the array before the program is on the group it misses nothing.
result<void> port_share::found(family f, int founder) {
    division& d = of(f);
    esplane_share_config config{};
    config.netns = option_of<std::uint64_t>(founder, SOL_SOCKET, netns_cookie);
    config.port = port_;
    config.family = f == family::ipv4 ? 4 : 6;
    config.lanes = lanes_;
    if (!d.by.program.valid()) {
        auto loaded = load(config);
        if (!loaded) return tl::unexpected(loaded.error());
        d.by = std::move(*loaded);
    }
    esplane_share_config before{}; // an earlier esplane has let itself in
    if (bpf_map_lookup_elem(d.by.config.get(), &only_entry, &before) == 0 && before.alone != 0)
        d.alone = true;
    config.alone = d.alone ? 1 : 0;
    if (const int e = bpf_map_update_elem(d.by.config.get(), &only_entry, &config, BPF_ANY); e != 0)
        return fail_bpf(e, "share_config");
    const auto holder = find_holder(f);
    if (!holder) return tl::unexpected(holder.error());
    if (*holder) (void)admit(f, **holder, 0);
    const int program = d.by.program.get();
    if (::setsockopt(founder, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &program, sizeof program) != 0)
        return fail_errno(port_name() + ": BPF program");
    return *holder ? admit(f, **holder, patience_ms).map([](group_advice) {}) : result<void>();
}

result<void> port_share::divide(family f, std::span<const int> sockets) {
    std::uint32_t slot = ESPLANE_SHARE_FIRST_LANE;
    for (const int socket : sockets)
        if (const int e = put(of(f).by.sockets.get(), slot++, socket, 0); e != 0)
            return fail_bpf(e, port_name() + ": array of sockets");
    return {};
}

result<group_advice> port_share::look(family f) {
    division& d = of(f);
    auto holder = find_holder(f);
    if (!holder) return tl::unexpected(holder.error());
    const bool founded = d.by.program.valid();
    if (founded) return *holder ? admit(f, **holder, patience_ms) : miss(d);
    if (!*holder && d.waited++ < most_waits) return group_advice::stay;
    d.waited = 0;
    return group_advice::join;
}

/// The daemon is gone.
group_advice port_share::miss(division& d) {
    d.holder = {};
    d.process = 0;
    if (!std::exchange(d.alone, false)) return group_advice::stay;
    d.by = {}; // with the group
    return group_advice::leave;
}

/// Puts the daemon's socket into the array.  The kernel takes none that is in no group.
result<group_advice> port_share::admit(family f, const port_holder& holder, unsigned wait_ms) {
    division& d = of(f);
    if (holder == d.holder || holder == d.refused) return group_advice::stay;
    auto fetched = fetch(f, holder);
    if (!fetched) {
        d.refused = holder;
        return tl::unexpected(fetched.error());
    }
    const int e = put(d.by.sockets.get(), ESPLANE_SHARE_DAEMON, fetched->fd.get(), wait_ms);
    if (e == -EINVAL) return group_advice::join;
    if (e != 0) return fail_bpf(e, port_name() + ": the socket of " + who(*fetched));
    d.holder = holder;
    d.process = fetched->process;
    return group_advice::stay;
}

} // namespace esplane::fastpath
