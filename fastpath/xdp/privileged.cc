// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/privileged.h"

#include <algorithm>

#include <fcntl.h>
#include <net/if.h>
#include <sys/socket.h>

#include <bpf/libbpf.h>

#include <egress.skel.h>
#include <ingress.skel.h>

#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/device.h"
#include "fastpath/xdp/dispatcher.h"

namespace esplane::fastpath {

namespace {

/// Linux 5.11; Debian 12's libc headers have them, older ones do not.
constexpr int prefer_busy_poll = 69;
constexpr int busy_poll_budget = 70;
constexpr int budget = 64; ///< frames a poll: a burst

result<void> poll_busily(int socket, unsigned us) {
    const int yes = 1;
    const int time = static_cast<int>(us);
    if (::setsockopt(socket, SOL_SOCKET, prefer_busy_poll, &yes, sizeof yes) == 0 &&
        ::setsockopt(socket, SOL_SOCKET, SO_BUSY_POLL, &time, sizeof time) == 0 &&
        ::setsockopt(socket, SOL_SOCKET, busy_poll_budget, &budget, sizeof budget) == 0)
        return {};
    if (errno == ENOPROTOOPT)
        return fail(EOPNOTSUPP,
                    "this kernel has no busy polling (Linux 5.11): leave out busy-poll");
    return fail_errno("busy polling (needs CAP_NET_ADMIN)");
}

} // namespace

struct own_privileges::prepared {
    int ifindex = 0;
    unique_fd lock;
    ingress_bpf* ingress = nullptr;
    egress_bpf* egress = nullptr;

    prepared() = default;
    prepared(const prepared&) = delete;
    prepared& operator=(const prepared&) = delete;
    ~prepared() {
        ingress_bpf::destroy(ingress);
        egress_bpf::destroy(egress);
    }

