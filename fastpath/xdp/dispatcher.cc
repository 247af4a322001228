// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/dispatcher.h"

#include <memory>
#include <string_view>
#include <vector>

#include <xdp/libxdp.h>

#include "fastpath/xdp/attachment.h"
#include "fastpath/xdp/bpf.h"

namespace esplane::fastpath {

namespace {

constexpr unsigned first_of_all = 1;
constexpr char ingress_section[] = "xdp.frags";

struct closer {
    void operator()(xdp_multiprog* p) const noexcept { xdp_multiprog__close(p); }
    void operator()(xdp_program* p) const noexcept { xdp_program__close(p); }
};
using multiprog = std::unique_ptr<xdp_multiprog, closer>;
using owned_program = std::unique_ptr<xdp_program, closer>;

/// The dispatcher on a device; nullptr where there is none that libxdp knows.
multiprog dispatcher_on(int ifindex) {
    xdp_multiprog* const found = xdp_multiprog__get_from_ifindex(ifindex);
    if (libxdp_get_error(found) != 0) return nullptr;
    multiprog m(found);
    return xdp_multiprog__is_legacy(m.get()) ? nullptr : std::move(m);
}

bool is_ours(const xdp_program* p) {
    return std::string_view(xdp_program__name(p)) == ingress_program_name;
}

/// Its programs, which are the dispatcher's: valid as long as it.
std::vector<xdp_program*> programs_of(const multiprog& m) {
    std::vector<xdp_program*> all;
    for (xdp_program* p = nullptr; (p = xdp_multiprog__next_prog(p, m.get())) != nullptr;)
        all.push_back(p);
    return all;
}

std::string names_of_others(const multiprog& m) {
    std::string names;
    for (const xdp_program* p : programs_of(m))
        if (!is_ours(p)) names += std::string(names.empty() ? "" : ", ") + xdp_program__name(p);
    return names.empty() ? "unknown" : names;
}

tl::unexpected<error> fail_beside(const std::string& device, const std::string& others,
                                  const std::string& why) {
    return fail(EBUSY, device + ": other XDP programs (" + others +
                           ") are attached by libxdp's dispatcher, which does not take one more (" +
                           why + "); take them off with 'xdp-loader unload " + device +
                           " --all', or use another device");
}

std::string text_of(int code) {
    return fail_bpf(code, "freplace").value().text;
}

result<void> detach_all(const std::vector<xdp_program*>& programs, int ifindex,
                        xdp_attach_mode mode, const std::string& device) {
    for (xdp_program* p : programs)
        if (const int e = xdp_program__detach(p, ifindex, mode, 0); e != 0)
            return fail_bpf(e, device + ": taking the XDP program out of the dispatcher");
    return {};
}

std::vector<xdp_program*> ours_of(const multiprog& m) {
    std::vector<xdp_program*> ours = programs_of(m);
    std::erase_if(ours, [](const xdp_program* p) { return !is_ours(p); });
    return ours;
}

} // namespace

result<xdp_mode> attach_beside(const std::string& device, int ifindex, bpf_object* object) {
    const multiprog before = dispatcher_on(ifindex);
    if (!before) return fail_beside(device, "unknown", "it is not one of libxdp's");
    const std::string others = names_of_others(before);
    const xdp_attach_mode mode = xdp_multiprog__attach_mode(before.get());
    xdp_program* const opened = xdp_program__from_bpf_obj(object, ingress_section);
    if (const long e = libxdp_get_error(opened); e != 0)
        return fail_beside(device, others, text_of(static_cast<int>(e)));
    const owned_program ours(opened);
    int e = xdp_program__set_run_prio(ours.get(), first_of_all);
    if (e == 0) e = xdp_program__attach(ours.get(), ifindex, mode, 0);
    if (e != 0) return fail_beside(device, others, text_of(e));
    if (auto gone = detach_all(ours_of(before), ifindex, mode, device); !gone)
        return tl::unexpected(gone.error());
    // libxdp may have put the program in the place of all others, which no guard may do silently.
    if (!is_beside(ifindex)) return fail_beside(device, others, "it is not among its programs");
    return mode == XDP_MODE_SKB ? xdp_mode::generic : xdp_mode::native;
}

bool is_beside(int ifindex) noexcept {
    const multiprog m = dispatcher_on(ifindex);
    return m && !ours_of(m).empty();
}

result<bool> detach_beside(const std::string& device, int ifindex) {
    const multiprog m = dispatcher_on(ifindex);
    if (!m) return false;
    const auto ours = ours_of(m);
    const auto gone = detach_all(ours, ifindex, xdp_multiprog__attach_mode(m.get()), device);
    if (!gone) return tl::unexpected(gone.error());
    return !ours.empty();
}

} // namespace esplane::fastpath
