// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_packet.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <linux/if_vlan.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

namespace esplane::fastpath {

namespace {

constexpr int send_buffer_bytes = 4 << 20;
constexpr std::size_t most_frames = 2 * max_burst; ///< of one sendmmsg()
constexpr std::size_t most_tags_bytes = 8;
constexpr std::uint32_t dummy_address = 0xc0000008; ///< 192.0.0.8 (RFC 7600)

/// What the kernel says about a device.
struct device_state {
    int ifindex = 0; ///< 0: it is not there
    bool ethernet = false;
    link_state link = link_state::gone;
    std::uint32_t mtu = 0;
};

device_state look_at(const std::string& device) {
    device_state d;
    ifreq r{};
    std::memcpy(r.ifr_name, device.data(), std::min(device.size(), sizeof r.ifr_name - 1));
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket.valid() || ::ioctl(socket.get(), SIOCGIFINDEX, &r) != 0) return d;
    d.ifindex = r.ifr_ifindex;
    if (::ioctl(socket.get(), SIOCGIFHWADDR, &r) == 0)
        d.ethernet = r.ifr_hwaddr.sa_family == ARPHRD_ETHER;
    d.link = link_of(device);
    if (::ioctl(socket.get(), SIOCGIFMTU, &r) == 0) d.mtu = static_cast<std::uint32_t>(r.ifr_mtu);
    return d;
}

bool is_on(const std::string& sysctl) {
    std::ifstream file("/proc/sys/net/" + sysctl);
    int value = 0;
    return file >> value && value != 0;
}

/// The device that a VLAN device stands on; "" where it is none.
std::string parent_of(int socket, const std::string& vlan) {
    vlan_ioctl_args question{};
    question.cmd = GET_VLAN_REALDEV_NAME_CMD;
    std::memcpy(question.device1, vlan.data(), std::min(vlan.size(), sizeof question.device1 - 1));
    return ::ioctl(socket, SIOCGIFVLAN, &question) == 0 ? question.u.device2 : "";
}

/// A device and the VLAN devices on it, at whatever depth: what arrives on it arrives on them.
std::vector<std::string> with_vlans(const std::string& device) {
    std::vector<std::string> found{device};
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    struct if_nameindex* const all = ::if_nameindex();
    if (all == nullptr) return found;
    for (const struct if_nameindex* one = all; one->if_index != 0; ++one) {
        std::string below = parent_of(socket.get(), one->if_name);
        while (!below.empty() && below != device)
            below = parent_of(socket.get(), below);
        if (!below.empty()) found.emplace_back(one->if_name);
    }
    ::if_freenameindex(all);
    return found;
}

/// The sysctl by which the kernel forwards what arrives on a device; "" where it does not.
/// IPv6's is one for all devices: a device's own says what it takes from routers.
std::string forwarding_sysctl(const std::string& device) {
    if (is_on("ipv6/conf/all/forwarding")) return "net/ipv6/conf/all/forwarding";
    for (const std::string& one : with_vlans(device))
        for (const std::string& name :
             {"ipv4/conf/" + one + "/forwarding", "ipv6/conf/" + one + "/force_forwarding"})
            if (is_on(name)) return "net/" + name;
    return {};
}

/// Whether a port may stand on a device that is there.
result<void> check(const std::string& device, const device_state& d) {
    if (!d.ethernet) return fail(EOPNOTSUPP, device + " is no Ethernet device: name one that is");
    if (d.mtu > packet_port::largest_mtu)
        return fail(EMSGSIZE, device + ": MTU " + std::to_string(d.mtu) +
                                  " does not fit a packet buffer; set at most " +
                                  std::to_string(packet_port::largest_mtu) + ": 'ip link set dev " +
                                  device + " mtu ...'");
    return check_not_forwarded(device);
}

/// What comes up by a TUN device has its way back by another: with rp_filter the kernel takes it
/// when it looks loosely, and only on a device that has an IPv4 address.
void let_any_source_in(const std::string& device) {
    std::ofstream("/proc/sys/net/ipv4/conf/" + device + "/rp_filter") << 2;
    ifreq r{};
    std::memcpy(r.ifr_name, device.data(), std::min(device.size(), sizeof r.ifr_name - 1));
    auto& address = *reinterpret_cast<sockaddr_in*>(&r.ifr_addr);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = wire::be32(dummy_address).network();
    const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    (void)::ioctl(socket.get(), SIOCSIFADDR, &r);
}

result<unique_fd> hold_protocol(int family) {
    unique_fd fd(::socket(family, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ESP));
    if (!fd.valid() && errno == EAFNOSUPPORT) return fd;
    if (!fd.valid() && errno == EPERM) return fail(EPERM, "raw sockets take CAP_NET_RAW");
    if (!fd.valid()) return fail_errno("raw socket for ESP");
    sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)}; // that it is there is enough
    const sock_fprog program{1, nothing};
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
        return fail_errno("socket filter");
    return fd;
}

} // namespace

