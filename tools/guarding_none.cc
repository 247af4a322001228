// SPDX-License-Identifier: Apache-2.0
//
// guarding in a build without AF_XDP: there are no programs, and so nothing to keep in step.  What
// stays closed is the path itself.
#include "tools/guarding.h"

#include <utility>

#include "tools/opening.h"

namespace esplane::tools {

guarding::guarding(std::vector<fastpath::guard*>, log) {}

void guarding::stay_closed(std::function<void()> opened) {
    closed_ = true;
    opened_ = std::move(opened);
}

void guarding::on_event(const ipsec::event& e) {
    if (closed_ && opens(e)) open();
}

void guarding::open() {
    closed_ = false;
    opened_();
}

void guarding::begin() {}
void guarding::set_network(const control::network&) {}
void guarding::set_encap_ports(const std::vector<wire::be16>&) {}

} // namespace esplane::tools
