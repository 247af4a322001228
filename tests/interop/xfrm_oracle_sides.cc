// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_sides.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <sys/socket.h>
#include <system_error>
#include <unistd.h>

#include "fastpath/backend.h"
#include "tests/interop/lib/uml_guest.h"
#include "xfrm/dispatch.h"
#include "xfrm/events.h"

namespace esplane::tests::oracle {

namespace {

std::vector<std::uint8_t> copy_of(const xfrm::datagram& d) {
    return {d.begin(), d.end()};
}

/// Starts with nothing, and hears everything.
class esplane_side final : public xfrm::reply_sink, private ipsec::listener {
  public:
    explicit esplane_side(const session& s)
        : backend_(tables_, random_bytes())
        , layer_(backend_, random_bytes())
        , dispatcher_(layer_) {
        who_.port_id = port_id;
        who_.capped_acks = s.capped_acks;
        who_.extended_acks = s.extended_acks;
        layer_.subscribe(this);
        layer_.answer_acquires(this, true);
    }
    ~esplane_side() override { layer_.unsubscribe(this); }
    esplane_side(const esplane_side&) = delete;
    esplane_side& operator=(const esplane_side&) = delete;

    answer ask(const std::vector<std::uint8_t>& bytes) {
        constexpr moment now{1'000'000'000'000, 1'700'000'000};
        answer_.clear();
        dispatcher_.request(bytes, who_, now, *this);
        while (who_.dump)
            reply(dispatcher_.continue_dump(who_));
        return std::move(answer_);
    }

  private:
    static control::random_source random_bytes() {
        return [next = std::uint8_t{0}](std::span<std::uint8_t> into) mutable {
            for (std::uint8_t& b : into)
                b = next++;
        };
    }
    void reply(xfrm::datagram&& d) override { answer_.push_back({0, copy_of(d)}); }
    void on_event(const ipsec::event& e) override {
        xfrm::datagram d;
        const std::uint32_t group = xfrm::encode_event(e, d);
        answer_.push_back({group, copy_of(d)});
    }

    fastpath::tables tables_;
    fastpath::user_backend backend_;
    control::layer layer_;
    xfrm::dispatcher dispatcher_;
    xfrm::client_state who_;
    answer answer_;
};

// Inside the guest

[[noreturn]] void throw_errno(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

void set(int fd, int level, int option, int value, const char* what) {
    if (::setsockopt(fd, level, option, &value, sizeof value) != 0) throw_errno(what);
}

class kernel_side {
  public:
    explicit kernel_side(const session& s) {
        if (::unshare(CLONE_NEWNET) != 0) throw_errno("unshare");
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
    }

    answer ask(const std::vector<std::uint8_t>& bytes, bool patiently) {
        if (bytes.empty()) return {};
        sockaddr_nl kernel{AF_NETLINK, 0, 0, 0};
        if (::sendto(socket_.get(), bytes.data(), bytes.size(), 0,
                     reinterpret_cast<sockaddr*>(&kernel), sizeof kernel) < 0)
            throw_errno("sendto");
        if (patiently) {
            constexpr timespec a_moment{0, 200'000};
            ::nanosleep(&a_moment, nullptr);
        }
        answer all;
        while (read_into(all)) {
        }
        return all;
    }

  private:
    bool read_into(answer& all) {
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
    std::vector<std::uint8_t> buffer_ = std::vector<std::uint8_t>(1 << 18);
};

/// `side` answers the session's questions in turn.
template <typename Ask>
answers ask_all(const session& s, Ask&& ask) {
    answers all;
    std::vector<std::uint32_t> spis;
    for (const question& q : s.asked) {
        all.push_back(ask(patched(q, spis), q));
        spis.push_back(allocated_spi(all.back()));
    }
    return all;
}

} // namespace

answers ask_esplane(const session& s) {
    esplane_side side(s);
    return ask_all(s, [&](const auto& bytes, const question&) { return side.ask(bytes); });
}

void serve_guest(const std::string& sessions_file, const std::string& answers_file) {
    std::vector<answers> all;
    for (const session& s : read_sessions(sessions_file)) {
        kernel_side side(s);
        all.push_back(ask_all(s, [&](const auto& bytes, const question& q) {
            return side.ask(bytes, wants_patience(q));
        }));
    }
    write_answers(answers_file, all);
}

} // namespace esplane::tests::oracle
