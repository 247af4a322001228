// SPDX-License-Identifier: Apache-2.0
//
// A forwarder between two ports of DPDK that encrypts: what comes in on the plain port leaves as
// ESP by the secure one, and the other way round.  Like DPDK's l2fwd it knows no routes: everything
// goes to the other port, to one MAC address.
//
//   plain net --- [port 0] l2_forwarder [port 1] === SA ===> peer --- peer net
//
//   c++ -std=c++20 l2_forwarder.cc $(pkg-config --cflags --libs libesplane libdpdk) -o l2_forwarder
//   ./l2_forwarder -l 0 --no-huge --vdev net_pcap0,... --vdev net_pcap1,... -- OPTION=VALUE...
//
//   local=ADDRESS peer=ADDRESS          ends of the tunnel, IPv4
//   net=ADDRESS/BITS peer-net=ADDRESS/BITS   behind this gateway, behind the peer
//   key=HEX                             AES-GCM key and salt: 20, 28 or 36 bytes, both ways
//   spi-out=N spi-in=N
//   seconds=N                           to run; 0: until killed
//
// No packet is copied: an mbuf's data is described by a struct esplane_packet, transformed where it
// lies, and the mbuf is told where its data begins and ends then.
#include <esplane/esplane.hpp>

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr std::uint16_t plain_port = 0;
constexpr std::uint16_t secure_port = 1;
constexpr std::uint16_t burst = 32;
constexpr std::uint16_t ring_size = 512;
constexpr unsigned pool_size = 4095;
constexpr std::uint16_t ether_bytes = sizeof(rte_ether_hdr);

static_assert(RTE_PKTMBUF_HEADROOM >= ESPLANE_HEADROOM, "mbufs have room for what ESP adds");

volatile std::sig_atomic_t stopping = 0;

[[noreturn]] void give_up(const std::string& what) {
    std::fprintf(stderr, "l2_forwarder: %s\n", what.c_str());
    std::exit(1);
}

template <typename T>
T must(esplane::result<T> r) {
    if (!r) give_up(r.error().text + " (" + std::strerror(r.error().code) + ")");
    if constexpr (!std::is_void_v<T>) return std::move(r).value();
}

struct network {
    esplane::address address;
    std::uint8_t bits;
};

class options {
  public:
    options(int count, char** words) {
        for (int i = 0; i < count; ++i) {
            const std::string word = words[i];
            const auto equals = word.find('=');
            if (equals == std::string::npos) give_up("'" + word + "' is not OPTION=VALUE");
            values_[word.substr(0, equals)] = word.substr(equals + 1);
        }
    }
    [[nodiscard]] std::string text(const std::string& name) const {
        const auto found = values_.find(name);
        if (found == values_.end()) give_up("'" + name + "=' is missing");
        return found->second;
    }
    [[nodiscard]] std::uint32_t number(const std::string& name) const {
        return static_cast<std::uint32_t>(std::strtoul(text(name).c_str(), nullptr, 0));
    }
    [[nodiscard]] esplane::address address(const std::string& name) const {
        return must(esplane::parse_address(text(name)));
    }
    [[nodiscard]] network net(const std::string& name) const {
        const std::string t = text(name);
        const auto slash = t.find('/');
        if (slash == std::string::npos) give_up("'" + t + "' is not ADDRESS/BITS");
        return {must(esplane::parse_address(t.substr(0, slash))),
                static_cast<std::uint8_t>(std::strtoul(t.c_str() + slash + 1, nullptr, 10))};
    }
    [[nodiscard]] std::vector<std::uint8_t> key() const {
        const std::string hex = text("key");
        std::vector<std::uint8_t> bytes;
        for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
            bytes.push_back(
                static_cast<std::uint8_t>(std::strtoul(hex.substr(i, 2).c_str(), nullptr, 16)));
        return bytes;
    }

  private:
    std::map<std::string, std::string> values_;
};

