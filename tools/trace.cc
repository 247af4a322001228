// SPDX-License-Identifier: Apache-2.0
#include "tools/trace.h"

#include <ctime>
#include <fstream>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <utility>

#include "tools/trace_report.h"
#include "xfrm/codec.h"
#include "xfrm/print.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

std::uint64_t now_us() {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000 +
           static_cast<std::uint64_t>(t.tv_nsec) / 1000;
}

/// null where the process is gone.
ordered_json command_of(std::uint32_t pid) {
    std::ifstream comm("/proc/" + std::to_string(pid) + "/comm");
    std::string name;
    return std::getline(comm, name) ? ordered_json(name) : ordered_json();
}

std::string_view name_of(xfrm::traced::direction way) {
    switch (way) {
    case xfrm::traced::direction::request:
        return "request";
    case xfrm::traced::direction::reply:
        return "reply";
    case xfrm::traced::direction::event:
        break;
    }
    return "event";
}

/// What is true of all messages of one datagram.
ordered_json report_origin(const xfrm::traced& what) {
    const bool of_client = what.way != xfrm::traced::direction::event;
    return {{"time_us", now_us()},
            {"way", name_of(what.way)},
            {"pid", of_client ? ordered_json(what.pid) : ordered_json()},
            {"command", of_client ? command_of(what.pid) : ordered_json()},
            {"port", of_client ? ordered_json(what.port_id) : ordered_json()}};
}

std::uint64_t messages_in(xfrm::bytes whole) noexcept {
    std::uint64_t count = 0;
    while (xfrm::next_message(whole))
        ++count;
    return count;
}

/// A name that a process gave itself may hold any bytes.
template <typename Json>
std::string line(const Json& j) {
    return j.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void answer(int connection, const json& what) {
    const std::string text = line(what);
    (void)!::send(connection, text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
}

result<void> watch(int poller, int fd) {
    epoll_event e{};
    e.events = EPOLLIN;
    if (::epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e) != 0) return fail_errno("epoll");
    return {};
}

} // namespace

result<std::unique_ptr<trace>> trace::make(control::layer& layer, xfrm::server* server) {
    unique_fd poller(::epoll_create1(EPOLL_CLOEXEC));
    if (!poller.valid()) return fail_errno("epoll");
    auto talk = trace_readers::open();
    if (!talk) return tl::unexpected(talk.error());
    auto events = trace_readers::open();
    if (!events) return tl::unexpected(events.error());
    for (const int fd : {talk->descriptor(), events->descriptor()})
        if (auto watched = watch(poller.get(), fd); !watched)
            return tl::unexpected(watched.error());
    return std::unique_ptr<trace>(
        new trace(layer, server, std::move(poller), std::move(*talk), std::move(*events)));
}

trace::trace(control::layer& layer, xfrm::server* server, unique_fd poller, trace_readers talk,
             trace_readers events)
    : layer_(layer)
    , server_(server)
    , poller_(std::move(poller))
    , talk_(std::move(talk))
    , events_(std::move(events)) {}

trace::~trace() {
    if (follows_talk_) server_->set_tap(nullptr);
    if (follows_events_) layer_.unsubscribe(this);
}

bool trace::take(const json& request, unique_fd& connection) {
    const auto command = request.find("command");
    if (command == request.end()) return false;
    const bool talk = *command == "trace";
    if (!talk && *command != "monitor") return false;
    trace_readers& readers = talk ? talk_ : events_;
    if (talk && server_ == nullptr) {
        answer(connection.get(), {{"error", "this esplaned serves no XFRM clients (--xfrm off)"}});
    } else if (readers.full()) {
        answer(connection.get(), {{"error", "too many follow this already: end one of them"}});
    } else {
        answer(connection.get(), {{"streaming", *command}});
        readers.add(std::move(connection));
        follow(talk);
    }
    return true;
}

void trace::follow(bool talk) {
    if (talk && !std::exchange(follows_talk_, true))
        server_->set_tap([this](const xfrm::traced& what) { show(what); });
    if (!talk && !std::exchange(follows_events_, true)) layer_.subscribe(this);
}

/// Nobody stops to follow in the middle of what is followed: only here.
void trace::serve() {
    talk_.serve();
    events_.serve();
    if (follows_talk_ && talk_.empty()) {
        server_->set_tap(nullptr);
        follows_talk_ = false;
    }
    if (follows_events_ && events_.empty()) {
        layer_.unsubscribe(this);
        follows_events_ = false;
    }
}

void trace::show(const xfrm::traced& what) {
    if (!talk_.listening()) {
        talk_.missed(messages_in(what.whole));
        return;
    }
    const ordered_json origin = report_origin(what);
    for (const xfrm::description& d : xfrm::decode(what.whole).messages) {
        ordered_json message = origin;
        message.update(report_message(xfrm::print(d)));
        talk_.send(line(message));
    }
}

void trace::on_event(const ipsec::event& e) {
    if (!events_.listening()) {
        events_.missed(1);
        return;
    }
    const json reported = report_event(e);
    ordered_json event = {{"time_us", now_us()}, {"event", reported.at("event")}};
    event.update(reported);
    events_.send(line(event));
}

} // namespace esplane::tools