result<void> check_not_forwarded(const std::string& device) {
    const std::string sysctl = forwarding_sysctl(device);
    if (sysctl.empty()) return {};
    return fail(EBUSY, device +
                           ": the kernel would forward in clear what esplane protects: "
                           "turn it off ('sysctl -w " +
                           sysctl + "=0') or use an xdp port");
}

struct alignas(64) packet_port::lane_state {
    lane_state(packet_ring r, unique_fd s)
        : ring(std::move(r))
        , sender(std::move(s))
        , ready(ring.descriptor()) {}

    packet_ring ring;
    unique_fd sender;
    int ready; ///< what the worker sleeps on
    segmenter cutting;
    std::atomic<bool> inside{false};
    struct {
        counter rx_packets, rx_bytes, rx_no_buffer, rx_segmented, rx_too_long;
        counter tx_packets, tx_bytes, tx_full, tx_too_long, punted;
    } counted;
};

/// Either the worker sees that the port is down, or control sees the worker.
class packet_port::visit {
  public:
    visit(lane_state& l, const std::atomic<bool>& up) noexcept
        : lane_(l) {
        lane_.inside.store(true, std::memory_order_seq_cst);
        allowed_ = up.load(std::memory_order_seq_cst);
    }
    ~visit() { lane_.inside.store(false, std::memory_order_release); }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    [[nodiscard]] bool allowed() const noexcept { return allowed_; }

  private:
    lane_state& lane_;
    bool allowed_;
};

packet_port::packet_port(packet_port_options options, buffer_pool& pool)
    : options_(std::move(options))
    , pool_(pool) {}

packet_port::~packet_port() = default;

result<std::unique_ptr<packet_port>> packet_port::open(packet_port_options options,
                                                       buffer_pool& pool, unsigned lanes) {
    const device_state d = look_at(options.device);
    if (d.ifindex == 0) return fail(ENODEV, "no such device: create it or name another (ip link)");
    if (auto fits = check(options.device, d); !fits) return tl::unexpected(fits.error());
    if (lanes > 1 && d.link == link_state::disabled) // the kernel has no fanout groups there
        return fail(ENETDOWN, options.device +
                                  " is down: with several workers it must be up at "
                                  "the start ('ip link set dev " +
                                  options.device + " up')");
    std::unique_ptr<packet_port> p(new packet_port(std::move(options), pool));
    if (auto opened = p->open_lanes(lanes, d.ifindex); !opened)
        return tl::unexpected(opened.error());
    p->open_way_up();
    p->ifindex_ = d.ifindex;
    p->link_ = d.link;
    p->up_ = p->told_up_ = d.link == link_state::up;
    return p;
}

/// All sockets are in their group before the first listens: each frame goes to one of them.
result<void> packet_port::open_lanes(unsigned count, int ifindex) {
    std::optional<std::uint16_t> group;
    for (unsigned i = 0; i < count; ++i) {
        auto ring = packet_ring::open(ifindex);
        if (!ring) return tl::unexpected(ring.error());
        if (count > 1) {
            auto joined = ring->join(group);
            if (!joined) return tl::unexpected(joined.error());
            group = *joined;
        }
        auto sender = open_sender(ifindex);
        if (!sender) return tl::unexpected(sender.error());
        lanes_.push_back(std::make_unique<lane_state>(std::move(*ring), std::move(*sender)));
    }
    for (const auto& l : lanes_)
        if (auto r = l->ring.listen(); !r) return r;
    return {};
}

