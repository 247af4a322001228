// SPDX-License-Identifier: Apache-2.0
#include "tools/ports_packet.h"

#include "fastpath/port_packet.h"

namespace esplane::tools {

namespace {

using fastpath::packet_port;

result<fastpath::packet_port_options> packet_options_of(const port_spec& spec) {
    fastpath::packet_port_options o{spec.name, spec.device, spec.role};
    for (const auto& [key, value] : spec.options) {
        if (value != "keep" && value != "bypass")
            return fail(EINVAL, key + "=" + value + ": choose keep or bypass");
        o.bypass_qdisc = value == "bypass";
    }
    return o;
}

class packet_opener final : public port_opener {
  public:
    packet_opener(fastpath::packet_port_options options, const port_surroundings& around,
                  std::shared_ptr<const fastpath::esp_hold> hold)
        : options_(std::move(options))
        , buffers_(around.buffers)
        , lanes_(around.lanes)
        , log_(around.log)
        , hold_(std::move(hold)) {}

    [[nodiscard]] result<std::unique_ptr<fastpath::port>> open() override {
        auto port = packet_port::open(options_, buffers_, lanes_);
        if (!port) return tl::unexpected(port.error());
        const std::string about = options_.name + ": a packet port: ";
        log_(about + "what the machine itself sends and is sent in clear is not held against "
                     "policies (an xdp port does that)");
        if (const std::string& why = (*port)->no_way_up(); !why.empty())
            log_(about + "what comes out of a tunnel for the machine itself is dropped (" + why +
                 ")");
        return std::move(*port);
    }

  private:
    fastpath::packet_port_options options_;
    fastpath::buffer_pool& buffers_;
    unsigned lanes_;
    std::function<void(const std::string& line)> log_;
    std::shared_ptr<const fastpath::esp_hold> hold_;
};

} // namespace

std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
packet_openers(const port_surroundings& around) {
    return [around, hold = std::shared_ptr<const fastpath::esp_hold>()](
               const port_spec& spec) mutable -> result<std::unique_ptr<port_opener>> {
        auto options = packet_options_of(spec);
        if (!options) return tl::unexpected(options.error());
        if (auto there = check_device(spec.device); !there) return tl::unexpected(there.error());
        if (!hold) {
            auto held = fastpath::esp_hold::open();
            if (!held) return tl::unexpected(held.error());
            hold = std::make_shared<const fastpath::esp_hold>(std::move(*held));
        }
        return std::make_unique<packet_opener>(std::move(*options), around, hold);
    };
}

} // namespace esplane::tools
