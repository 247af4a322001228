// SPDX-License-Identifier: Apache-2.0
//
// guarding in a build without AF_XDP: there are no programs, and so nothing to keep in step.
#include "tools/guarding.h"

namespace esplane::tools {

guarding::guarding(std::vector<fastpath::guard*>, log) {}

void guarding::stay_closed(std::function<void()>) {}
void guarding::begin() {}
void guarding::on_event(const ipsec::event&) {}
void guarding::set_network(const control::network&) {}
void guarding::set_encap_ports(const std::vector<wire::be16>&) {}

} // namespace esplane::tools
