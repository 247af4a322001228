// SPDX-License-Identifier: Apache-2.0
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>

#include "xfrm/server_state.h"

namespace esplane::xfrm {
namespace {

std::string_view text_of(bytes b) {
    return {reinterpret_cast<const char*>(b.data()), b.size()};
}

} // namespace

/// Replies to one request, until its deadline.
class server::state::answers final : public reply_sink {
  public:
    /// keeps   the first reply is held back: it may be the only one
    answers(state& s, client& c, std::uint64_t deadline_ns, bool keeps)
        : state_(s)
        , client_(c)
        , deadline_ns_(deadline_ns)
        , keeps_(keeps) {}

    [[nodiscard]] bool expired() const { return state_.clock_().monotonic_ns > deadline_ns_; }
    /// Something was not sent because the deadline had passed.
    [[nodiscard]] bool late() const noexcept { return late_; }
    /// Something was not sent, for that or for lack of room.
    [[nodiscard]] bool lost() const noexcept { return lost_; }

    void reply(datagram&& d) override {
        state_.show(traced::direction::reply, d, client_);
        late_ = late_ || expired();
        if (late_) return lose();
        if (keeps_) {
            keeps_ = false;
            kept_ = std::move(d);
            return;
        }
        send_kept();
        send(std::move(d));
    }
    /// The only reply, where it was held back, is short enough, and nothing is to follow it on the
    /// socket; else it is sent, and this is empty.
    [[nodiscard]] datagram take_kept() {
        if (late_ || client_.state.dump || kept_.size() > SHIM_SLATE_ROOM) send_kept();
        return std::exchange(kept_, {});
    }

  private:
    void send_kept() {
        if (!kept_.empty()) send(std::exchange(kept_, {}));
    }
    void send(datagram&& d) {
        if (!client_.send_or_keep(std::move(d))) lose();
    }
    void lose() {
        lost_ = true;
        ++state_.counters_.replies_lost;
    }

