// SPDX-License-Identifier: Apache-2.0
//
// Rule sets that policy lookup is measured and tested with, and flows that fall under them.
//
//   hub         one policy per site: the hub's network to the site's /26
//   acl         in the manner of ClassBench's access lists: 64 pairs of prefix lengths, ports none,
//               exact or as one of the masks that a range falls into, protocols, priorities at
//               random, address pairs that come again with other ports; several hundred shapes
//   host_pairs  a policy for each pair of hosts
//
// All addresses of the near side lie in 20.0.0.0/8, all of the far side in 30.0.0.0/8: no rule for
// one way covers a flow of the other.  The same arguments give the same rules and flows.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "lib/ipsec/policy.h"

namespace esplane::bench {

enum class rule_kind : std::uint8_t { hub, acl, host_pairs };
[[nodiscard]] std::string_view name_of(rule_kind k) noexcept;

/// Whose SAs the templates name: ESP in tunnel mode between two gateways.
struct rule_peers {
    ipsec::address near;
    ipsec::address far;
    std::uint32_t reqids = 1; ///< rule number n has reqid n % reqids + 1
};

/// `count` policies of direction `out`, each with a selector of its own, in no order of priority.
/// Of acl and host_pairs at most 1,000,000, of hub 262,144.
[[nodiscard]] std::vector<ipsec::policy> make_rules(rule_kind k, unsigned count,
                                                    const rule_peers& peers);

/// The policy of direction `dir` for what comes back: both ends change places.
[[nodiscard]] ipsec::policy reversed(const ipsec::policy& rule, ipsec::policy_direction dir);

/// Each is covered by a rule taken at random, and may be by others.
[[nodiscard]] std::vector<ipsec::flow> make_flows(std::span<const ipsec::policy> rules,
                                                  unsigned count, std::uint64_t seed = 1);

/// How many combinations of prefix lengths, port masks and protocol or none there are.
[[nodiscard]] std::size_t count_shapes(std::span<const ipsec::policy> rules);

} // namespace esplane::bench
