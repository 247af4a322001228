// SPDX-License-Identifier: Apache-2.0
//
// The XFRM server's dispatch on the real control layer: any bytes a client may send, in any order.
//
// Input: a byte of client options, then datagrams, each behind its length (two bytes, host order).
// After each the path tells of a packet that nothing carries, and of a peer behind another mapping.
// Held to be true of every reply: messages fill it, lengths are aligned, it carries the client's
// port id; of a dump: charon's buffer takes each datagram, and it shows what is there.
#include <algorithm>
#include <cstdint>
#include <optional>

#include "tests/fuzz/require.h"
#include "tests/unit/lib/fake_backend.h"
#include "xfrm/dispatch.h"
#include "xfrm/events.h"

namespace {

using namespace esplane;
using namespace esplane::xfrm;

constexpr std::uint32_t port_id = 4711;

std::size_t check_messages(const datagram& d, bool event) {
    std::size_t count = 0, covered = 0;
    bytes rest = d;
    while (const auto m = next_message(rest)) {
        covered += aligned(m->header.nlmsg_len);
        if (m->header.nlmsg_type != XFRM_MSG_NEWAE) // which has the request's, as in the kernel
            REQUIRE(event || m->header.nlmsg_pid == port_id);
        ++count;
    }
    REQUIRE(covered == d.size());
    return count;
}

class session final : private ipsec::listener, private reply_sink {
  public:
    session() {
        layer_.subscribe(this);
        layer_.answer_acquires(this, true);
    }
    ~session() override { layer_.unsubscribe(this); }

    void options(std::uint8_t bits) {
        client_.port_id = port_id;
        client_.capped_acks = (bits & 1) != 0;
        client_.extended_acks = (bits & 2) != 0;
        finish_dumps_ = (bits & 4) != 0;
    }
    void request(bytes d) {
        dispatcher_.request(d, client_, now_, *this);
        while (finish_dumps_ && client_.dump)
            continue_dump();
        let_path_speak();
        now_.monotonic_ns += 500'000'000;
        ++now_.realtime_s;
        layer_.tick(now_);
    }
    /// What a client would see at the end is what control has.
    void check_whole() {
        while (client_.dump)
            continue_dump();
        client_.dump.emplace();
        std::size_t shown = 0;
        while (client_.dump)
            shown += continue_dump();
        REQUIRE(shown == layer_.sa_count() + 1); // and the end
    }

  private:
    std::size_t continue_dump() {
        const datagram d = dispatcher_.continue_dump(client_);
        REQUIRE(d.size() <= max_dump_datagram);
        REQUIRE(!d.empty());
        return check_messages(d, false);
    }
    void let_path_speak() {
        if (trap_) {
            ipsec::flow f;
            f.source = trap_->sel.source;
            f.destination = trap_->sel.destination;
            backend_.listener->on_sa_wanted(trap_->index, f, std::nullopt);
        }
        if (behind_nat_)
            backend_.listener->on_mapping(*behind_nat_, behind_nat_->destination, wire::be16(4501));
    }
    void on_event(const ipsec::event& e) override {
        if (const auto* p = std::get_if<ipsec::policy_added>(&e)) trap_ = p->what;
        if (const auto* s = std::get_if<ipsec::sa_added>(&e); s != nullptr && s->what.encap)
            behind_nat_ = s->what.id;
        datagram d;
        REQUIRE(encode_event(e, d) != 0);
        REQUIRE(check_messages(d, true) == 1);
    }
    void reply(datagram&& d) override { check_messages(d, false); }

    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 3); }};
    dispatcher dispatcher_{layer_};
    client_state client_;
    moment now_{1'000'000'000, 1'700'000'000};
    bool finish_dumps_ = false;
    std::optional<ipsec::policy> trap_;
    std::optional<ipsec::sa_id> behind_nat_;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    bytes rest(data, size);
    if (rest.empty()) return 0;
    session s;
    s.options(rest[0]);
    rest = rest.subspan(1);
    while (const auto length = read_fixed<std::uint16_t>(rest)) {
        rest = rest.subspan(sizeof *length);
        const bytes d = rest.first(std::min<std::size_t>(*length, rest.size()));
        s.request(d);
        rest = rest.subspan(d.size());
    }
    s.check_whole();
    return 0;
}
