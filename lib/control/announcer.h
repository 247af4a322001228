// SPDX-License-Identifier: Apache-2.0
//
// Who hears of events.
#pragma once

#include <vector>

#include "lib/ipsec/event.h"

namespace esplane::control {

/// Tells listeners in order of subscription, on the thread that caused the event.
class announcer {
  public:
    void subscribe(ipsec::listener* l);
    void unsubscribe(ipsec::listener* l);
    void announce(const ipsec::event& e) const;

  private:
    std::vector<ipsec::listener*> listeners_;
};

} // namespace esplane::control
