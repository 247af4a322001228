// SPDX-License-Identifier: Apache-2.0
#include "lib/control/announcer.h"

#include <algorithm>

namespace esplane::control {

void announcer::subscribe(ipsec::listener* l) {
    listeners_.push_back(l);
}

void announcer::unsubscribe(ipsec::listener* l) {
    std::erase(listeners_, l);
}

void announcer::announce(const ipsec::event& e) const {
    for (ipsec::listener* l : listeners_)
        l->on_event(e);
}

} // namespace esplane::control
