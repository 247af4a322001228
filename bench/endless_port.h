// SPDX-License-Identifier: Apache-2.0
//
// A port without a device that is never out of packets: the same frames over and over, lane by
// lane.
#pragma once

#include <optional>

#include "bench/path.h"
#include "lib/ipsec/replay.h"

namespace esplane::bench {

/// Never out of packets, and takes everything.
class endless_port final : public ready_port {
  public:
    endless_port(std::string name, fastpath::buffer_pool& pool, unsigned lanes)
        : ready_port(std::move(name))
        , pool_(pool)
        , lanes_(lanes) {}

    /// What a lane is fed with, over and over.
    void feed(unsigned lane, std::vector<frame> source) { lanes_[lane].source = std::move(source); }
    /// Frames that lanes have sent.
    [[nodiscard]] std::uint64_t sent() const noexcept {
        std::uint64_t sum = 0;
        for (const feed_state& l : lanes_)
            sum += l.sent.get();
        return sum;
    }
    /// From now on sent ESP is held against a peer's window.
    void check_order() { window_.emplace(32); }
    [[nodiscard]] std::uint64_t refused() const noexcept { return refused_; }

    [[nodiscard]] unsigned lanes() const noexcept override {
        return static_cast<unsigned>(lanes_.size());
    }
    [[nodiscard]] std::size_t receive(unsigned at, std::span<packet> into) noexcept override {
        feed_state& l = lanes_[at];
        if (l.source.empty()) return 0;
        std::size_t n = 0;
        for (; n < std::min<std::size_t>(into.size(), 32); ++n) {
            const frame& f = l.source[l.next];
            if (!pool_.allocate(into[n], static_cast<std::uint32_t>(f.size()))) break;
            std::memcpy(into[n].data, f.data(), 64); // the rest is payload
            into[n].extend(static_cast<int>(f.size()));
            l.next = l.next + 1 == l.source.size() ? 0 : l.next + 1;
        }
        return n;
    }
    [[nodiscard]] std::size_t send(unsigned at,
                                   std::span<packet* const> frames_out) noexcept override {
        if (window_) judge(frames_out);
        lanes_[at].sent.add(frames_out.size());
        pool_.release(frames_out);
        return frames_out.size();
    }

  private:
    struct alignas(64) feed_state {
        std::vector<frame> source;
        std::size_t next = 0;
        fastpath::counter sent;
    };
    /// One worker sends all packets of an SA, so one thread comes here.
    void judge(std::span<packet* const> sent_frames) noexcept {
        for (const packet* p : sent_frames) {
            const std::uint8_t* esp =
                p->data + sizeof(wire::ethernet_header) + sizeof(wire::ipv4_header);
            const std::uint32_t number = wire::load<wire::be32>(esp + 4).host();
            if (window_->commit(number) != ipsec::replay_verdict::fresh) ++refused_;
        }
    }

    fastpath::buffer_pool& pool_;
    std::vector<feed_state> lanes_;
    std::optional<ipsec::replay_window> window_;
    std::uint64_t refused_ = 0;
};

} // namespace esplane::bench
