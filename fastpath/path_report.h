// SPDX-License-Identifier: Apache-2.0
//
// What routers say of ESP that was too long for them: ICMP "fragmentation needed" (RFC 1191) and
// "packet too big" (RFC 8201), as RFC 4301 section 8.2 has it.
//
// Nobody authenticates such a message.  It is told to control where its checksum is right and the
// packet it quotes is ESP, or ESP in UDP, from the address that it was sent to; control believes it
// where an SA of that SPI and those addresses is there.  So many a second; the message itself goes
// the way of everything else for the machine.
//
// Does not: guess where a router names no MTU, or quotes too little for an SPI.
#pragma once

#include "fastpath/stage.h"

namespace esplane::fastpath {

/// A parsed ICMP packet in clear for the machine.
void hear_path_report(stage& s, const packet& p) noexcept;

} // namespace esplane::fastpath
