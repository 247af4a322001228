// SPDX-License-Identifier: Apache-2.0
#include "fastpath/socket_sender.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <netinet/udp.h>

namespace esplane::fastpath {

namespace {

constexpr std::uint32_t refusal_lasts = 256; ///< runs, until a device is asked again

constexpr std::uint32_t header_of(net_way way) noexcept {
    switch (way) {
    case net_way::udp_v4:
        return sizeof(wire::ipv4_header) + sizeof(wire::udp_header);
    case net_way::udp_v6:
        return sizeof(wire::ipv6_header) + sizeof(wire::udp_header);
    case net_way::esp_v4:
        return sizeof(wire::ipv4_header);
    case net_way::esp_v6:
        return sizeof(wire::ipv6_header);
    default:
        return 0;
    }
}

bool wants_df(const packet& p, net_way way) noexcept {
    return (way == net_way::udp_v4 || way == net_way::esp_v4) &&
           (p.ipv4().fragment.host() & wire::ipv4_df) != 0;
}

std::uint8_t tos_of(const packet& p, net_way way) noexcept {
    return is_v4(way) ? p.ipv4().tos
                      : static_cast<std::uint8_t>(p.ipv6().version_class_flow.host() >> 20);
}

/// None of its own is another one than 0.
bool same_mark(const packet& a, const packet& b) noexcept {
    return ((a.flags ^ b.flags) & packet_flag::marked) == 0 && a.mark() == b.mark();
}

/// Same addresses, ports, TOS and DF.
bool same_flow_v4(const packet& a, const packet& b) noexcept {
    const auto word = [](const packet& p, std::size_t at) {
        return wire::load<std::uint32_t>(p.data + at);
    };
    return wire::load<std::uint16_t>(a.data) == wire::load<std::uint16_t>(b.data) &&
           wire::load<std::uint16_t>(a.data + 6) == wire::load<std::uint16_t>(b.data + 6) &&
           a.data[9] == b.data[9] && word(a, 12) == word(b, 12) && word(a, 16) == word(b, 16) &&
           word(a, 20) == word(b, 20);
}

bool same_flow_v6(const packet& a, const packet& b) noexcept {
    constexpr std::uint32_t version_and_class = 0xfff00000;
    return (a.ipv6().version_class_flow.host() & version_and_class) ==
               (b.ipv6().version_class_flow.host() & version_and_class) &&
           a.data[6] == b.data[6] && std::memcmp(a.data + 8, b.data + 8, 36) == 0;
}

template <typename T>
void put_control(msghdr& m, int level, int type, const T& value) noexcept {
    auto* const c =
        reinterpret_cast<cmsghdr*>(static_cast<std::uint8_t*>(m.msg_control) + m.msg_controllen);
    c->cmsg_level = level;
    c->cmsg_type = type;
    c->cmsg_len = CMSG_LEN(sizeof value);
    std::memcpy(CMSG_DATA(c), &value, sizeof value);
    m.msg_controllen += CMSG_SPACE(sizeof value);
}

void name_v4(msghdr& m, sockaddr_in6& room, const packet& p, net_way way) noexcept {
    auto& name = reinterpret_cast<sockaddr_in&>(room);
    name = {};
    name.sin_family = AF_INET;
    name.sin_addr.s_addr = p.ipv4().destination.network();
    if (way == net_way::udp_v4) name.sin_port = wire::load<std::uint16_t>(p.data + 22);
    m.msg_namelen = sizeof name;
    if (way == net_way::whole_v4) return;
    in_pktinfo info{};
    info.ipi_spec_dst.s_addr = p.ipv4().source.network();
    put_control(m, IPPROTO_IP, IP_PKTINFO, info);
    if (const int tos = p.ipv4().tos; tos != 0) put_control(m, IPPROTO_IP, IP_TOS, tos);
}

void name_v6(msghdr& m, sockaddr_in6& name, const packet& p, net_way way) noexcept {
    name = {};
    name.sin6_family = AF_INET6;
    std::memcpy(&name.sin6_addr, p.ipv6().destination.data(), sizeof name.sin6_addr);
    if (way == net_way::udp_v6) name.sin6_port = wire::load<std::uint16_t>(p.data + 42);
    m.msg_namelen = sizeof name;
    if (way == net_way::whole_v6) return;
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, p.ipv6().source.data(), sizeof info.ipi6_addr);
    put_control(m, IPPROTO_IPV6, IPV6_PKTINFO, info);
    if (const int tos = tos_of(p, way); tos != 0) put_control(m, IPPROTO_IPV6, IPV6_TCLASS, tos);
}

} // namespace

