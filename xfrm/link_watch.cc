// SPDX-License-Identifier: Apache-2.0
#include "xfrm/link_watch.h"

#include <array>

#include <linux/rtnetlink.h>

namespace esplane::xfrm {

namespace {

constexpr int event_bytes = 1 << 20;
/// Datagrams that one call takes; the next one takes the rest.
constexpr int most_events = 1024;
constexpr std::array<unsigned, 1> groups{RTNLGRP_LINK};

} // namespace

result<link_watch> link_watch::open() {
    auto events = route_socket::open(event_bytes);
    if (!events) return tl::unexpected(events.error());
    if (auto r = events->follow(groups); !r) return tl::unexpected(std::move(r.error()));
    return link_watch(std::move(*events));
}

bool link_watch::changed() {
    bool any = false;
    for (int i = 0; i < most_events; ++i) {
        const auto bytes = events_.receive(false);
        if (bytes && bytes->empty()) break;
        any = true;
    }
    return any;
}

} // namespace esplane::xfrm
