// SPDX-License-Identifier: Apache-2.0
//
// A listener that writes events down as lines a test can compare.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/ipsec/event.h"

namespace esplane::control {

class event_log final : public ipsec::listener {
  public:
    void on_event(const ipsec::event& e) override {
        std::visit([this](const auto& what) { lines_.push_back(line(what)); }, e);
    }

    /// What happened since the last time.
    std::vector<std::string> taken() { return std::exchange(lines_, {}); }

  private:
    static std::string name(const ipsec::sa& s) { return " " + std::to_string(s.id.spi.host()); }
    static std::string name(const ipsec::policy& p) { return " " + std::to_string(p.index); }
    static std::string packets(const ipsec::sa& s) {
        return s.current.packets == 0 ? "" : " packets " + std::to_string(s.current.packets);
    }
    static std::string who(const ipsec::originator& by) {
        return by.port_id == 0 ? "" : " by " + std::to_string(by.port_id);
    }
    static std::string strength(bool hard) { return hard ? " hard" : " soft"; }

    static std::string line(const ipsec::sa_added& e) {
        return "sa added" + name(e.what) + who(e.by);
    }
    static std::string line(const ipsec::sa_updated& e) {
        return "sa updated" + name(e.what) + who(e.by);
    }
    static std::string line(const ipsec::sa_deleted& e) {
        return "sa deleted" + name(e.what) + packets(e.what) + who(e.by);
    }
    static std::string line(const ipsec::sa_flushed& e) {
        return "sas flushed " + std::to_string(e.protocol) + who(e.by);
    }
    static std::string line(const ipsec::sa_expired& e) {
        return "sa expired" + name(e.what) + packets(e.what) + strength(e.hard);
    }
    static std::string line(const ipsec::acquire& e) {
        return "acquire" + name(e.what) + " " + e.larval.sel.to_string();
    }
    static std::string line(const ipsec::sa_mapping& e) {
        return "sa mapping" + name(e.what) + " " + e.source.to_string() + " " +
               std::to_string(e.port.host());
    }
    static std::string line(const ipsec::sa_moved& e) {
        constexpr const char* whys[] = {" asked", " threshold", " timer", " given"};
        return "sa moved" + name(e.what) + whys[static_cast<std::size_t>(e.why)] + who(e.by);
    }
    static std::string line(const ipsec::policies_migrated& e) {
        return "migrated " + e.what.selected.sel.to_string() + who(e.by);
    }
    static std::string line(const ipsec::packet_reported& e) {
        return "reported " + e.sel.to_string();
    }
    static std::string line(const ipsec::defaults_changed& e) {
        std::string text = "defaults";
        for (const ipsec::policy_action a : e.what)
            text += a == ipsec::policy_action::block ? " block" : " allow";
        return text;
    }
    static std::string line(const ipsec::policy_added& e) {
        return "policy added" + name(e.what) + who(e.by);
    }
    static std::string line(const ipsec::policy_updated& e) {
        return "policy updated" + name(e.what) + who(e.by);
    }
    static std::string line(const ipsec::policy_deleted& e) {
        return "policy deleted" + name(e.what) + (e.by_index ? " by index" : "");
    }
    static std::string line(const ipsec::policy_flushed& e) {
        return std::string(e.type == ipsec::policy_type::sub ? "sub-" : "") + "policies flushed" +
               who(e.by);
    }
    static std::string line(const ipsec::policy_expired& e) {
        return "policy expired" + name(e.what) + strength(e.hard);
    }

    std::vector<std::string> lines_;
};

} // namespace esplane::control
