// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/attachment.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>

#include <linux/if_link.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/device.h"
#include "fastpath/xdp/dispatcher.h"

namespace esplane::fastpath {
namespace {

// First of all filters.  The handle remembers across processes who made the qdisc.
constexpr std::uint32_t filter_priority = 1;
constexpr std::uint32_t filter_handle = 1;
constexpr std::uint32_t filter_handle_own_qdisc = 2;

struct program {
    unique_fd fd;
    std::string name;
};

std::optional<program> program_by_id(std::uint32_t id) {
    program p{unique_fd(bpf_prog_get_fd_by_id(id)), {}};
    bpf_prog_info info{};
    std::uint32_t length = sizeof info;
    if (!p.fd.valid() || bpf_obj_get_info_by_fd(p.fd.get(), &info, &length) != 0) return {};
    p.name = info.name;
    return p;
}

/// The XDP program on a device and the flags that address its mode.
struct attached_xdp {
    std::uint32_t id = 0;
    std::uint32_t mode_flag = 0;
};

result<attached_xdp> query_xdp(const std::string& device, int ifindex) {
    bpf_xdp_query_opts q;
    clear(q);
    if (const int e = bpf_xdp_query(ifindex, 0, &q); e != 0)
        return fail_bpf(e, device + ": asking for its XDP program");
    if (q.drv_prog_id != 0) return attached_xdp{q.drv_prog_id, XDP_FLAGS_DRV_MODE};
    if (q.skb_prog_id != 0) return attached_xdp{q.skb_prog_id, XDP_FLAGS_SKB_MODE};
    if (q.hw_prog_id != 0) return attached_xdp{q.hw_prog_id, XDP_FLAGS_HW_MODE};
    return attached_xdp{};
}

tl::unexpected<error> fail_foreign_xdp(const std::string& device, const std::string& name) {
    return fail(EBUSY, device + ": another XDP program (" + name +
                           ") is attached; take it off with 'ip link set dev " + device +
                           " xdp off', or use another device");
}

xdp_mode mode_of(std::uint32_t mode_flag) {
    return mode_flag == XDP_FLAGS_SKB_MODE ? xdp_mode::generic : xdp_mode::native;
}
std::uint32_t flag_of(xdp_mode mode) {
    return mode == xdp_mode::generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
}

/// Puts the program in the place of ours that is there, in its mode: without a gap.
result<xdp_mode> replace_ingress(const std::string& device, int ifindex, int program,
                                 const attached_xdp& there, const std::vector<xdp_mode>& modes) {
    const auto old = program_by_id(there.id);
    if (!old || old->name != ingress_program_name)
        return fail_foreign_xdp(device, old ? old->name : "unknown");
    const xdp_mode mode = mode_of(there.mode_flag);
    if (std::find(modes.begin(), modes.end(), mode) == modes.end())
        return fail(EBUSY, device +
                               ": the program of an earlier esplaned is there in another mode; "
                               "'esplane release " +
                               device + "' first");
    bpf_xdp_attach_opts in_place_of;
    clear(in_place_of);
    in_place_of.old_prog_fd = old->fd.get();
    const int e =
        bpf_xdp_attach(ifindex, program, there.mode_flag | XDP_FLAGS_REPLACE, &in_place_of);
    if (e != 0) return fail_bpf(e, device + ": replacing the XDP program");
    return mode;
}

/// libbpf's description of a side of clsact.
struct clsact_hook {
    bpf_tc_hook it;

    explicit clsact_hook(int ifindex, int point = BPF_TC_EGRESS) noexcept {
        clear(it);
        it.ifindex = ifindex;
        it.attach_point = static_cast<bpf_tc_attach_point>(point);
    }
};

/// libbpf's description of our filter.
struct own_filter {
    bpf_tc_opts it;