/// What is not ours may come from an address that is not the machine's: that goes as it is.
net_way socket_sender::way_of(const packet& p) const noexcept {
    net_way way = net_way::none;
    std::uint8_t protocol = 0;
    const bool ours = (p.flags & packet_flag::encrypted) != 0;
    if (p.length >= sizeof(wire::ipv4_header) && p.data[0] >> 4 == 4) {
        way = net_way::whole_v4;
        if (p.data[0] == 0x45 &&
            (p.ipv4().fragment.host() & (wire::ipv4_mf | wire::ipv4_offset_mask)) == 0)
            protocol = p.ipv4().protocol;
    } else if (p.length >= sizeof(wire::ipv6_header) && p.data[0] >> 4 == 6) {
        way = net_way::whole_v6;
        protocol = p.ipv6().next_header;
    }
    const bool v4 = way == net_way::whole_v4;
    if (!ours) protocol = 0;
    if (protocol == wire::proto_esp) way = v4 ? net_way::esp_v4 : net_way::esp_v6;
    const net_way udp = v4 ? net_way::udp_v4 : net_way::udp_v6;
    if (protocol == wire::proto_udp && p.length > header_of(udp) &&
        wire::load<wire::be16>(p.data + header_of(udp) - sizeof(wire::udp_header)).host() == port_)
        way = udp;
    return way != net_way::none && sockets_[static_cast<std::size_t>(way)] >= 0 ? way
                                                                                : net_way::none;
}

/// Frames that go as one message: at least 1.
std::size_t socket_sender::run_length(std::span<packet* const> frames, net_way way) const noexcept {
    if (!is_udp(way) || !segment_ || singly_ != 0 || unsegmented_ != 0) return 1;
    const packet& first = *frames[0];
    const std::uint32_t header = header_of(way);
    std::size_t bytes = first.length - header;
    std::size_t n = 1;
    while (n < std::min(frames.size(), most_segments)) {
        const packet& p = *frames[n];
        if (p.length > first.length || p.length <= header) break;
        bytes += p.length - header;
        if (bytes > most_bytes || !same_mark(first, p) ||
            !(way == net_way::udp_v4 ? same_flow_v4(first, p) : same_flow_v6(first, p)))
            break;
        ++n;
        if (p.length < first.length) break;
    }
    return n;
}

void socket_sender::write_message(std::span<packet* const> run, net_way way) noexcept {
    const packet& first = *run[0];
    const std::uint32_t header = header_of(way);
    msghdr& m = messages_[count_].msg_hdr;
    m = {};
    m.msg_name = &names_[count_];
    m.msg_control = controls_[count_].bytes.data();
    m.msg_iov = &pieces_[pieces_used_];
    m.msg_iovlen = run.size();
    if (is_v4(way))
        name_v4(m, names_[count_], first, way);
    else
        name_v6(m, names_[count_], first, way);
    if (run.size() > 1)
        put_control(m, IPPROTO_UDP, UDP_SEGMENT, static_cast<std::uint16_t>(first.length - header));
    if ((first.flags & packet_flag::marked) != 0) [[unlikely]]
        put_control(m, SOL_SOCKET, SO_MARK, first.mark());
    if (m.msg_controllen == 0) m.msg_control = nullptr;
    for (const packet* p : run)
        pieces_[pieces_used_++] = {p->data + header, p->length - header};
    ++count_;
}

/// Fills the batch with the first frames that leave by one socket with one DF.  Returns how many.
std::size_t socket_sender::gather(std::span<packet* const> frames) noexcept {
    count_ = pieces_used_ = 0;
    batch_way_ = way_of(*frames[0]);
    batch_df_ = wants_df(*frames[0], batch_way_);
    if (batch_way_ == net_way::none) return 1;
    const std::size_t most = singly_ != 0 ? singly_ : max_burst;
    frames = frames.first(std::min(frames.size(), most));
    std::size_t n = 0;
    while (n < frames.size()) {
        const net_way way = n == 0 ? batch_way_ : way_of(*frames[n]);
        if (way != batch_way_ || wants_df(*frames[n], way) != batch_df_) break;
        const std::size_t run = run_length(frames.subspan(n), way);
        write_message(frames.subspan(n, run), way);
        n += run;
    }
    return n;
}