/// Of protocol 0: nothing is received.
result<unique_fd> packet_port::open_sender(int ifindex) const {
    unique_fd fd(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return fail_errno("AF_PACKET socket");
    if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer_bytes,
                     sizeof send_buffer_bytes) != 0)
        (void)::setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &send_buffer_bytes,
                           sizeof send_buffer_bytes);
    const int on = 1;
    if (options_.bypass_qdisc &&
        ::setsockopt(fd.get(), SOL_PACKET, PACKET_QDISC_BYPASS, &on, sizeof on) != 0)
        return fail_errno("PACKET_QDISC_BYPASS");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_ifindex = ifindex;
    if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
        return fail_errno("binding to the device");
    return fd;
}

/// A TUN device that somebody with the right to has made for this user is taken; else one is made
/// that goes with the process.
void packet_port::open_way_up() {
    const std::string device = options_.name.substr(0, IF_NAMESIZE - 1 - 3) + "-up";
    const auto there = static_cast<int>(::if_nametoindex(device.c_str()));
    auto made = there != 0 ? tun::adopt(there) : tun::make(device, largest_mtu);
    if (!made) {
        no_way_up_ = made.error().text;
        return;
    }
    if (there == 0) {
        made->forsake();
        let_any_source_in(device);
    }
    way_up_ = std::move(*made);
}

std::span<const int> packet_port::descriptors(unsigned lane) const noexcept {
    return {&lanes_[lane]->ready, 1};
}

std::size_t packet_port::receive(unsigned lane, std::span<packet> into) noexcept {
    lane_state& l = *lanes_[lane];
    const visit v(l, up_);
    if (!v.allowed()) return 0;
    std::size_t n = 0;
    std::uint64_t bytes = 0;
    while (n < into.size() && (!l.cutting.done() || l.ring.waiting())) {
        if (!pool_.allocate(into[n], 0)) {
            l.counted.rx_no_buffer.add(1);
            break;
        }
        if (!l.cutting.done())
            cut(l, into[n]);
        else if (!take(l, into[n]))
            continue;
        bytes += into[n++].length;
    }
    l.counted.rx_packets.add(n);
    l.counted.rx_bytes.add(bytes);
    return n;
}

/// The frame in front, copied, or the first segment of it.  False: it is lost, and the buffer is
/// back in the pool.
bool packet_port::take(lane_state& l, packet& into) noexcept {
    const ring_frame f = l.ring.front();
    const std::size_t room = largest_mtu + sizeof(wire::ethernet_header) + most_tags_bytes;
    if (f.segment_size != 0 && !f.truncated && l.cutting.start(f.bytes, f.segment_size) &&
        l.cutting.longest() <= room) {
        l.counted.rx_segmented.add(1);
        cut(l, into);
        return true;
    }
    const bool whole = f.segment_size == 0 && !f.truncated && f.bytes.size() <= room;
    if (whole) {
        std::memcpy(into.data, f.bytes.data(), f.bytes.size());
        into.extend(static_cast<int>(f.bytes.size()));
    } else {
        l.cutting.stop();
        l.counted.rx_too_long.add(1);
        packet* const back[] = {&into};
        pool_.release(back);
    }
    l.ring.release();
    return whole;
}

void packet_port::cut(lane_state& l, packet& into) noexcept {
    into.extend(static_cast<int>(l.cutting.next(into.data)));
    if (!l.cutting.done()) return;
    l.cutting.stop();
    l.ring.release();
}

