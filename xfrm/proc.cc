// SPDX-License-Identifier: Apache-2.0
#include "xfrm/proc.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>

namespace esplane::xfrm {

namespace {

using control::sysctls;

constexpr std::array<std::string_view, stat_line_count> line_names = {
    "XfrmInError",
    "XfrmInBufferError",
    "XfrmInHdrError",
    "XfrmInNoStates",
    "XfrmInStateProtoError",
    "XfrmInStateModeError",
    "XfrmInStateSeqError",
    "XfrmInStateExpired",
    "XfrmInStateMismatch",
    "XfrmInStateInvalid",
    "XfrmInTmplMismatch",
    "XfrmInNoPols",
    "XfrmInPolBlock",
    "XfrmInPolError",
    "XfrmOutError",
    "XfrmOutBundleGenError",
    "XfrmOutBundleCheckError",
    "XfrmOutNoStates",
    "XfrmOutStateProtoError",
    "XfrmOutStateModeError",
    "XfrmOutStateSeqError",
    "XfrmOutStateExpired",
    "XfrmOutPolBlock",
    "XfrmOutPolDead",
    "XfrmOutPolError",
    "XfrmFwdHdrError",
    "XfrmOutStateInvalid",
    "XfrmAcquireError",
    "XfrmOutStateDirError",
    "XfrmInStateDirError",
    "XfrmInIptfsError",
    "XfrmOutNoQueueSpace",
};

constexpr std::string_view stat_file = "xfrm_stat";

constexpr std::array<std::string_view, 4> sysctl_files = {
    "xfrm_acq_expires",
    "xfrm_aevent_etime",
    "xfrm_aevent_rseqth",
    "xfrm_larval_drop",
};
constexpr std::array<std::uint32_t sysctls::*, 4> sysctl_fields = {
    &sysctls::acq_expires,
    &sysctls::aevent_etime,
    &sysctls::aevent_rseqth,
    &sysctls::larval_drop,
};
/// As the kernel keeps them: an int or an unsigned one.
constexpr std::array<std::uint32_t, 4> sysctl_most = {INT_MAX, UINT_MAX, UINT_MAX, INT_MAX};
/// The kernel drops by default what has no SA; here it waits.
constexpr std::size_t larval_drop = 3;

/// proc_dointvec and proc_douintvec: the first number, decimal, 0x or 0; but nothing below 0.
std::optional<std::uint32_t> number_of(std::string_view text, std::uint32_t most) {
    constexpr std::string_view space = " \t\n\v\f\r";
    const std::size_t first = text.find_first_not_of(space);
    if (first == std::string_view::npos || text[first] < '0' || text[first] > '9')
        return std::nullopt;
    const std::string digits(text.substr(first));
    char* end = nullptr;
    errno = 0;
    const unsigned long value = std::strtoul(digits.c_str(), &end, 0);
    if (errno != 0 || (*end != 0 && space.find(*end) == space.npos) || value > most)
        return std::nullopt;
    return static_cast<std::uint32_t>(value);
}

} // namespace

std::string_view name_of(stat_line line) noexcept {
    return line_names[static_cast<std::size_t>(line)];
}

std::string xfrm_stat_text(const xfrm_counters& counted) {
    std::string text;
    for (std::size_t i = 0; i < stat_line_count; ++i) {
        std::array<char, 64> line{};
        std::snprintf(line.data(), line.size(), "%-24s\t%llu\n", line_names[i].data(),
                      static_cast<unsigned long long>(counted.lines[i]));
        text += line.data();
    }
    return text;
}

proc_files::proc_files(control::layer& l, kernel_source kernel, counter_source count)
    : layer_(l)
    , kernel_(std::move(kernel))
    , count_(std::move(count)) {}

std::span<const std::string_view> proc_files::sysctl_names() noexcept {
    return sysctl_files;
}

std::optional<std::size_t> proc_files::index_of(std::string_view name) noexcept {
    const auto at = std::ranges::find(sysctl_files, name);
    if (at == sysctl_files.end()) return std::nullopt;
    return static_cast<std::size_t>(at - sysctl_files.begin());
}

result<std::string> proc_files::read(std::string_view name) {
    if (name == stat_file) return xfrm_stat_text(count_());
    const auto index = index_of(name);
    if (!index) return fail(ENOENT, std::string(name) + ": no such file of XFRM");
    read_kernel();
    return std::to_string(layer_.current_sysctls().*sysctl_fields[*index]) + "\n";
}

result<void> proc_files::write(std::string_view name, std::string_view text) {
    if (name == stat_file) return fail(EACCES, "xfrm_stat can only be read");
    const auto index = index_of(name);
    if (!index) return fail(ENOENT, std::string(name) + ": no such sysctl of XFRM");
    const auto value = number_of(text, sysctl_most[*index]);
    if (!value)
        return fail(EINVAL, std::string(name) + ": must be a number from 0 to " +
                                std::to_string(sysctl_most[*index]));
    sysctls all = layer_.current_sysctls();
    all.*sysctl_fields[*index] = *value;
    written_[*index] = true;
    layer_.set_sysctls(all);
    return {};
}

void proc_files::follow_kernel(moment now) {
    if (now.monotonic_ns < follow_at_ns_) return;
    follow_at_ns_ = now.monotonic_ns + 5'000'000;
    read_kernel();
}

void proc_files::read_kernel() {
    sysctls all = layer_.current_sysctls();
    for (std::size_t i = 0; i < sysctl_files.size(); ++i) {
        if (written_[i] || i == larval_drop) continue;
        const auto text = kernel_(sysctl_files[i]);
        const auto value = text ? number_of(*text, sysctl_most[i]) : std::nullopt;
        all.*sysctl_fields[i] = value.value_or(sysctls().*sysctl_fields[i]);
    }
    layer_.set_sysctls(all);
}

} // namespace esplane::xfrm
