// SPDX-License-Identifier: Apache-2.0
#include "bench/control_server.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/base/descriptor_passing.h"
#include "xfrm/policy_codec.h"
#include "xfrm/sa_codec.h"
#include "xfrm/shim_protocol.h"

namespace esplane::bench {
namespace {

/// Datagrams that may be unanswered: the server always has one to work on.
constexpr unsigned most_under_way = 4;

/// nlmsg_seq of a batch's last message; that of the others is 1.
constexpr std::uint32_t last_of_batch = 2;

[[noreturn]] void give_up(const char* what) {
    std::perror(what);
    std::exit(EXIT_FAILURE);
}

template <typename Body>
void write_request(xfrm::datagram& into, std::uint16_t type, std::uint16_t flags, Body&& body) {
    xfrm::message_writer w(into, type, static_cast<std::uint16_t>(NLM_F_REQUEST | flags), 1, 0);
    body(w);
    w.finish();
}

} // namespace

served_lab::served_lab(tests::lab& l, int cpu)
    : lab_(l)
    , cpu_(cpu)
    , directory_(tools::scratch_directory::make().value()) {
    auto opened = xfrm::server::open(lab_.control, socket(), fastpath::now);
    if (!opened) give_up("bench control: the server's socket");
    server_ = std::move(*opened);
    thread_ = std::thread([this] { serve(); });
}

served_lab::~served_lab() {
    stopping_ = true;
    thread_.join();
}

void served_lab::serve() {
    if (cpu_ >= 0) {
        cpu_set_t own;
        CPU_ZERO(&own);
        CPU_SET(cpu_, &own);
        (void)::sched_setaffinity(0, sizeof own, &own);
    }
    pollfd ready{server_->descriptor(), POLLIN, 0};
    while (!stopping_) {
        (void)::poll(&ready, 1, 10);
        server_->serve();
        lab_.control.tick(fastpath::now());
    }
}

raw_client::raw_client(const std::string& socket)
    : socket_(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0))
    , buffer_(SHIM_REQUEST_MAX) {
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    socket.copy(a.sun_path, sizeof a.sun_path - 1);
    if (::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) != 0)
        give_up("bench control: connect");
    attach();
}

/// The server answers nobody without a side channel.  What it says there is not waited for: ACKs
/// tell as much.
void raw_client::attach() {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        give_up("bench control: socketpair");
    side_ = unique_fd(pair[0]);
    const unique_fd passed(pair[1]);
    shim_header h{};
    h.magic = SHIM_MAGIC;
    h.version = SHIM_VERSION;
    h.kind = shim_attach;
    shim_answer greeting{};
    const std::span head(reinterpret_cast<const std::uint8_t*>(&h), sizeof h);
    if (!send_with_descriptor(socket_.get(), head, passed.get()) ||
        ::recv(side_.get(), &greeting, sizeof greeting, 0) != sizeof greeting)
        give_up("bench control: attach");
    channel_ = greeting.channel;
}

void raw_client::send(const xfrm::datagram& messages) {
    shim_header h{};
    h.magic = SHIM_MAGIC;
    h.version = SHIM_VERSION;
    h.kind = shim_request;
    h.channel = channel_;
    h.deadline_ns = fastpath::now().monotonic_ns + SHIM_ANSWER_TIMEOUT_NS;
    iovec pieces[] = {{&h, sizeof h},
                      {const_cast<std::uint8_t*>(messages.data()), messages.size()}};
    msghdr m{};
    m.msg_iov = pieces;
    m.msg_iovlen = 2;
    if (::sendmsg(socket_.get(), &m, MSG_NOSIGNAL) < 0) give_up("bench control: send");
}

xfrm::bytes raw_client::receive() {
    const ssize_t n = ::recv(socket_.get(), buffer_.data(), buffer_.size(), 0);
    if (n <= 0) give_up("bench control: recv");
    return {buffer_.data(), static_cast<std::size_t>(n)};
}

template <typename Body>
void raw_client::put(std::uint16_t type, Body&& body) {
    constexpr std::size_t longest_message = 1024;
    if (batch_.size() + longest_message > SHIM_REQUEST_MAX - sizeof(shim_header)) flush();
    last_ = batch_.size();
    write_request(batch_, type, 0, body);
}

void raw_client::add(const ipsec::sa& s) {
    put(XFRM_MSG_NEWSA, [&](xfrm::message_writer& w) {
        w.fixed(xfrm::sa_info(s));
        xfrm::encode_sa_attributes(w, s);
    });
}

void raw_client::add(const ipsec::policy& p) {
    put(XFRM_MSG_NEWPOLICY, [&](xfrm::message_writer& w) {
        w.fixed(xfrm::policy_info(p));
        xfrm::encode_policy_attributes(w, p);
    });
}

void raw_client::remove(const ipsec::sa_id& id) {
    put(XFRM_MSG_DELSA, [&](xfrm::message_writer& w) { w.fixed(xfrm::sa_id_to(id)); });
}

/// The last message asks for an ACK: when it comes all before it are done, too.
void raw_client::flush() {
    if (batch_.empty()) return;
    auto last = *xfrm::read_fixed<nlmsghdr>(xfrm::bytes(batch_).subspan(last_));
    last.nlmsg_flags |= NLM_F_ACK;
    last.nlmsg_seq = last_of_batch;
    std::memcpy(batch_.data() + last_, &last, sizeof last);
    while (under_way_ >= most_under_way)
        take_answer();
    send(batch_);
    ++under_way_;
    batch_.clear();
}

void raw_client::take_answer() {
    const auto answer = receive();
    xfrm::bytes rest = answer;
    while (const auto m = xfrm::next_message(rest)) {
        if (m->header.nlmsg_type != NLMSG_ERROR) continue;
        if (m->header.nlmsg_seq == last_of_batch) --under_way_;
        note(xfrm::read_fixed<nlmsgerr>(m->payload())->error);
    }
}

/// The first error is told to whoever runs the benchmark.
void raw_client::note(int error) {
    if (error == 0) return;
    if (errors_++ == 0) std::fprintf(stderr, "bench control: refused: %s\n", std::strerror(-error));
}

void raw_client::finish() {
    flush();
    while (under_way_ != 0)
        take_answer();
}

void raw_client::call(const xfrm::datagram& m) {
    finish();
    last_ = 0;
    batch_ = m;
    finish();
}

xfrm::datagram dump_of(std::uint16_t type) {
    xfrm::datagram d;
    write_request(d, type, NLM_F_DUMP, [](xfrm::message_writer&) {});
    return d;
}

xfrm::datagram flush_of(std::uint16_t type) {
    xfrm::datagram d;
    write_request(d, type, 0, [&](xfrm::message_writer& w) {
        if (type == XFRM_MSG_FLUSHSA) w.fixed(xfrm_usersa_flush{});
    });
    return d;
}

} // namespace esplane::bench
