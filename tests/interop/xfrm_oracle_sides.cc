// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_sides.h"

#include <algorithm>
#include <arpa/inet.h>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <memory>
#include <poll.h>
#include <sched.h>
#include <stdexcept>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

#include "fastpath/backend.h"
#include "tests/interop/lib/uml_guest.h"
#include "tests/support/lab.h"
#include "xfrm/dispatch.h"
#include "xfrm/events.h"

namespace esplane::tests::oracle {

namespace {

std::vector<std::uint8_t> copy_of(const xfrm::datagram& d) {
    return {d.begin(), d.end()};
}

/// What the dispatcher stands on.
class ground {
  public:
    virtual ~ground() = default;
    virtual control::layer& layer() = 0;
    [[nodiscard]] virtual moment now() const = 0;
    virtual void send_packet() = 0;
    virtual void let_pass(std::uint64_t ns) = 0;
};

/// Where no time passes and no packet goes: the backend has no worker.
class still_ground final : public ground {
  public:
    control::layer& layer() override { return layer_; }
    [[nodiscard]] moment now() const override { return {1'000'000'000'000, 1'700'000'000}; }
    void send_packet() override {}
    void let_pass(std::uint64_t /*ns*/) override {}

  private:
    fastpath::tables tables_;
    fastpath::user_backend backend_{tables_, fixed_random(1)};
    control::layer layer_{backend_, fixed_random(2)};
};

/// A gateway with a clock of its own.
class moving_ground final : public ground {
  public:
    moving_ground() {
        control::sysctls like_the_guest;
        like_the_guest.larval_drop = 1; // packets do not wait for their SA
        lab_.control.set_sysctls(like_the_guest);
    }
    control::layer& layer() override { return lab_.control; }
    [[nodiscard]] moment now() const override { return lab_.clock; }
    void send_packet() override {
        packet_spec p;
        p.length = packet_length;
        lab_.push(lab::plain, {make_packet(p)});
    }
    /// Stops wherever control has something to do.
    void let_pass(std::uint64_t ns) override {
        const std::uint64_t end = lab_.clock.monotonic_ns + ns;
        while (lab_.clock.monotonic_ns < end) {
            const std::uint64_t next = lab_.control.next_deadline_ns().value_or(end);
            const std::uint64_t at = std::clamp(next, lab_.clock.monotonic_ns + 1, end);
            lab_.advance(at - lab_.clock.monotonic_ns);
        }
    }

  private:
    lab lab_{1};
};

std::unique_ptr<ground> ground_for(const session& s) {
    if (s.timed) return std::make_unique<moving_ground>();
    return std::make_unique<still_ground>();
}

/// Starts with nothing, and hears everything.
class esplane_side final : public xfrm::reply_sink, private ipsec::listener {
  public:
    explicit esplane_side(const session& s)
        : ground_(ground_for(s))
        , dispatcher_(ground_->layer())
        , began_(ground_->now()) {
        who_.port_id = port_id;
        who_.capped_acks = s.capped_acks;
        who_.extended_acks = s.extended_acks;
        dispatcher_.set_strict(!s.kernel_like);
        ground_->layer().subscribe(this);
        ground_->layer().answer_acquires(this, true);
    }
    ~esplane_side() override { ground_->layer().unsubscribe(this); }
    esplane_side(const esplane_side&) = delete;
    esplane_side& operator=(const esplane_side&) = delete;

    [[nodiscard]] std::uint64_t began_s() const { return began_.realtime_s; }

    answer ask(const std::vector<std::uint8_t>& bytes, const question& q) {
        answer_.clear();
        later_ = false;
        for (std::uint32_t i = 0; i < q.packets; ++i)
            ground_->send_packet();
        dispatcher_.request(bytes, who_, ground_->now(), *this);
        while (who_.dump)
            reply(dispatcher_.continue_dump(who_));
        ground_->layer().tick(ground_->now());
        later_ = true;
        ground_->let_pass(q.wait_ms * ns_per_ms);
        return std::move(answer_);
    }

  private:
    static constexpr std::uint64_t ns_per_ms = 1'000'000;

    void hear(std::uint32_t group, const xfrm::datagram& d) {
        const std::uint64_t age_ns = ground_->now().monotonic_ns - began_.monotonic_ns;
        answer_.push_back(
            {group, static_cast<std::uint32_t>(age_ns / ns_per_ms), later_, copy_of(d)});
    }
    void reply(xfrm::datagram&& d) override { hear(0, d); }
    void on_event(const ipsec::event& e) override {
        xfrm::datagram d;
        const std::uint32_t group = xfrm::encode_event(e, d);
        hear(group, d);
    }

    std::unique_ptr<ground> ground_;
    xfrm::dispatcher dispatcher_;
    moment began_;
    xfrm::client_state who_;
    bool later_ = false;
    answer answer_;
};

// Inside the guest

[[noreturn]] void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

void set(int fd, int level, int option, int value, const char* what) {
    if (::setsockopt(fd, level, option, &value, sizeof value) != 0) throw_errno(what);
}

/// A network for the packets: whatever leaves by the device is gone.
void make_network() {
    const auto address = [](const char* a) { return std::string(a); };
    const std::string batch = "link add out0 type dummy\naddr add " + address(packet_source) +
                              "/16 dev out0\naddr add " + address(tunnel_source) +
                              "/24 dev out0\nlink set out0 up\nroute add " +
                              address(packet_destination) + "/32 dev out0\n";
    FILE* const ip = ::popen("ip -batch -", "w");
    if (ip == nullptr) throw_errno("ip");
    std::fputs(batch.c_str(), ip);
    if (::pclose(ip) != 0) throw std::runtime_error("ip -batch");
}

void send_to_kernel(int fd, const std::vector<std::uint8_t>& bytes) {
    sockaddr_nl kernel{AF_NETLINK, 0, 0, 0};
    if (::sendto(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&kernel),
                 sizeof kernel) < 0)
        throw_errno("sendto");
}

std::uint64_t time_of(clockid_t clock) {
    timespec t{};
    ::clock_gettime(clock, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000u +
           static_cast<std::uint64_t>(t.tv_nsec);
}

void sleep_ns(std::uint64_t ns) {
    const timespec t{static_cast<time_t>(ns / 1'000'000'000),
                     static_cast<long>(ns % 1'000'000'000)};
    ::nanosleep(&t, nullptr);
}

template <typename Fixed>
void append_request(std::vector<std::uint8_t>& to, std::uint16_t type, const Fixed& fixed) {
    const nlmsghdr head{sizeof head + sizeof fixed, type, NLM_F_REQUEST, 0, 0};
    const auto append = [&](const auto& part) {
        const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&part);
        to.insert(to.end(), bytes, bytes + sizeof part);
    };
    append(head);
    append(fixed);
}

/// Larval SAs come and go, so that the kernel's tables for SAs are as large as a session needs
/// them: each time they grow the order of those turns round that are found by the same name.
void grow_tables() {
    const owned_fd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM));
    if (fd.get() < 0) throw_errno("NETLINK_XFRM");
    xfrm_userspi_info larval{};
    larval.info.family = AF_INET;
    larval.info.id.proto = IPPROTO_ESP;
    larval.info.id.daddr.a4 = htonl(0x0a000001);
    larval.min = larval.max = 1;                        // an SPI for each
    for (const std::uint32_t tables : {8u, 16u, 32u}) { // the kernel begins with 8
        std::vector<std::uint8_t> requests;
        for (; larval.min <= tables; ++larval.min, larval.max = larval.min)
            append_request(requests, XFRM_MSG_ALLOCSPI, larval);
        send_to_kernel(fd.get(), requests);
        sleep_ns(1'000'000);
    }
    std::vector<std::uint8_t> flush;
    append_request(flush, XFRM_MSG_FLUSHSA, xfrm_usersa_flush{});
    send_to_kernel(fd.get(), flush);
}

class kernel_side {
  public:
    explicit kernel_side(const session& s) {
        if (::unshare(CLONE_NEWNET) != 0) throw_errno("unshare");
        if (s.timed) make_network();
        grow_tables();
        socket_ = owned_fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM));
        const int fd = socket_.get();
        sockaddr_nl self{AF_NETLINK, 0, port_id, 0};
        if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&self), sizeof self) != 0)
            throw_errno("NETLINK_XFRM");
        set(fd, SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20, "SO_RCVBUFFORCE");
        set(fd, SOL_NETLINK, NETLINK_PKTINFO, 1, "NETLINK_PKTINFO");
        set(fd, SOL_NETLINK, NETLINK_CAP_ACK, s.capped_acks ? 1 : 0, "NETLINK_CAP_ACK");
        set(fd, SOL_NETLINK, NETLINK_EXT_ACK, s.extended_acks ? 1 : 0, "NETLINK_EXT_ACK");
        for (int group = 1; group <= __XFRMNLGRP_MAX - 1; ++group)
            set(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group, "NETLINK_ADD_MEMBERSHIP");
        if (s.timed) begin_on_a_second();
        began_ns_ = time_of(CLOCK_MONOTONIC);
        began_s_ = time_of(CLOCK_REALTIME) / ns_per_s;
    }

    [[nodiscard]] std::uint64_t began_s() const { return began_s_; }

    answer ask(const std::vector<std::uint8_t>& bytes, const question& q) {
        answer all;
        for (std::uint32_t i = 0; i < q.packets; ++i)
            send_packet();
        if (!bytes.empty()) send_to_kernel(socket_.get(), bytes);
        if (q.packets != 0 || wants_patience(q)) sleep_ns(a_moment_ns);
        hear_all(all, false);
        const std::uint64_t end = time_of(CLOCK_MONOTONIC) + q.wait_ms * ns_per_ms;
        for (std::uint64_t now = 0; q.wait_ms != 0 && (now = time_of(CLOCK_MONOTONIC)) < end;) {
            pollfd p{socket_.get(), POLLIN, 0};
            const timespec left{static_cast<time_t>((end - now) / ns_per_s),
                                static_cast<long>((end - now) % ns_per_s)};
            (void)::ppoll(&p, 1, &left, nullptr);
            hear_all(all, true);
        }
        return all;
    }

  private:
    static constexpr std::uint64_t ns_per_ms = 1'000'000, ns_per_s = 1'000'000'000;
    static constexpr std::uint64_t a_moment_ns = 200'000; ///< what the kernel does by timers

    /// By the clock of the kernel's ticks, too.
    static void begin_on_a_second() {
        constexpr std::uint64_t two_ticks_ns = 20 * ns_per_ms;
        sleep_ns(ns_per_s - time_of(CLOCK_REALTIME) % ns_per_s + two_ticks_ns);
    }
    /// Whether it goes is the policies' affair.
    static void send_packet() {
        constexpr std::size_t headers = 20 + 8;
        const std::array<std::uint8_t, packet_length - headers> payload{};
        const owned_fd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        sockaddr_in from{AF_INET, htons(1000), {}, {}}, to{AF_INET, htons(2000), {}, {}};
        ::inet_pton(AF_INET, packet_source, &from.sin_addr);
        ::inet_pton(AF_INET, packet_destination, &to.sin_addr);
        if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&from), sizeof from) != 0)
            throw_errno("bind");
        (void)::sendto(fd.get(), payload.data(), payload.size(), MSG_DONTWAIT,
                       reinterpret_cast<sockaddr*>(&to), sizeof to);
    }
    void hear_all(answer& all, bool later) {
        while (read_into(all, later)) {
        }
    }
    bool read_into(answer& all, bool later) {
        iovec v{buffer_.data(), buffer_.size()};
        alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(nl_pktinfo))> control{};
        msghdr m{};
        m.msg_iov = &v;
        m.msg_iovlen = 1;
        m.msg_control = control.data();
        m.msg_controllen = control.size();
        const ssize_t n = ::recvmsg(socket_.get(), &m, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return false;
        if (n < 0) throw_errno("recvmsg");
        heard h;
        h.later = later;
        h.at_ms = static_cast<std::uint32_t>((time_of(CLOCK_MONOTONIC) - began_ns_) / ns_per_ms);
        h.bytes.assign(buffer_.begin(), buffer_.begin() + n);
        if (const cmsghdr* const c = CMSG_FIRSTHDR(&m); c != nullptr) {
            nl_pktinfo info{};
            std::memcpy(&info, CMSG_DATA(c), sizeof info);
            h.group = info.group;
        }
        all.push_back(std::move(h));
        return true;
    }

    owned_fd socket_;
    std::uint64_t began_ns_ = 0;
    std::uint64_t began_s_ = 0;
    std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(1 << 18);
};

/// `side` answers the session's questions in turn.
template <typename Side>
answers ask_all(const session& s, Side&& side) {
    answers out;
    out.began_s = side.began_s();
    std::vector<std::uint32_t> spis;
    for (const question& q : s.asked) {
        out.all.push_back(side.ask(patched(q, spis, out.began_s), q));
        spis.push_back(allocated_spi(out.all.back()));
    }
    return out;
}

} // namespace

answers ask_esplane(const session& s) {
    return ask_all(s, esplane_side(s));
}

void serve_guest(const std::string& sessions_file, const std::string& answers_file) {
    std::vector<answers> all;
    for (const session& s : read_sessions(sessions_file))
        all.push_back(ask_all(s, kernel_side(s)));
    write_answers(answers_file, all);
}

} // namespace esplane::tests::oracle
