// SPDX-License-Identifier: Apache-2.0
//
// What doc/xfrm-differences.md lists, as code: what esplane may refuse that the kernel takes, and
// what may differ in two answers.  Each kind is matched as narrowly as it can be told; all else is
// a failure.
#pragma once

#include <map>
#include <set>
#include <string>

#include "tests/interop/xfrm_oracle_messages.h"

namespace esplane::tests::oracle {

/// By nlmsg_seq those requests of a datagram that esplane refuses because it does not carry what
/// they ask for, with what it says.
///
/// told          its answer, with texts
/// kernel_like   attributes that the kernel passes over may not be a reason
[[nodiscard]] std::map<std::uint32_t, std::string>
allowed_refusals(const question& q, const std::vector<item>& told, bool kernel_like);
/// The question without those requests.
[[nodiscard]] question without(const question& q, const std::set<std::uint32_t>& sequences);

/// Makes equal what may differ in two answers to one question.
class leveller {
  public:
    void operator()(std::vector<item>& ours, std::vector<item>& theirs);
    /// How often each kind was met.
    [[nodiscard]] const std::map<std::string, unsigned>& met() const noexcept { return met_; }

  private:
    std::map<std::string, unsigned> met_;
};

} // namespace esplane::tests::oracle