    state& state_;
    client& client_;
    std::uint64_t deadline_ns_;
    bool keeps_;
    datagram kept_;
    bool late_ = false;
    bool lost_ = false;
};

// The data socket

void server::state::serve_data(std::uint64_t number, client& c, std::uint32_t events) {
    c.flush();
    send_dump(c);
    bool alive = (events & (EPOLLHUP | EPOLLERR)) == 0;
    for (int i = 0; alive && i < turn && c.waiting.empty(); ++i) {
        const reading r = read_data(number, c);
        if (r == reading::nothing) break;
        alive = r == reading::taken;
    }
    if (!alive) return disconnect(number);
    serve_slates(number, c);
    update_interest(number, c);
}

server::state::reading server::state::read_data(std::uint64_t number, client& c) {
    passed_datagram r = receive_with_descriptor(c.data.get(), buffer_, MSG_DONTWAIT);
    if (r.length < 0) return errno == EAGAIN || errno == EINTR ? reading::nothing : reading::broken;
    if (r.length == 0) return reading::broken; // it closed its socket
    const auto length = static_cast<std::size_t>(r.length);
    const reading done = take(number, c, std::move(r));
    wipe(buffer_.data(), length); // it may have held keys
    counters_.broken_clients += done == reading::broken ? 1 : 0;
    return done;
}

/// Acts on one datagram.  broken: it is not of the shim's protocol.
server::state::reading server::state::take(std::uint64_t number, client& c, passed_datagram&& r) {
    const bytes all(buffer_.data(), static_cast<std::size_t>(r.length));
    const auto header = read_fixed<shim_header>(all);
    if (!header || r.truncated || header->magic != SHIM_MAGIC || header->version != SHIM_VERSION)
        return reading::broken;
    const bytes body = all.subspan(sizeof *header);
    if (header->kind == shim_open && r.passed.valid())
        return open_data(number, c, std::move(r.passed), body);
    if (header->kind == shim_attach && r.passed.valid())
        return attach(number, c, std::move(r.passed)) ? reading::taken : reading::broken;
    if (header->kind == shim_share && r.passed.valid())
        return share(c, *header, r.passed) ? reading::taken : reading::broken;
    if (header->kind == shim_bell) { // serve_slates() does the rest
        wake_for(number, c, header->channel);
        return reading::taken;
    }
    if (header->kind == shim_read || header->kind == shim_write)
        return file(c, *header, text_of(body)) ? reading::taken : reading::broken;
    if (header->kind != shim_request) return reading::broken;
    request(c, *header, body);
    return reading::taken;
}

struct server::state::outcome {
    bool answered = false; ///< else the client's send fails by itself
    std::uint32_t status = 0;
    datagram reply; ///< where it was kept
};

server::state::outcome server::state::carry_out(client& c, const shim_header& h, bytes messages,
                                                bool keeps_reply) {
    ++counters_.requests;
    answers out(*this, c, h.deadline_ns, keeps_reply);
    if (out.expired()) {
        ++counters_.replies_lost;
        return {};
    }
    if (c.state.port_id == 0) {
        c.state.port_id = free_port(c.pid);
        ++c.edition;
    }
    show(traced::direction::request, messages, c);
    dispatcher_.request(messages, c.state, clock_(), out);
    if (out.lost()) c.state.dump.reset(); // its first part may be what was lost
    if (out.late()) return {};
    datagram kept = out.take_kept();
    return {true, out.lost() ? ENOBUFS : 0u, std::move(kept)};
}

void server::state::request(client& c, const shim_header& h, bytes messages) {
    if (c.find_side(h.channel) == nullptr) return; // asked of a server before, or given up
    const outcome done = carry_out(c, h, messages, false);
    const side_channel* const side = c.find_side(h.channel);
    if (done.answered && side != nullptr) tell(c, *side, shim_done, h.id, done.status);
}

// Slates

/// From now on the slate is looked at until nothing was asked for a while.
void server::state::wake_for(std::uint64_t number, client& c, std::uint32_t channel) {
    side_channel* const side = c.find_side(channel);
    const std::pair entry(number, channel);
    if (side == nullptr || !side->board.valid() || std::ranges::count(hot_, entry) != 0) return;
    side->board.stay_awake(true);
    hot_.push_back(entry);
}

void server::state::serve_slates(std::uint64_t number, client& c) {
    for (std::size_t i = 0; i < c.sides.size(); ++i)
        (void)serve_slate(number, c, c.sides[i].number);
}

/// Says whether there was a request.
bool server::state::serve_slate(std::uint64_t number, client& c, std::uint32_t channel) {
    side_channel* const side = c.find_side(channel);
    slate::request r{};
    if (side == nullptr || !side->board.valid() || !c.waiting.empty() ||
        !side->board.take(r, buffer_))
        return false;
    const bytes messages(buffer_.data(), r.length);
    outcome done = carry_out(c, r.header, messages, r.takes_reply && c.groups == 0);
    wipe(buffer_.data(), r.length); // it may have held keys
    if (!done.answered) done.status = ENOBUFS;
    const shim_answer a = answer_of(c, channel, shim_done, r.header.id, done.status);
    if (side->board.answer(a, done.reply)) tell(c, *side, shim_done, r.header.id, done.status);
    update_interest(number, c);
    return true;
}

/// A read or a write of a file.  False: it is not of the shim's protocol.
bool server::state::file(client& c, const shim_header& h, std::string_view what) {
    const bool writes = h.kind == shim_write;
    const std::size_t end = writes ? what.find('\0') : what.size();
    if (end == std::string_view::npos || what.size() > SHIM_TEXT_MAX) return false;
    const std::string_view name = what.substr(0, end);
    result<std::string> text = fail(ENOENT);
    if (files_ != nullptr && writes)
        text = files_->write(name, what.substr(end + 1)).map([] { return std::string(); });
    else if (files_ != nullptr)
        text = files_->read(name);
    const shim_text head{SHIM_MAGIC, SHIM_VERSION, h.kind, h.id,
                         text ? 0 : static_cast<std::uint32_t>(text.error().code)};
    datagram d(sizeof head);
    std::memcpy(d.data(), &head, sizeof head);
    if (text) d.insert(d.end(), text->begin(), text->end());
    if (!c.send_or_keep(std::move(d))) ++counters_.replies_lost;
    return true;
}

void server::state::send_dump(client& c) {
    for (int i = 0; i < turn && c.state.dump && c.waiting.empty(); ++i) {
        datagram d = dispatcher_.continue_dump(c.state);
        show(traced::direction::reply, d, c);
        c.send_or_keep(std::move(d));
    }
}

void server::state::update_interest(std::uint64_t number, client& c) {
    std::uint32_t wanted = 0;
    if (c.waiting.empty()) wanted |= EPOLLIN;
    if (!c.waiting.empty() || c.state.dump || c.has_lost()) wanted |= EPOLLOUT;
    if (wanted == c.interest) return;
    if (watch(epoll_.get(), EPOLL_CTL_MOD, c.data.get(), wanted, key_of(number, 0)))
        c.interest = wanted;
}

// The side channel

void server::state::serve_side(client& c, std::uint32_t number) {
    side_channel* const side = c.find_side(number);
    if (side == nullptr) return;
    shim_control what{};
    const ssize_t length = ::recv(side->socket.get(), &what, sizeof what, MSG_DONTWAIT);
    if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (length == sizeof what && what.magic == SHIM_MAGIC && what.version == SHIM_VERSION)
        control(c, *side, what);
    else // closed, or no shim
        drop_side(c, number);
}

/// netlink_bind(): a port id once taken stays.
std::uint32_t server::state::bind_port(client& c, std::uint32_t port) {
    if (c.state.port_id != 0) return port == c.state.port_id ? 0 : EINVAL;
    if (ports_.contains(port)) free_port_of_the_dead(port);
    if (ports_.contains(port)) return EADDRINUSE;
    c.state.port_id = free_port(port == 0 ? c.pid : port);
    return 0;
}

void server::state::reset(client& c) {
    ports_.erase(c.state.port_id);
    c.state = {};
    c.groups = 0;
}

void server::state::control(client& c, side_channel& side, const shim_control& what) {
    std::uint32_t status = 0;
    const std::uint32_t group = what.argument;
    const bool is_group = group >= 1 && group <= 32;
    switch (what.kind) {
    case shim_bind:
        status = bind_port(c, what.argument);
        if (status == 0) c.groups = what.value;
        break;
    case shim_join:
    case shim_leave:
        if (!is_group)
            status = EINVAL;
        else if (what.kind == shim_join)
            c.groups |= std::uint32_t{1} << (group - 1);
        else
            c.groups &= ~(std::uint32_t{1} << (group - 1));
        break;
    case shim_option:
        if (what.argument == NETLINK_CAP_ACK)
            c.state.capped_acks = what.value != 0;
        else if (what.argument == NETLINK_EXT_ACK)
            c.state.extended_acks = what.value != 0;
        else
            status = ENOPROTOOPT;
        break;
    case shim_reset:
        reset(c);
        break;
    default:
        status = EOPNOTSUPP;
    }
    if (status == 0) ++c.edition;
    note_groups();
    tell(c, side, what.kind, what.id, status);
}

shim_answer server::state::answer_of(const client& c, std::uint32_t channel, std::uint16_t kind,
                                     std::uint32_t id, std::uint32_t status) const {
    return {SHIM_MAGIC, SHIM_VERSION,    kind,     id,           status,
            channel,    c.state.port_id, c.groups, exempt_mark_, c.edition};
}

void server::state::tell(const client& c, const side_channel& side, std::uint16_t kind,
                         std::uint32_t id, std::uint32_t status) const {
    const shim_answer a = answer_of(c, side.number, kind, id, status);
    // A shim that does not take its answers stops waiting by itself.
    (void)::send(side.socket.get(), &a, sizeof a, MSG_DONTWAIT | MSG_NOSIGNAL);
}

} // namespace esplane::xfrm
