// SPDX-License-Identifier: Apache-2.0
#include "tools/ports_xdp.h"

#include <charconv>

#include "fastpath/xdp/guard.h"
#include "fastpath/xdp/port_xdp.h"
#include "tools/xdp_helper.h"

namespace esplane::tools {

namespace {

using fastpath::xdp_port_options;

result<void> read_busy_poll(const std::string& text, unsigned& us) {
    constexpr unsigned most = 10000;
    const char* const end = text.data() + text.size();
    const auto [stop, code] = std::from_chars(text.data(), end, us);
    if (code == std::errc() && stop == end && us <= most) return {};
    return fail(EINVAL, "busy-poll=" + text + ": give microseconds, 0 to " + std::to_string(most));
}

result<xdp_port_options> xdp_options_of(const port_spec& spec, unsigned workers) {
    xdp_port_options o{spec.name, spec.device, spec.role, workers};
    for (const auto& [key, value] : spec.options) {
        result<void> read;
        if (key == "mode") {
            const auto wish = fastpath::parse_xdp_wish(value);
            if (!wish) return tl::unexpected(wish.error());
            o.wish = *wish;
        } else if (key == "busy-poll") {
            read = read_busy_poll(value, o.busy_poll_us);
        }
        if (!read) return tl::unexpected(read.error());
    }
    return o;
}

class xdp_opener final : public port_opener {
  public:
    xdp_opener(xdp_port_options options, std::unique_ptr<fastpath::guard> guard,
               const port_surroundings& around)
        : options_(std::move(options))
        , guard_(std::move(guard))
        , buffers_(around.buffers)
        , log_(around.log) {}

    [[nodiscard]] int guarded_ifindex() const override { return guard_->ifindex(); }
    [[nodiscard]] fastpath::guard* guard() noexcept override { return guard_.get(); }
    [[nodiscard]] bool is_covered() const override { return guard_->is_covered(); }
    [[nodiscard]] result<void> attach() override { return guard_->attach(options_.wish); }
    [[nodiscard]] result<std::unique_ptr<fastpath::port>> open() override {
        if (options_.busy_poll_us != 0) try_busy_poll();
        auto opened = fastpath::xdp_port::open(options_, buffers_, *guard_);
        if (opened) port_ = opened->get();
        return opened;
    }
    [[nodiscard]] bool let_go() noexcept override {
        if (port_ != nullptr) port_->let_go();
        return true;
    }

  private:
    void try_busy_poll() {
        const auto tried = guard_->means().open_socket(options_.busy_poll_us);
        if (tried) return;
        log_(options_.device + ": " + tried.error().text + "; it is done without");
        options_.busy_poll_us = 0;
    }

    xdp_port_options options_;
    std::unique_ptr<fastpath::guard> guard_;
    fastpath::xdp_port* port_ = nullptr; ///< once it is open
    fastpath::buffer_pool& buffers_;
    std::function<void(const std::string& line)> log_;
};

} // namespace

std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
xdp_openers(const port_surroundings& around) {
    return [around](const port_spec& spec) -> result<std::unique_ptr<port_opener>> {
        auto options = xdp_options_of(spec, around.lanes);
        if (!options) return tl::unexpected(options.error());
        if (auto there = check_device(spec.device); !there) return tl::unexpected(there.error());
        auto means = means_of_this_process();
        if (!means) return tl::unexpected(means.error());
        auto guard = fastpath::guard::open(spec.device, std::move(*means));
        if (!guard) return tl::unexpected(guard.error());
        return std::make_unique<xdp_opener>(std::move(*options), std::move(*guard), around);
    };
}

} // namespace esplane::tools