/// One direction of the tunnel: its SA, and the policies of packets that take it.
void program(esplane::engine& e, const options& o, bool out) {
    const auto key = o.key();
    const esplane::address from = o.address(out ? "local" : "peer");
    const esplane::address to = o.address(out ? "peer" : "local");

    esplane::sa sa;
    sa.id.destination = to;
    sa.id.spi = o.number(out ? "spi-out" : "spi-in");
    sa.source = from;
    sa.reqid = 1;
    sa.replay_window = 64;
    sa.aead = esplane::algorithm("rfc4106(gcm(aes))", key, 128);
    must(e.add(sa, esplane::now()));

    esplane::policy_template via;
    via.family = ESPLANE_IPV4;
    via.source = from;
    via.id.destination = to;
    via.reqid = 1;
    const network source = o.net(out ? "net" : "peer-net");
    const network destination = o.net(out ? "peer-net" : "net");
    esplane::policy p;
    p.direction = out ? ESPLANE_OUT : ESPLANE_FORWARD;
    p.selector.family = ESPLANE_IPV4;
    p.selector.source = source.address;
    p.selector.source_prefix = source.bits;
    p.selector.destination = destination.address;
    p.selector.destination_prefix = destination.bits;
    p.templates = &via;
    p.template_count = 1;
    must(e.add(p, esplane::now()));
}

void start_port(std::uint16_t port, rte_mempool* pool) {
    const rte_eth_conf plain{};
    if (rte_eth_dev_configure(port, 1, 1, &plain) != 0 ||
        rte_eth_rx_queue_setup(port, 0, ring_size, rte_eth_dev_socket_id(port), nullptr, pool) !=
            0 ||
        rte_eth_tx_queue_setup(port, 0, ring_size, rte_eth_dev_socket_id(port), nullptr) != 0 ||
        rte_eth_dev_start(port) != 0)
        give_up("port " + std::to_string(port) + " does not start");
    (void)rte_eth_promiscuous_enable(port); // not every device can, and some need not
}

/// Frames of one port on their way to the other.
class forwarder {
  public:
    explicit forwarder(esplane::worker& worker)
        : worker_(worker) {}

    /// Returns how many frames came in.
    unsigned turn(std::uint16_t from) {
        std::array<rte_mbuf*, burst> frames;
        const std::uint16_t n = rte_eth_rx_burst(from, 0, frames.data(), burst);
        const unsigned count = describe(frames, n);
        const std::span<esplane::packet> packets(packets_.data(), count);
        if (from == plain_port)
            must(worker_.outbound(packets, esplane::now(), ESPLANE_FROM_OUTSIDE));
        else
            must(worker_.inbound(packets, esplane::now()));
        send(packets, from == plain_port ? secure_port : plain_port);
        must(worker_.quiescent());
        return n;
    }

    [[nodiscard]] std::uint64_t sent() const { return sent_; }
    [[nodiscard]] std::uint64_t dropped() const { return dropped_; }