std::size_t packet_port::send(unsigned lane, std::span<packet* const> frames) noexcept {
    lane_state& l = *lanes_[lane];
    const visit v(l, up_);
    std::array<mmsghdr, most_frames> messages;
    std::array<iovec, most_frames> pieces;
    const std::size_t wanted = v.allowed() ? std::min(frames.size(), messages.size()) : 0;
    for (std::size_t i = 0; i < wanted; ++i) {
        pieces[i] = {frames[i]->data, frames[i]->length};
        messages[i] = {};
        messages[i].msg_hdr.msg_iov = &pieces[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    const std::size_t taken = transmit(l, {messages.data(), wanted});
    for (packet* p : frames.first(taken))
        p->owner->release({&p, 1});
    l.counted.tx_full.add(frames.size() - taken);
    return taken;
}

/// Returns how many are done with.  The device's MTU may have shrunk a moment ago: a frame that is
/// too long for it is lost, and the others go on.
std::size_t packet_port::transmit(lane_state& l, std::span<mmsghdr> messages) noexcept {
    std::size_t done = 0;
    while (done < messages.size()) {
        const auto rest = messages.subspan(done);
        const int sent = ::sendmmsg(l.sender.get(), rest.data(), static_cast<unsigned>(rest.size()),
                                    MSG_DONTWAIT);
        if (sent < 0 && errno != EMSGSIZE) break;
        if (sent < 0) {
            l.counted.tx_too_long.add(1);
            ++done;
            continue;
        }
        for (const mmsghdr& m : rest.first(static_cast<std::size_t>(sent)))
            l.counted.tx_bytes.add(m.msg_len);
        l.counted.tx_packets.add(static_cast<std::uint64_t>(sent));
        done += static_cast<std::size_t>(sent);
    }
    return done;
}

std::size_t packet_port::punt(unsigned lane, std::span<packet* const> frames) noexcept {
    std::size_t n = 0;
    for (; way_up_ && n < frames.size(); ++n) {
        const packet& p = *frames[n];
        if (::write(way_up_->descriptor(), p.data, p.length) < 0) break;
    }
    lanes_[lane]->counted.punted.add(n);
    return n;
}

result<bool> packet_port::tend() {
    const device_state d = look_at(options_.device);
    result<void> fits;
    if (d.ifindex != 0) fits = check(options_.device, d);
    link_ = d.link;
    const bool usable = d.ifindex != 0 && d.link == link_state::up && fits;
    if (!usable || d.ifindex != ifindex_) up_.store(false, std::memory_order_seq_cst);
    for (const auto& l : lanes_)
        l->ring.clear_error();
    awaited_.reset();
    if (usable && d.ifindex != ifindex_) {
        awaited_ = worker_inside();
        if (!awaited_) fits = reopen(d.ifindex);
    }
    if (usable && fits && d.ifindex == ifindex_) up_.store(true, std::memory_order_seq_cst);
    const bool changed = up() != std::exchange(told_up_, up());
    if (!fits) return tl::unexpected(fits.error());
    return changed;
}

std::optional<unsigned> packet_port::worker_inside() const noexcept {
    for (unsigned i = 0; i < lanes(); ++i)
        if (lanes_[i]->inside.load(std::memory_order_seq_cst)) return i;
    return std::nullopt;
}

std::string packet_port::why_down() const {
    if (up()) return {};
    if (link_ != link_state::up) return fastpath::why_down(link_, options_.device);
    return awaited_ ? why_waiting(*awaited_) : "its device cannot be used as it is";
}

/// Under the descriptors that workers sleep on.  The port is down and no worker is inside.
result<void> packet_port::reopen(int ifindex) {
    packet_port fresh(options_, pool_);
    if (auto opened = fresh.open_lanes(lanes(), ifindex); !opened) return opened;
    for (unsigned i = 0; i < lanes(); ++i) {
        lane_state& l = *lanes_[i];
        lane_state& other = *fresh.lanes_[i];
        if (auto r = l.ring.replace_by(std::move(other.ring)); !r) return r;
        l.sender = std::move(other.sender);
        l.cutting.stop();
    }
    ifindex_ = ifindex;
    return {};
}

port_counters packet_port::counters() const noexcept {
    port_counters c;
    for (const auto& l : lanes_) {
        lost_by_kernel_.add(l->ring.take_losses());
        c.rx_packets += l->counted.rx_packets.get();
        c.rx_bytes += l->counted.rx_bytes.get();
        c.tx_packets += l->counted.tx_packets.get();
        c.tx_bytes += l->counted.tx_bytes.get();
        c.tx_full += l->counted.tx_full.get();
        c.rx_no_buffer += l->counted.rx_no_buffer.get();
        c.punted += l->counted.punted.get();
    }
    c.rx_no_buffer += lost_by_kernel_.get();
    return c;
}

std::vector<named_count> packet_port::extended_counters() const {
    named_count segmented{"rx_segmented"}, too_long{"rx_too_long"}, tx_too_long{"tx_too_long"};
    for (const auto& l : lanes_) {
        segmented.value += l->counted.rx_segmented.get();
        too_long.value += l->counted.rx_too_long.get();
        tx_too_long.value += l->counted.tx_too_long.get();
    }
    return {segmented, too_long, tx_too_long};
}

result<esp_hold> esp_hold::open() {
    auto v4 = hold_protocol(AF_INET);
    if (!v4) return tl::unexpected(v4.error());
    auto v6 = hold_protocol(AF_INET6);
    if (!v6) return tl::unexpected(v6.error());
    return esp_hold(std::move(*v4), std::move(*v6));
}

} // namespace esplane::fastpath
