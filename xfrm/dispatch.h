// SPDX-License-Identifier: Apache-2.0
//
// What the XFRM server does with a request: netlink bytes in, calls on the control layer, netlink
// bytes out.  Knows no socket: a test, a fuzzer and the server drive it alike.
//
// The rules of netlink_rcv_skb and xfrm_user_rcv_msg are kept: what gets an ACK, what an error
// carries, that an error in one message of a datagram does not stop the next.
#pragma once

#include <cstdint>
#include <optional>

#include "lib/base/clock.h"
#include "lib/control/layer.h"
#include "xfrm/message.h"
#include "xfrm/sa_codec.h"

namespace esplane::xfrm {

/// The longest datagram of a dump.  charon's buffer is 4096 bytes, and it waits for ever for the
/// end of a dump of which it could not read a part.
inline constexpr std::size_t max_dump_datagram = 3700;

/// A dump that was begun and not yet read to its end.
struct running_dump {
    bool policies = false; ///< else SAs
    std::uint32_t sequence = 0;
    sa_filter filter;
    control::cursor at;
    error end{0, {}, {}};                    ///< what NLMSG_DONE says; code 0: all is well
    std::optional<std::uint32_t> end_offset; ///< where the fault is in the request
};

/// What must be known of who asks.
struct client_state {
    std::uint32_t port_id = 0;  ///< nlmsg_pid of replies
    bool capped_acks = false;   ///< NETLINK_CAP_ACK
    bool extended_acks = false; ///< NETLINK_EXT_ACK
    std::optional<running_dump> dump;
};

/// Takes datagrams for the client that asked, in order.
class reply_sink {
  public:
    virtual ~reply_sink() = default;
    virtual void reply(datagram&& d) = 0;
};

class dispatcher {
  public:
    /// `l` outlives the dispatcher.
    explicit dispatcher(control::layer& l)
        : layer_(l) {}

    /// What becomes of attributes that mean nothing to the kernel: refused by name (true, as at
    /// first), or passed over as it does.  Those that esplane knows and does not carry are refused
    /// in any case.
    void set_strict(bool strict) noexcept { strict_ = strict; }

    /// Carries out all messages of one datagram.  Events come from the layer before the reply to
    /// the message that caused them.  Of a dump only the first datagram is written.
    void request(bytes datagram_in, client_state& who, moment now, reply_sink& out);

    /// The next datagram of the client's dump; the one with NLMSG_DONE ends it.
    [[nodiscard]] datagram continue_dump(client_state& who);

  private:
    control::layer& layer_;
    bool strict_ = true;
};

} // namespace esplane::xfrm