void socket_sender::set_df(net_way way, bool on) noexcept {
    if (way != net_way::udp_v4 && way != net_way::esp_v4) return;
    const auto bit = static_cast<std::uint8_t>(1u << static_cast<unsigned>(way));
    if (((df_.load(std::memory_order_relaxed) & bit) != 0) == on) return;
    const int policy = on ? IP_PMTUDISC_DO : IP_PMTUDISC_DONT;
    (void)::setsockopt(sockets_[static_cast<std::size_t>(way)], IPPROTO_IP, IP_MTU_DISCOVER,
                       &policy, sizeof policy);
    if (on)
        df_.fetch_or(bit, std::memory_order_relaxed);
    else
        df_.fetch_and(static_cast<std::uint8_t>(~bit), std::memory_order_relaxed);
}

/// What an error of the first message that was not sent means for it.
auto socket_sender::judge(int code, std::size_t message) noexcept -> outcome {
    const bool several = messages_[message].msg_hdr.msg_iovlen > 1;
    switch (code) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
        return outcome::full;
    case EINTR:
        return outcome::again;
    case EIO: // the device computes no checksums
        if (several) unsegmented_ = refusal_lasts;
        [[fallthrough]];
    case EINVAL:
    case EMSGSIZE:
        return several ? outcome::split : outcome::lost;
    default:
        return outcome::lost;
    }
}

/// Sends the batch, which `frames` became.  Returns how many of them are done with.
std::size_t socket_sender::transmit(std::span<packet* const> frames) noexcept {
    if (batch_way_ == net_way::none) {
        lose(frames, EINVAL);
        return frames.size();
    }
    set_df(batch_way_, batch_df_);
    const int fd = sockets_[static_cast<std::size_t>(batch_way_)];
    std::size_t done = 0;
    const auto frames_of = [&](std::size_t message) {
        return frames.subspan(done, messages_[message].msg_hdr.msg_iovlen);
    };
    for (std::size_t at = 0; at < count_;) {
        const int sent =
            ::sendmmsg(fd, &messages_[at], static_cast<unsigned>(count_ - at), MSG_DONTWAIT);
        for (int i = 0; i < sent; ++i, ++at) {
            account(frames_of(at));
            done += frames_of(at).size();
        }
        if (sent > 0) continue;
        const int code = errno;
        switch (judge(code, at)) {
        case outcome::again:
            continue;
        case outcome::full:
            return done;
        case outcome::split:
            singly_ = frames_of(at).size();
            return done;
        case outcome::lost:
            lose(frames_of(at), code);
            done += frames_of(at).size();
            ++at;
        }
    }
    return done;
}

std::size_t socket_sender::send(std::span<packet* const> frames) noexcept {
    std::size_t taken = 0;
    while (taken < frames.size()) {
        const bool split = singly_ != 0;
        const std::size_t gathered = gather(frames.subspan(taken));
        const std::size_t done = transmit(frames.subspan(taken, gathered));
        taken += done;
        if (split) singly_ -= std::min(done, singly_);
        if (done < gathered && (split || singly_ == 0)) break;
    }
    singly_ = 0;
    counted_.full.add(frames.size() - taken);
    for (packet* p : frames.first(taken))
        p->owner->release({&p, 1});
    return taken;
}

void socket_sender::account(std::span<packet* const> frames) noexcept {
    std::uint64_t bytes = 0;
    for (const packet* p : frames)
        bytes += p->length;
    counted_.packets.add(frames.size());
    counted_.bytes.add(bytes);
    counted_.messages.add(1);
    if (unsegmented_ != 0) --unsegmented_;
}

void socket_sender::lose(std::span<packet* const> frames, int code) noexcept {
    (code == EMSGSIZE ? counted_.too_long : counted_.refused).add(frames.size());
    if (code == EMSGSIZE) note_too_long(*frames[0]);
}

void socket_sender::note_too_long(const packet& p) noexcept {
    const std::uint32_t in = too_long_in_.load(std::memory_order_relaxed);
    if (in - too_long_out_.load(std::memory_order_acquire) == too_long_room) return;
    ipsec::address& to = too_long_[in % too_long_room];
    to = p.data[0] >> 4 == 4 ? ipsec::address::v4(p.ipv4().destination)
                             : ipsec::address::v6(p.ipv6().destination);
    too_long_in_.store(in + 1, std::memory_order_release);
}

std::vector<ipsec::address> socket_sender::take_too_long() {
    std::vector<ipsec::address> taken;
    std::uint32_t out = too_long_out_.load(std::memory_order_relaxed);
    for (; out != too_long_in_.load(std::memory_order_acquire); ++out)
        taken.push_back(too_long_[out % too_long_room]);
    too_long_out_.store(out, std::memory_order_release);
    return taken;
}

} // namespace esplane::fastpath
