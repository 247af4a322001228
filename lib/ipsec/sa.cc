// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/sa.h"

namespace esplane::ipsec {

sa sa::clone() const {
    sa copy;
    copy.id = id;
    copy.source = source;
    copy.sel = sel;
    copy.run_mode = run_mode;
    copy.reqid = reqid;
    copy.if_id = if_id;
    copy.seq = seq;
    copy.output_mark = output_mark;
    copy.flags = flags;
    copy.extra_flags = extra_flags;
    copy.dir = dir;
    copy.state = state;
    copy.dying = dying;
    copy.algs = algs.clone();
    copy.encap = encap;
    copy.mapping_threshold = mapping_threshold;
    copy.nat_keepalive = nat_keepalive;
    copy.care_of = care_of;
    copy.security = security;
    copy.pcpu = pcpu;
    copy.tfc_pad = tfc_pad;
    copy.replay_window = replay_window;
    copy.replay_esn_form = replay_esn_form;
    copy.replay = replay;
    copy.replay_threshold = replay_threshold;
    copy.replay_timer = replay_timer;
    copy.limits = limits;
    copy.current = current;
    copy.last_used = last_used;
    copy.statistics = statistics;
    return copy;
}

} // namespace esplane::ipsec
