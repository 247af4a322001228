// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <utility>

#include "fastpath/port.h"

namespace esplane::bench {

/// Frames are there already, and the device takes everything: only the path is timed.
class ready_port : public fastpath::port {
  public:
    explicit ready_port(std::string name = "ready")
        : name_(std::move(name)) {}
    [[nodiscard]] std::size_t receive(unsigned, std::span<fastpath::packet>) noexcept override {
        return 0;
    }
    [[nodiscard]] std::size_t send(unsigned,
                                   std::span<fastpath::packet* const> f) noexcept override {
        return f.size();
    }
    [[nodiscard]] std::size_t punt(unsigned, std::span<fastpath::packet* const>) noexcept override {
        return 0;
    }
    void flush(unsigned) noexcept override {}
    [[nodiscard]] std::span<const int> descriptors(unsigned) const noexcept override { return {}; }
    [[nodiscard]] fastpath::port_counters counters() const noexcept override { return {}; }
    [[nodiscard]] const std::string& name() const noexcept override { return name_; }
    [[nodiscard]] const std::string& device() const noexcept override { return name_; }
    [[nodiscard]] const char* kind() const noexcept override { return "bench"; }
    [[nodiscard]] int ifindex() const noexcept override { return 0; }
    [[nodiscard]] fastpath::port_role role() const noexcept override {
        return fastpath::port_role::plain;
    }

  private:
    std::string name_;
};

} // namespace esplane::bench
