// SPDX-License-Identifier: Apache-2.0
#include "fastpath/port_pcap.h"

#include <pcap/pcap.h>

namespace esplane::fastpath {

namespace {

constexpr int snap_length = 65535;

bool is_raw_ip(int link_type) noexcept {
    return link_type == DLT_RAW || link_type == DLT_IPV4 || link_type == DLT_IPV6;
}

} // namespace

struct pcap_port::files {
    pcap_t* in = nullptr;
    pcap_t* shape = nullptr; ///< link type and precision of the output
    pcap_dumper_t* out = nullptr;
    bool ethernet = false;

    ~files() {
        if (out != nullptr) pcap_dump_close(out);
        if (shape != nullptr) pcap_close(shape);
        if (in != nullptr) pcap_close(in);
    }
};

result<std::unique_ptr<pcap_port>> pcap_port::open(const std::string& in, const std::string& out,
                                                   buffer_pool& pool) {
    auto f = std::make_unique<files>();
    char text[PCAP_ERRBUF_SIZE];
    f->in = pcap_open_offline_with_tstamp_precision(in.c_str(), PCAP_TSTAMP_PRECISION_NANO, text);
    if (f->in == nullptr) return fail(EINVAL, in + ": " + text);
    const int link_type = pcap_datalink(f->in);
    f->ethernet = link_type == DLT_EN10MB;
    if (!f->ethernet && !is_raw_ip(link_type)) {
        const char* name = pcap_datalink_val_to_name(link_type);
        return fail(EOPNOTSUPP, in + ": link type " + (name != nullptr ? name : "unknown") +
                                    ": only Ethernet and raw IP captures can be read");
    }
    f->shape =
        pcap_open_dead_with_tstamp_precision(link_type, snap_length, PCAP_TSTAMP_PRECISION_NANO);
    f->out = pcap_dump_open(f->shape, out.c_str());
    if (f->out == nullptr) return fail(EINVAL, pcap_geterr(f->shape));
    return std::unique_ptr<pcap_port>(new pcap_port(std::move(f), in, pool));
}

pcap_port::pcap_port(std::unique_ptr<files> f, std::string name, buffer_pool& pool)
    : files_(std::move(f))
    , name_(std::move(name))
    , pool_(pool)
    , origins_(pool.count()) {}

pcap_port::~pcap_port() = default;

result<void> pcap_port::close() {
    const bool written = pcap_dump_flush(files_->out) == 0;
    pcap_dump_close(std::exchange(files_->out, nullptr));
    if (!written) return fail(EIO, "the output capture could not be written whole: disk full?");
    return {};
}

std::size_t pcap_port::receive(unsigned, std::span<packet> into) noexcept {
    std::size_t n = 0;
    while (n < into.size() && !at_end_) {
        pcap_pkthdr* header = nullptr;
        const std::uint8_t* frame = nullptr;
        const int got = pcap_next_ex(files_->in, &header, &frame);
        if (got != 1) {
            at_end_ = true;
            if (got != PCAP_ERROR_BREAK) trouble_ = pcap_geterr(files_->in);
            break;
        }
        last_.seconds = header->ts.tv_sec;
        last_.nanoseconds = header->ts.tv_usec;
        if (header->caplen < header->len)
            ++cut_short_;
        else if (fill(into[n], frame, header->caplen))
            ++n;
    }
    return n;
}

/// Puts the IP packet of a frame into a buffer; false where it has none or is too long.
bool pcap_port::fill(packet& into, const std::uint8_t* frame, std::uint32_t length) noexcept {
    if (files_->ethernet) {
        if (length < sizeof(wire::ethernet_header)) {
            ++not_ip_;
            return false;
        }
        const auto ethernet = wire::load<wire::ethernet_header>(frame);
        const std::uint16_t type = ethernet.type.host();
        if (type != wire::ethertype_ipv4 && type != wire::ethertype_ipv6) {
            ++not_ip_;
            return false;
        }
        last_.destination = ethernet.destination;
        last_.source = ethernet.source;
        frame += sizeof ethernet;
        length -= static_cast<std::uint32_t>(sizeof ethernet);
    }
    if (length > buffer_pool::frame_size - 2 * buffer_pool::headroom ||
        !pool_.allocate(into, length)) {
        ++too_long_;
        return false;
    }
    std::memcpy(into.data, frame, length);
    into.extend(static_cast<int>(length));
    origins_[into.handle / buffer_pool::frame_size] = last_;
    ++counters_.rx_packets;
    counters_.rx_bytes += length;
    return true;
}

void pcap_port::write(const packet& p) noexcept {
    const bool ours = (p.flags & packet_flag::created) != 0;
    const origin& o = ours ? last_ : origins_[p.handle / buffer_pool::frame_size];
    scratch_.clear();
    if (files_->ethernet) {
        wire::ethernet_header ethernet{};
        ethernet.destination = ours ? o.source : o.destination; // an ICMP error goes back
        ethernet.source = ours ? o.destination : o.source;
        ethernet.type.set((p.data[0] >> 4) == 4 ? wire::ethertype_ipv4 : wire::ethertype_ipv6);
        const auto* bytes = reinterpret_cast<const std::uint8_t*>(&ethernet);
        scratch_.insert(scratch_.end(), bytes, bytes + sizeof ethernet);
    }
    scratch_.insert(scratch_.end(), p.data, p.data + p.length);
    pcap_pkthdr header{};
    header.ts.tv_sec = o.seconds;
    header.ts.tv_usec = o.nanoseconds;
    header.caplen = header.len = static_cast<bpf_u_int32>(scratch_.size());
    pcap_dump(reinterpret_cast<u_char*>(files_->out), &header, scratch_.data());
    ++counters_.tx_packets;
    counters_.tx_bytes += p.length;
}

std::size_t pcap_port::send(unsigned, std::span<packet* const> frames) noexcept {
    for (packet* p : frames) {
        write(*p);
        p->owner->release({&p, 1});
    }
    return frames.size();
}

std::size_t pcap_port::punt(unsigned, std::span<packet* const> frames) noexcept {
    for (const packet* p : frames)
        write(*p);
    counters_.punted += frames.size();
    return frames.size();
}

} // namespace esplane::fastpath