    [[nodiscard]] result<void> load() {
        ingress = ingress_bpf::open_and_load();
        if (ingress != nullptr) egress = egress_bpf::open_and_load();
        if (egress == nullptr)
            return fail_errno("loading the BPF programs (needs root and Linux 5.18)");
        return {};
    }
    /// The dispatcher takes a program that is not loaded yet: it is opened once more, over the
    /// same maps.
    [[nodiscard]] result<xdp_mode> attach_beside(const std::string& device) const {
        const std::unique_ptr<ingress_bpf, void (*)(ingress_bpf*)> again(ingress_bpf::open(),
                                                                         ingress_bpf::destroy);
        if (!again) return fail_errno(device + ": opening the XDP program");
        bpf_map* map = nullptr;
        bpf_object__for_each_map(map, again->obj) {
            const int fd = bpf_object__find_map_fd_by_name(ingress->obj, bpf_map__name(map));
            if (bpf_map__is_internal(map) || fd < 0) continue;
            if (const int e = bpf_map__reuse_fd(map, fd); e != 0)
                return fail_bpf(e, device + ": sharing the maps of the XDP program");
        }
        return fastpath::attach_beside(device, ifindex, again->obj);
    }
    /// In the order of guard_part.
    [[nodiscard]] std::array<int, guard_part_count> parts(int cover_xsks) const {
        return {bpf_map__fd(ingress->maps.xsks),
                bpf_map__fd(ingress->maps.local_addresses),
                bpf_map__fd(ingress->maps.encap_ports),
                bpf_map__fd(ingress->maps.ingress_config),
                bpf_map__fd(ingress->maps.ingress_counters),
                bpf_map__fd(egress->maps.egress_rules),
                bpf_map__fd(egress->maps.mask_banks),
                bpf_map__fd(egress->maps.egress_config),
                bpf_map__fd(egress->maps.egress_counters),
                bpf_program__fd(ingress->progs.esplane_punt),
                cover_xsks >= 0 ? cover_xsks : bpf_map__fd(ingress->maps.xsks)};
    }
};

own_privileges::own_privileges() {
    silence_bpf_libraries();
}
own_privileges::~own_privileges() = default;

std::vector<std::unique_ptr<own_privileges::prepared>>& own_privileges::loaded_ahead() {
    static std::vector<std::unique_ptr<prepared>> all;
    return all;
}

void own_privileges::load_ahead(std::size_t devices) {
    silence_bpf_libraries();
    while (loaded_ahead().size() < devices) {
        auto p = std::make_unique<prepared>();
        if (!p->load()) return;
        loaded_ahead().push_back(std::move(p));
    }
}

result<guard_parts> own_privileges::prepare(const std::string& device) {
    const auto ifindex = index_of(device);
    if (!ifindex) return tl::unexpected(ifindex.error());
    if (auto r = check_ethernet(device); !r) return tl::unexpected(std::move(r.error()));
    const bool from_another = !loaded_ahead().empty();
    auto lock = from_another ? lock_device(device, *ifindex) : reserve_device(device, *ifindex);
    if (!lock) return tl::unexpected(std::move(lock.error()));

    std::unique_ptr<prepared> p;
    if (auto& ahead = loaded_ahead(); !ahead.empty()) {
        p = std::move(ahead.back());
        ahead.pop_back();
    } else {
        p = std::make_unique<prepared>();
        if (auto loaded = p->load(); !loaded)
            return fail(loaded.error().code, device + ": " + loaded.error().text);
    }
    p->ifindex = *ifindex;
    p->lock = std::move(*lock);
    const attachments before = find_attachments(*ifindex);
    guard_parts parts{*ifindex, before.ingress || before.egress, find_cover(*ifindex), {}};
    const unique_fd cover_xsks = parts.cover ? find_sockets(*ifindex) : unique_fd();
    if (!cover_xsks.valid()) parts.cover.reset();
    const auto own = p->parts(cover_xsks.get());
    for (std::size_t i = 0; i < own.size(); ++i) {
        parts.descriptors[i] = unique_fd(::fcntl(own[i], F_DUPFD_CLOEXEC, 0));
        if (!parts.descriptors[i].valid()) return fail_errno(device + ": descriptors");
    }
    devices_[device] = std::move(p);
    return parts;
}

result<guard_attached> own_privileges::attach(const std::string& device, xdp_wish wish) {
    const auto at = devices_.find(device);
    if (at == devices_.end()) return fail(EINVAL, device + ": not prepared");
    prepared& p = *at->second;
    const auto ifindex = index_of(device);
    if (!ifindex) return tl::unexpected(ifindex.error());
    if (*ifindex != p.ifindex) {
        auto lock = lock_device(device, *ifindex);
        if (!lock) return tl::unexpected(std::move(lock.error()));
        p.lock = std::move(*lock);
        p.ifindex = *ifindex;
    }
    // Egress first: as soon as the sockets may take packets, the kernel forwards none.
    if (auto r = attach_egress(device, p.ifindex, bpf_program__fd(p.egress->progs.esplane_egress));
        !r)
        return tl::unexpected(std::move(r.error()));
    const auto mode = has_dispatcher(p.ifindex)
                          ? p.attach_beside(device)
                          : attach_ingress(device, p.ifindex,
                                           bpf_program__fd(p.ingress->progs.esplane_ingress), wish);
    if (!mode) return tl::unexpected(mode.error());
    return guard_attached{p.ifindex, *mode};
}

result<attachments> own_privileges::release(const std::string& device) {
    const auto ifindex = index_of(device);
    if (!ifindex) return tl::unexpected(ifindex.error());
    const auto lock = reserve_device(device, *ifindex);
    if (!lock) return tl::unexpected(lock.error());
    return detach(device, *ifindex);
}

result<unique_fd> own_privileges::open_socket(unsigned busy_poll_us) {
    unique_fd socket(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
    if (!socket.valid()) return fail_errno("AF_XDP socket (needs CAP_NET_RAW)");
    if (busy_poll_us == 0) return socket;
    if (auto done = poll_busily(socket.get(), busy_poll_us); !done)
        return tl::unexpected(std::move(done.error()));
    return socket;
}

} // namespace esplane::fastpath
