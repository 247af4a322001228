// SPDX-License-Identifier: Apache-2.0
//
// In the place of rte_ipsec.cc where this build has no DPDK.
#include "bench/contest.h"

namespace esplane::bench {

std::unique_ptr<contender> librte_ipsec(std::shared_ptr<const traffic>, rte_device, rte_manner) {
    return nullptr;
}

} // namespace esplane::bench
