// SPDX-License-Identifier: Apache-2.0
//
// What may pass through the tunnels: inner packets are judged in clear, before they are encrypted
// and after they were decrypted.
//
// `packet_filter` is the hook: an embedder's own, or `rule_filter`, the small one that esplaned
// offers.  tables::set_filter() puts one in force, while packets flow.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fastpath/counters.h"
#include "fastpath/filter_rule.h"
#include "fastpath/packet.h"

namespace esplane::fastpath {

enum class filter_direction : std::uint8_t {
    in,  ///< came out of an SA; not yet held against `in` and `fwd`
    out, ///< a policy protects it and an SA carries it; not yet encrypted
};

class packet_filter {
  public:
    virtual ~packet_filter() = default;

    /// Judges a burst: bit i of the result set, packets[i] is dropped (filter_denied).
    ///
    /// packets   1 to max_burst, parsed: data at the IP header, with family, protocol and ports;
    ///           not to be changed
    /// lane      calls of one lane follow each other, those of different lanes do not
    ///
    /// Between rx and tx: no lock, no allocation, no system call.
    [[nodiscard]] virtual std::uint64_t deny(filter_direction d, unsigned lane,
                                             std::span<packet* const> packets) noexcept = 0;
};

/// An ordered list of rules: the first that matches decides; what none matches passes.
class rule_filter final : public packet_filter {
  public:
    /// Each packet may be held against all of them.
    static constexpr std::size_t most_rules = 256;

    /// lanes   of the engine.  rules   at most most_rules
    rule_filter(std::vector<filter_rule> rules, unsigned lanes);
    ~rule_filter() override;

    [[nodiscard]] std::uint64_t deny(filter_direction d, unsigned lane,
                                     std::span<packet* const> packets) noexcept override;

    struct hits {
        std::uint64_t packets = 0;
        std::uint64_t bytes = 0; ///< of inner IP packets
    };
    [[nodiscard]] const std::vector<filter_rule>& rules() const noexcept { return rules_; }
    /// What each rule decided, of all lanes; control's.
    [[nodiscard]] std::vector<hits> count() const;

  private:
    struct matcher;
    struct lane_counters;

    std::vector<filter_rule> rules_;
    std::vector<matcher> matchers_; ///< in step with rules_
    std::vector<lane_counters> lanes_;
};

struct stage;
class packet_list;
struct protect_item;

/// Drops what the filter in force denies of those that came out of an SA, from index `first` on.
void filter_decrypted(stage& s, packet_list& packets, unsigned first) noexcept;
/// The same of those about to be encrypted.  Returns how many remain, in order at the front.
[[nodiscard]] std::size_t filter_protected(stage& s, std::span<protect_item> items) noexcept;

} // namespace esplane::fastpath