    explicit own_filter(std::uint32_t handle) noexcept {
        clear(it);
        it.handle = handle;
        it.priority = filter_priority;
    }
};

/// The filter with that handle at our priority.
std::optional<program> egress_filter(int ifindex, std::uint32_t handle) {
    const clsact_hook hook(ifindex);
    own_filter filter(handle);
    if (bpf_tc_query(&hook.it, &filter.it) != 0) return {};
    return program_by_id(filter.it.prog_id);
}

/// The handle under which our filter stands; 0 if it does not.
std::uint32_t own_filter_handle(int ifindex) {
    for (const std::uint32_t handle : {filter_handle, filter_handle_own_qdisc}) {
        const auto p = egress_filter(ifindex, handle);
        if (p && p->name == egress_program_name) return handle;
    }
    return 0;
}

/// Asks the kernel for the filters of one side of clsact; true where there is one, or where the
/// answer is not understood.
bool has_filters(int ifindex, std::uint32_t side) {
    struct {
        nlmsghdr header;
        tcmsg tc;
    } request{};
    request.header.nlmsg_len = sizeof request;
    request.header.nlmsg_type = RTM_GETTFILTER;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    request.tc.tcm_ifindex = ifindex;
    request.tc.tcm_parent = TC_H_MAKE(TC_H_CLSACT, side);
    const unique_fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
    if (!socket.valid() || ::send(socket.get(), &request, sizeof request, 0) < 0) return true;

    alignas(nlmsghdr) std::array<char, 32768> answer;
    const ssize_t length = ::recv(socket.get(), answer.data(), answer.size(), 0);
    if (length < static_cast<ssize_t>(sizeof(nlmsghdr))) return true;
    nlmsghdr first;
    std::memcpy(&first, answer.data(), sizeof first);
    return first.nlmsg_type != NLMSG_DONE;
}

bool clsact_is_empty(int ifindex) {
    return !has_filters(ifindex, TC_H_MIN_INGRESS) && !has_filters(ifindex, TC_H_MIN_EGRESS);
}

result<bool> detach_ingress(const std::string& device, int ifindex) {
    const auto there = query_xdp(device, ifindex);
    if (!there) return tl::unexpected(there.error());
    const auto p = there->id != 0 ? program_by_id(there->id) : std::nullopt;
    if (p && p->name == dispatcher_name) return detach_beside(device, ifindex);
    if (!p || p->name != ingress_program_name) return false;
    bpf_xdp_attach_opts only_this;
    clear(only_this);
    only_this.old_prog_fd = p->fd.get();
    if (const int e = bpf_xdp_detach(ifindex, there->mode_flag, &only_this); e != 0)
        return fail_bpf(e, device + ": taking off the XDP program");
    return true;
}

/// Returns the handle it had; 0 if it was not there.
result<std::uint32_t> detach_egress(const std::string& device, int ifindex) {
    const std::uint32_t handle = own_filter_handle(ifindex);
    if (handle == 0) return 0;
    const clsact_hook hook(ifindex);
    const own_filter filter(handle);
    if (const int e = bpf_tc_detach(&hook.it, &filter.it); e != 0)
        return fail_bpf(e, device + ": taking off the egress filter");
    return handle;
}

} // namespace

result<xdp_mode> attach_ingress(const std::string& device, int ifindex, int program,
                                xdp_wish wish) {
    const auto there = query_xdp(device, ifindex);
    if (!there) return tl::unexpected(there.error());
    const std::optional<bond> of_bond = as_bond(device);
    const std::vector<xdp_mode> modes = modes_to_try(wish, of_bond.has_value());
    if (there->id != 0) return replace_ingress(device, ifindex, program, *there, modes);
    int e = 0;
    for (const xdp_mode mode : modes) {
        e = bpf_xdp_attach(ifindex, program, flag_of(mode) | XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr);
        if (e == 0) return mode;
    }
    return fail_bpf(e, device + ": attaching the XDP program" +
                           (of_bond ? " to a bond of mode " + of_bond->mode : ""));
}

result<void> attach_egress(const std::string& device, int ifindex, int program) {
    clsact_hook hook(ifindex);
    own_filter filter(own_filter_handle(ifindex));
    filter.it.prog_fd = program;
    if (filter.it.handle != 0) {
        filter.it.flags = BPF_TC_F_REPLACE;
    } else {
        const int e = bpf_tc_hook_create(&hook.it);
        if (e != 0 && e != -EEXIST) return fail_bpf(e, device + ": adding the clsact qdisc");
        filter.it.handle = e == 0 ? filter_handle_own_qdisc : filter_handle;
    }
    const int e = bpf_tc_attach(&hook.it, &filter.it);
    if (e == -EEXIST)
        return fail(EBUSY, device + ": another egress filter has priority 1; move it behind with "
                                    "'tc filter ... prio 2'");
    if (e != 0) return fail_bpf(e, device + ": attaching the egress filter");
    return {};
}

bool has_dispatcher(int ifindex) noexcept {
    const auto there = query_xdp({}, ifindex);
    const auto p = there && there->id != 0 ? program_by_id(there->id) : std::nullopt;
    return p && p->name == dispatcher_name;
}

attachments find_attachments(int ifindex) noexcept {
    attachments found;
    const auto xdp = query_xdp({}, ifindex);
    const auto p = xdp && xdp->id != 0 ? program_by_id(xdp->id) : std::nullopt;
    found.ingress = p && (p->name == ingress_program_name ||
                          (p->name == dispatcher_name && is_beside(ifindex)));
    found.egress = own_filter_handle(ifindex) != 0;
    return found;
}

std::optional<xdp_mode> find_cover(int ifindex) noexcept {
    const auto xdp = query_xdp({}, ifindex);
    const auto p = xdp && xdp->id != 0 ? program_by_id(xdp->id) : std::nullopt;
    if (!p || p->name != ingress_program_name || own_filter_handle(ifindex) == 0) return {};
    return mode_of(xdp->mode_flag);
}

unique_fd find_sockets(int ifindex) noexcept {
    constexpr std::uint32_t most_maps = 64;
    const auto xdp = query_xdp({}, ifindex);
    const auto p = xdp && xdp->id != 0 ? program_by_id(xdp->id) : std::nullopt;
    if (!p || p->name != ingress_program_name) return {};
    std::array<std::uint32_t, most_maps> maps{};
    bpf_prog_info info{};
    std::uint32_t length = sizeof info;
    info.nr_map_ids = most_maps;
    info.map_ids = reinterpret_cast<std::uint64_t>(maps.data());
    if (bpf_obj_get_info_by_fd(p->fd.get(), &info, &length) != 0) return {};
    for (std::uint32_t i = 0; i < std::min(info.nr_map_ids, most_maps); ++i) {
        unique_fd map(bpf_map_get_fd_by_id(maps[i]));
        bpf_map_info what{};
        length = sizeof what;
        if (map.valid() && bpf_obj_get_info_by_fd(map.get(), &what, &length) == 0 &&
            what.type == BPF_MAP_TYPE_XSKMAP)
            return map;
    }
    return {};
}

result<attachments> detach(const std::string& device, int ifindex) {
    const auto ingress = detach_ingress(device, ifindex);
    if (!ingress) return tl::unexpected(ingress.error());
    const auto handle = detach_egress(device, ifindex);
    if (!handle) return tl::unexpected(handle.error());

    attachments gone{*ingress, *handle != 0, false};
    if (*handle == filter_handle_own_qdisc && clsact_is_empty(ifindex)) {
        clsact_hook both(ifindex, BPF_TC_INGRESS | BPF_TC_EGRESS);
        gone.qdisc = bpf_tc_hook_destroy(&both.it) == 0;
    }
    return gone;
}

} // namespace esplane::fastpath
