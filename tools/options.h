// SPDX-License-Identifier: Apache-2.0
//
// What esplaned was asked to do: the command line over the configuration file over the defaults.
//
// The file is TOML and uses the names of the command line: `run-dir`, `xfrm`, `workers`, `cpus`,
// `reserve`, `poll`, `punt-limit`, `mss-clamp`, `gcm-kernel`, `state`, `state-key`, and `port` and
// `filter`, arrays of the same texts.  An option on the command line replaces the file's.
//
// Does not: look at the machine.  Whether a device exists is found out when it is opened.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "fastpath/filter.h"
#include "fastpath/port.h"
#include "fastpath/punt.h"
#include "lib/base/result.h"
#include "lib/crypto/engine.h"
#include "tools/routing_options.h"
#include "tools/state_options.h"

namespace esplane::tools {

inline constexpr const char* default_run_dir = "/run/esplane";

/// NAME=KIND:DEVICE[,role=plain|secure|host][,OPTION=VALUE...]: further options are the kind's.  Of
/// dpdk they are the device's own, whatever they are called; a `role` that is none of the three is
/// the device's too (net_memif has one).
struct port_spec {
    std::string name;   ///< letters, digits, '-', '_', '.'; at most 32
    std::string kind;   ///< one of port_kinds
    std::string device; ///< as the kernel, or DPDK, has it
    fastpath::port_role role = fastpath::port_role::plain;
    std::vector<std::pair<std::string, std::string>> options; ///< the kind's, as given
    std::string text;                                         ///< as the user gave it: for errors
};

/// The kinds of port this build has, "xdp, dpdk" for one.
[[nodiscard]] std::string port_kinds();

/// Errors: EINVAL, with a line that names the port as given and says what to do.
[[nodiscard]] result<port_spec> parse_port(const std::string& text);

[[nodiscard]] std::string_view name_of(fastpath::port_role role) noexcept;

struct daemon_options {
    std::string run_dir = default_run_dir;
    bool serve_xfrm = true;
    bool strict_xfrm = true; ///< see xfrm::dispatcher::set_strict()
    unsigned workers = 1;
    bool always_poll = false;   ///< workers never sleep
    std::vector<unsigned> cpus; ///< one for each worker; empty: wherever the kernel puts them
    unsigned reserve = 0;       ///< SAs and policies: fastpath::reserve_memory()
    std::vector<port_spec> ports;
    std::string eal; ///< arguments for DPDK's EAL, with blanks between
    fastpath::punt_rates punts = fastpath::default_punt_rates; ///< of all workers together
    std::uint32_t mss_clamp = 0; ///< fastpath::mss_by_path, or bytes of an IP packet; 0: off
    crypto::engine_options crypto;
    std::vector<fastpath::filter_rule> filter;
    routing_options routing;
    state_options state;
    bool takeover = false; ///< from the daemon that runs there
};

/// The command line asked for text and nothing else: --help, --version.
struct text_answer {
    std::string text;
};

/// Errors: EINVAL and what reading the file gives; one line each.
[[nodiscard]] result<std::variant<daemon_options, text_answer>>
parse_daemon_options(int argc, const char* const* argv);

/// "ike=5000,other=100": a class that is not named keeps its default.  Errors: EINVAL.
[[nodiscard]] result<fastpath::punt_rates> parse_punt_limit(const std::string& text);

/// "on", "off", "1400" as daemon_options::mss_clamp.  Errors: EINVAL.
[[nodiscard]] result<std::uint32_t> parse_mss_clamp(const std::string& text);

/// "2,4-5" as {2, 4, 5}.  Errors: EINVAL.
[[nodiscard]] result<std::vector<unsigned>> parse_cpus(const std::string& text);

} // namespace esplane::tools
