// SPDX-License-Identifier: Apache-2.0
//
// What clients read and write as files under /proc: the packets lost (/proc/net/xfrm_stat) and the
// sysctls net.core.xfrm_*, by the kernel's names, in its format and with its errors.
//
// What a client reads is what the control layer uses.  A sysctl that nobody has written here has
// the kernel's own value, so that one set by `sysctl -w` counts; but for xfrm_larval_drop, which
// begins with 0: packets wait for the SA that their ACQUIRE asks for.
//
// Threads: control's.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/base/result.h"
#include "lib/control/layer.h"

namespace esplane::xfrm {

/// The lines of /proc/net/xfrm_stat in their order: LINUX_MIB_XFRM* of Linux 6.18.
enum class stat_line : std::uint8_t {
    in_error,
    in_buffer_error,
    in_header_error,
    in_no_states,
    in_state_proto_error,
    in_state_mode_error,
    in_state_seq_error,
    in_state_expired,
    in_state_mismatch,
    in_state_invalid,
    in_template_mismatch,
    in_no_policies,
    in_policy_block,
    in_policy_error,
    out_error,
    out_bundle_gen_error,
    out_bundle_check_error,
    out_no_states,
    out_state_proto_error,
    out_state_mode_error,
    out_state_seq_error,
    out_state_expired,
    out_policy_block,
    out_policy_dead,
    out_policy_error,
    forward_header_error,
    out_state_invalid,
    acquire_error,
    out_state_direction_error,
    in_state_direction_error,
    in_iptfs_error,
    out_no_queue_space,
    count_,
};

inline constexpr std::size_t stat_line_count = static_cast<std::size_t>(stat_line::count_);

/// The kernel's name: "XfrmInNoStates".
[[nodiscard]] std::string_view name_of(stat_line line) noexcept;

struct xfrm_counters {
    std::array<std::uint64_t, stat_line_count> lines{};

    [[nodiscard]] std::uint64_t& operator[](stat_line l) noexcept {
        return lines[static_cast<std::size_t>(l)];
    }
    [[nodiscard]] std::uint64_t operator[](stat_line l) const noexcept {
        return lines[static_cast<std::size_t>(l)];
    }
};

/// The whole file.
[[nodiscard]] std::string xfrm_stat_text(const xfrm_counters& counted);

class proc_files {
  public:
    /// The text of the kernel's own file; nullopt where it has none of that name.
    using kernel_source = std::function<std::optional<std::string>(std::string_view name)>;
    using counter_source = std::function<xfrm_counters()>;

    /// `l` outlives the files.
    proc_files(control::layer& l, kernel_source kernel, counter_source count);

    /// The names of the sysctls, as files are called.
    [[nodiscard]] static std::span<const std::string_view> sysctl_names() noexcept;

    /// What a read of the file gives.  Errors: ENOENT.
    [[nodiscard]] result<std::string> read(std::string_view name);
    /// Sets a sysctl, for as long as the daemon runs.  Errors: ENOENT; EACCES (not to be written);
    /// EINVAL (not a number that it may have).
    [[nodiscard]] result<void> write(std::string_view name, std::string_view text);

    /// Takes in what has changed in the kernel, 200 times a second at most.
    void follow_kernel(moment now);

  private:
    void read_kernel();
    [[nodiscard]] static std::optional<std::size_t> index_of(std::string_view name) noexcept;

    control::layer& layer_;
    kernel_source kernel_;
    counter_source count_;
    std::array<bool, 4> written_{}; ///< by index: by a client
    std::uint64_t follow_at_ns_ = 0;
};

} // namespace esplane::xfrm
