// SPDX-License-Identifier: Apache-2.0
#include "tools/ports_tun.h"

#include <net/if.h>

#include "fastpath/port_host.h"
#include "tools/number.h"

namespace esplane::tools {

namespace {

using fastpath::host_port;
using fastpath::host_port_options;

constexpr std::uint32_t smallest_mtu = 1280; ///< of a link that carries IPv6: RFC 8200 section 5

result<host_port_options> tun_options_of(const port_spec& spec) {
    if (spec.role != fastpath::port_role::host)
        return fail(EINVAL, "a tun port is the machine itself: give role=host");
    host_port_options o{.name = spec.name, .device = spec.device};
    for (const auto& [key, value] : spec.options) {
        if (key == "mtu") {
            if (!read_number(value, o.mtu) || o.mtu < smallest_mtu ||
                o.mtu > host_port::largest_mtu)
                return fail(EINVAL, "mtu=" + value + ": give a number from " +
                                        std::to_string(smallest_mtu) + " to " +
                                        std::to_string(host_port::largest_mtu));
        } else if (key == "mark") {
            if (!read_mark(value, o.mark))
                return fail(EINVAL, "mark=" + value +
                                        ": give a value, or a value and its mask: "
                                        "0x10/0xff for one");
        } else if (value == "on" || value == "off") {
            o.coalesce = value == "on";
        } else {
            return fail(EINVAL, key + "=" + value + ": choose on or off");
        }
    }
    return o;
}

/// The device outlives the daemon: what routes lead into it stays blocked meanwhile.
class tun_opener final : public port_opener {
  public:
    tun_opener(host_port_options options, const port_surroundings& around)
        : options_(std::move(options))
        , buffers_(around.buffers)
        , lanes_(around.lanes)
        , log_(around.log)
        , kept_(static_cast<int>(::if_nametoindex(options_.device.c_str()))) {}

    [[nodiscard]] int guarded_ifindex() const override {
        return port_ != nullptr ? port_->ifindex() : kept_;
    }
    [[nodiscard]] int kept_twin() const override { return kept_; }

    [[nodiscard]] result<std::unique_ptr<fastpath::port>> open() override {
        auto port = host_port::open(options_, buffers_, lanes_);
        if (!port) return tl::unexpected(port.error());
        port_ = port->get();
        if (const std::string line = port_->lacking(); !line.empty())
            log_(options_.name + ": " + line);
        return std::move(*port);
    }
    [[nodiscard]] bool let_go() noexcept override { return true; }

  private:
    host_port_options options_;
    fastpath::buffer_pool& buffers_;
    unsigned lanes_;
    std::function<void(const std::string& line)> log_;
    int kept_;                        ///< was there before
    const host_port* port_ = nullptr; ///< the set's, once it is open
};

} // namespace

std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
tun_openers(const port_surroundings& around) {
    return [around](const port_spec& spec) -> result<std::unique_ptr<port_opener>> {
        auto options = tun_options_of(spec);
        if (!options) return tl::unexpected(options.error());
        return std::make_unique<tun_opener>(std::move(*options), around);
    };
}

} // namespace esplane::tools
