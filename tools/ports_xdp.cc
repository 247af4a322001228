// SPDX-License-Identifier: Apache-2.0
#include "tools/ports_xdp.h"

#include "fastpath/xdp/bpf.h"
#include "fastpath/xdp/guard.h"
#include "fastpath/xdp/port_xdp.h"
#include "fastpath/xdp/umem.h"

namespace esplane::tools {

namespace {

class xdp_opener final : public port_opener {
  public:
    xdp_opener(const port_spec& spec, std::unique_ptr<fastpath::guard> guard,
               std::shared_ptr<fastpath::umem> memory)
        : spec_(spec)
        , guard_(std::move(guard))
        , memory_(std::move(memory)) {}

    [[nodiscard]] int guarded_ifindex() const override { return guard_->ifindex(); }
    [[nodiscard]] fastpath::guard* guard() noexcept override { return guard_.get(); }
    [[nodiscard]] result<void> attach() override { return guard_->attach(); }
    [[nodiscard]] result<std::unique_ptr<fastpath::port>> open() override {
        return fastpath::xdp_port::open({spec_.name, spec_.device, spec_.role}, *memory_, *guard_);
    }

  private:
    port_spec spec_;
    std::unique_ptr<fastpath::guard> guard_;
    std::shared_ptr<fastpath::umem> memory_;
};

} // namespace

std::function<result<std::unique_ptr<port_opener>>(const port_spec&)>
xdp_openers(const port_surroundings& around) {
    fastpath::silence_bpf_libraries();
    return [&pool = around.buffers, memory = std::shared_ptr<fastpath::umem>()](
               const port_spec& spec) mutable -> result<std::unique_ptr<port_opener>> {
        if (auto there = check_device(spec.device); !there) return tl::unexpected(there.error());
        auto guard = fastpath::guard::open(spec.device);
        if (!guard) return tl::unexpected(guard.error());
        if (!memory) {
            auto made = fastpath::umem::make(pool);
            if (!made) return tl::unexpected(made.error());
            memory = std::move(*made);
        }
        return std::make_unique<xdp_opener>(spec, std::move(*guard), memory);
    };
}

} // namespace esplane::tools
