// SPDX-License-Identifier: Apache-2.0
//
// A backend that writes down what it is asked and counts what a test tells it to count.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/control/backend.h"

namespace esplane::control {

class fake_backend final : public backend {
  public:
    void set_listener(backend_listener* l) override { listener = l; }

    result<void> add_sa(const ipsec::sa& s, const ipsec::packed_sa& /*packed*/) override {
        log("add_sa", s.id.spi.host());
        if (refuse) return tl::unexpected(*refuse);
        sas.insert(s.id);
        return {};
    }
    result<void> update_sa(const ipsec::sa& s) override {
        log("update_sa", s.id.spi.host());
        if (refuse) return tl::unexpected(*refuse);
        return {};
    }
    result<void> set_replay(const ipsec::sa& s, given_parts parts) override {
        log("set_replay", s.id.spi.host());
        sa_usage& u = usage[s.id];
        if (parts.replay) u.replay = s.replay;
        if (parts.counters) u.current = s.current;
        return {};
    }
    result<void> move_sa(const ipsec::sa_id& before, const ipsec::sa& s) override {
        log("move_sa", s.id.spi.host());
        if (refuse) return tl::unexpected(*refuse);
        sas.erase(before);
        sas.insert(s.id);
        if (auto counted = usage.extract(before)) {
            counted.key() = s.id;
            usage.insert(std::move(counted));
        }
        return {};
    }
    bool watch_replay(const ipsec::sa_id& id, std::uint64_t sent, std::uint64_t received) override {
        goals[id] = {sent, received};
        const auto at = usage.find(id);
        return at != usage.end() &&
               (at->second.replay.sent + ahead >= sent || at->second.replay.received >= received);
    }
    void begin_from(const ipsec::sa_id& id, const sa_usage& n) override {
        log("begin_from", id.spi.host());
        usage[id] = n;
    }
    void delete_sa(const ipsec::sa_id& id) override {
        log("delete_sa", id.spi.host());
        sas.erase(id);
        usage.erase(id);
    }
    bool query_sa(const ipsec::sa_id& id, sa_usage& into) override {
        const auto at = usage.find(id);
        if (at == usage.end()) return false;
        into = at->second;
        return true;
    }

    result<void> add_policy(const ipsec::policy& p) override {
        log("add_policy", p.index);
        if (refuse) return tl::unexpected(*refuse);
        positions[p.index] = p.position;
        return {};
    }
    result<void> update_policy(const ipsec::policy& p) override {
        log("update_policy", p.index);
        if (refuse) return tl::unexpected(*refuse);
        positions[p.index] = p.position;
        return {};
    }
    void delete_policy(std::uint32_t index) override {
        log("delete_policy", index);
        positions.erase(index);
    }
    bool query_policy(std::uint32_t index, ipsec::lifetime_current& into) override {
        const auto at = policy_usage.find(index);
        if (at == policy_usage.end()) return false;
        into = at->second;
        return true;
    }

    void set_defaults(const ipsec::default_actions& actions) override {
        std::uint32_t blocked = 0;
        for (const ipsec::policy_action a : actions)
            blocked = blocked * 10 + (a == ipsec::policy_action::block ? 1 : 0);
        log("set_defaults", blocked);
    }
    void await_sas(std::uint32_t seconds, bool hold) override {
        log(hold ? "await_sas" : "await_sas without packets", seconds);
    }

    void begin_batch() override { calls.emplace_back("begin_batch"); }
    void end_batch() override { calls.emplace_back("end_batch"); }

    /// What was called since the last time.
    std::vector<std::string> taken_calls() { return std::exchange(calls, {}); }

    backend_listener* listener = nullptr;
    std::optional<error> refuse; ///< the answer to the next additions and updates
    std::set<ipsec::sa_id> sas;
    std::map<ipsec::sa_id, sa_usage> usage;
    std::uint64_t ahead = 0; ///< what is sent before watch_replay() looks
    /// As watch_replay() said: of what is sent, of what is received.
    std::map<ipsec::sa_id, std::pair<std::uint64_t, std::uint64_t>> goals;
    std::map<std::uint32_t, std::uint64_t> positions; ///< of policies, by index
    std::map<std::uint32_t, ipsec::lifetime_current> policy_usage;

  private:
    void log(const char* call, std::uint32_t what) {
        calls.push_back(std::string(call) + " " + std::to_string(what));
    }
    std::vector<std::string> calls;
};

} // namespace esplane::control
