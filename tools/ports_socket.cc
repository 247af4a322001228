// SPDX-License-Identifier: Apache-2.0
#include "tools/ports_socket.h"

#include <algorithm>

#include "fastpath/port_socket.h"
#include "tools/number.h"
#ifdef ESPLANE_HAVE_XDP
#include "fastpath/xdp/port_share.h"
#endif

namespace esplane::tools {

namespace {

using fastpath::socket_port;
using fastpath::socket_port_options;

constexpr std::uint32_t default_mark = 0xe5;

result<socket_port_options> socket_options_of(const port_spec& spec) {
    socket_port_options o{spec.name, spec.role, {}};
    o.sockets.mark = default_mark;
    if (!read_number(spec.device, o.sockets.port) || o.sockets.port == 0)
        return fail(EINVAL, "\"" + spec.device + "\" is no UDP port: give one, 4500 for one");
    for (const auto& [key, value] : spec.options) {
        if (key == "mark") {
            if (!read_number(value, o.sockets.mark))
                return fail(EINVAL, "mark=" + value + ": give a number, 0xe5 for one");
        } else if (value == "on" || value == "off") {
            o.sockets.segment = o.sockets.merge = value == "on";
        } else {
            return fail(EINVAL, key + "=" + value + ": choose on or off");
        }
    }
    return o;
}

class socket_opener final : public port_opener {
  public:
    socket_opener(socket_port_options options, const port_surroundings& around)
        : options_(std::move(options))
        , buffers_(around.buffers)
        , lanes_(around.lanes)
        , log_(around.log) {}

    [[nodiscard]] result<std::unique_ptr<fastpath::port>> open() override {
        std::unique_ptr<fastpath::socket_share> share;
#ifdef ESPLANE_HAVE_XDP
        share = std::make_unique<fastpath::port_share>(options_.sockets.port, lanes_);
#else
        log_(options_.name + ": a build without af_xdp shares no port: IKE daemons cannot have it");
#endif
        auto port = socket_port::open(options_, buffers_, lanes_, std::move(share));
        if (!port) return tl::unexpected(port.error());
        if (options_.sockets.merge && (*port)->mode() != "segment+merge")
            log_(options_.name + ": a system call for each packet: this kernel lacks UDP_SEGMENT "
                                 "(Linux 4.18) or UDP_GRO (Linux 5.0)");
        return std::move(*port);
    }

  private:
    socket_port_options options_;
    fastpath::buffer_pool& buffers_;
    unsigned lanes_;
    std::function<void(const std::string& line)> log_;
};

} // namespace

std::uint32_t exempt_mark(const std::vector<port_spec>& specs, const routing_options& routing) {
    const auto first_of = [&](std::string_view kind) {
        return std::ranges::find(specs, kind, &port_spec::kind);
    };
    if (const auto socket = first_of("socket"); socket != specs.end()) {
        const auto options = socket_options_of(*socket);
        return options ? options->sockets.mark : 0;
    }
    return first_of("tun") != specs.end() && routing.unless_marked ? routing.mark.value : 0;
}

std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
socket_openers(const port_surroundings& around) {
    return [around](const port_spec& spec) -> result<std::unique_ptr<port_opener>> {
        auto options = socket_options_of(spec);
        if (!options) return tl::unexpected(options.error());
        return std::make_unique<socket_opener>(std::move(*options), around);
    };
}

} // namespace esplane::tools
