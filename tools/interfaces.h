// SPDX-License-Identifier: Apache-2.0
//
// The interfaces of tunnels by route: what `esplane interface` makes, shows and takes away.
//
// Each is a persistent TUN device, recorded in the run directory beside the guarded devices: it
// stays when the daemon dies, so that its routes do not fall back on others, and the next daemon
// takes it up again.  `esplane release` takes it away.
// Threads: control.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "fastpath/port_tun.h"
#include "lib/base/result.h"
#include "tools/run_dir.h"

namespace esplane::tools {

class interfaces {
  public:
    using log = std::function<void(const std::string& line)>;

    /// What ESP of any suite makes of it, in UDP or over IPv6, fits in 1500 bytes.
    static constexpr std::uint32_t default_mtu = 1400;

    /// changed   called when another device stands for an if_id.  `port` outlives this.
    interfaces(fastpath::tun_port& port, std::string run_dir, std::function<void()> changed, log l);

    /// Takes up what an earlier daemon has recorded, and logs what of it cannot be: that stays in
    /// the record, for the next daemon and `esplane release`.
    /// Errors: a record that cannot be read.
    [[nodiscard]] result<void> adopt();

    /// Errors: EINVAL, EEXIST for an if_id or a name that is taken; those of tun::make; what
    /// writing the record gives.
    [[nodiscard]] result<void> add(const std::string& name, std::uint32_t if_id, std::uint32_t mtu);
    /// The device, its addresses and its routes are gone then.  Errors: ENOENT.
    [[nodiscard]] result<void> remove(const std::string& name);
    /// To be called when the kernel told of a change of its links: forgets devices that are gone.
    void tend();

    /// Which device stands for which if_id.
    [[nodiscard]] std::vector<fastpath::tunnel_binding> bindings() const;

    /// Whether a request is for answer().
    [[nodiscard]] static bool knows(const nlohmann::json& request);
    /// {"command": "interfaces", "cursor": if_id}, "interface_add" ("name", "if_id", "mtu") and
    /// "interface_del" ("name"); {"error": ...} for what fails.
    [[nodiscard]] nlohmann::json answer(const nlohmann::json& request);

  private:
    [[nodiscard]] result<void> record() const;
    [[nodiscard]] result<void> check_if_id(std::uint32_t if_id) const;
    void forget(std::uint32_t if_id);
    [[nodiscard]] nlohmann::json report(std::uint32_t from) const;

    fastpath::tun_port& port_;
    std::string run_dir_;
    std::function<void()> changed_;
    log log_;
    std::map<std::uint32_t, int> devices_;
    std::vector<guarded_device> left_; ///< recorded, and not taken up
};

/// A request from what a user typed behind `esplane interface`: "add NAME if_id N [mtu M]" or
/// "del NAME".  Errors: EINVAL.
[[nodiscard]] result<nlohmann::json> parse_interface_request(const std::string& action,
                                                             const std::vector<std::string>& words);

} // namespace esplane::tools