  private:
    /// The IP packets of frames; what is no IP, in several pieces, or held by somebody else too
    /// (the engine writes into it) ends here.
    unsigned describe(const std::array<rte_mbuf*, burst>& frames, std::uint16_t n) {
        unsigned count = 0;
        for (std::uint16_t i = 0; i < n; ++i) {
            rte_mbuf* m = frames[i];
            const auto* ether = rte_pktmbuf_mtod(m, const rte_ether_hdr*);
            if (m->nb_segs != 1 || rte_mbuf_refcnt_read(m) != 1 || !RTE_MBUF_DIRECT(m) ||
                m->data_len <= ether_bytes ||
                (ether->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4) &&
                 ether->ether_type != rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV6))) {
                drop(m);
                continue;
            }
            esplane::packet& p = packets_[count++];
            p = {};
            p.data = rte_pktmbuf_mtod_offset(m, std::uint8_t*, ether_bytes);
            p.length = m->data_len - ether_bytes;
            p.headroom = static_cast<std::uint16_t>(rte_pktmbuf_headroom(m) + ether_bytes);
            p.tailroom = rte_pktmbuf_tailroom(m);
            p.user = m;
        }
        return count;
    }

    void send(std::span<const esplane::packet> packets, std::uint16_t to) {
        std::array<rte_mbuf*, burst> out;
        std::uint16_t count = 0;
        for (const esplane::packet& p : packets) {
            auto* m = static_cast<rte_mbuf*>(p.user);
            switch (p.verdict) {
            case ESPLANE_PROTECTED:
            case ESPLANE_DECRYPTED:
            case ESPLANE_BYPASS:
                frame(m, p, to);
                out[count++] = m;
                break;
            default: // IKE and the like would go to the machine's own stack; this has none
                drop(m);
            }
        }
        const std::uint16_t taken = rte_eth_tx_burst(to, 0, out.data(), count);
        sent_ += taken;
        for (std::uint16_t i = taken; i < count; ++i)
            drop(out[i]);
    }

    /// Tells an mbuf where its packet lies now, and puts an Ethernet header in front.
    static void frame(rte_mbuf* m, const esplane::packet& p, std::uint16_t to) {
        auto* ether = reinterpret_cast<rte_ether_hdr*>(p.data - ether_bytes);
        m->data_off = static_cast<std::uint16_t>(reinterpret_cast<std::uint8_t*>(ether) -
                                                 static_cast<std::uint8_t*>(m->buf_addr));
        m->data_len = static_cast<std::uint16_t>(p.length + ether_bytes);
        m->pkt_len = m->data_len;
        (void)rte_eth_macaddr_get(to, &ether->src_addr);
        ether->dst_addr = {{0x02, 0, 0, 0, 0, static_cast<std::uint8_t>(to)}};
        ether->ether_type =
            rte_cpu_to_be_16(p.family == ESPLANE_IPV4 ? RTE_ETHER_TYPE_IPV4 : RTE_ETHER_TYPE_IPV6);
    }

    void drop(rte_mbuf* m) {
        rte_pktmbuf_free(m);
        ++dropped_;
    }

    esplane::worker& worker_;
    std::array<esplane::packet, burst> packets_;
    std::uint64_t sent_ = 0;
    std::uint64_t dropped_ = 0;
};

void print_drops(const esplane::engine& e) {
    for (std::uint16_t reason = 1; reason < esplane_reason_count(); ++reason)
        if (const std::uint64_t n = must(e.drops(reason)); n != 0)
            std::printf("dropped %llu: %s\n", static_cast<unsigned long long>(n),
                        esplane_reason_text(reason));
}

} // namespace

int main(int argc, char** argv) {
    const int taken = rte_eal_init(argc, argv);
    if (taken < 0) give_up("EAL does not start");
    if (rte_eth_dev_count_avail() != 2) give_up("two ports are needed: the plain one first");
    const options o(argc - taken - 1, argv + taken + 1);

    esplane::engine engine = must(esplane::engine::create({}));
    const esplane::address own = o.address("local");
    must(engine.set_addresses({&own, 1}));
    program(engine, o, true);
    program(engine, o, false);

    rte_mempool* pool = rte_pktmbuf_pool_create(
        "frames", pool_size, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, static_cast<int>(rte_socket_id()));
    if (pool == nullptr) give_up("no memory for mbufs");
    start_port(plain_port, pool);
    start_port(secure_port, pool);

    std::signal(SIGINT, [](int) { stopping = 1; });
    std::signal(SIGTERM, [](int) { stopping = 1; });
    {
        esplane::worker worker = must(engine.register_worker());
        forwarder f(worker);
        const std::uint64_t seconds = o.number("seconds");
        const std::uint64_t end = esplane::now().monotonic_ns + seconds * 1'000'000'000;
        while (stopping == 0 && (seconds == 0 || esplane::now().monotonic_ns < end)) {
            (void)f.turn(plain_port);
            (void)f.turn(secure_port);
            must(engine.tick(esplane::now())); // this thread makes the control calls, too
        }
        std::printf("sent %llu, dropped %llu\n", static_cast<unsigned long long>(f.sent()),
                    static_cast<unsigned long long>(f.dropped()));
    }
    print_drops(engine);
    rte_eth_dev_stop(plain_port);
    rte_eth_dev_stop(secure_port);
    return rte_eal_cleanup() == 0 ? 0 : 1;
}
