// SPDX-License-Identifier: Apache-2.0
//
// Two answers to one question: made comparable, compared, shown.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "tests/interop/xfrm_oracle_session.h"

namespace esplane::tests::oracle {

/// One message that was heard, or asked.
struct item {
    std::uint32_t group = 0;
    nlmsghdr header{};
    std::vector<std::uint8_t> payload;

    friend bool operator==(const item& a, const item& b) {
        return a.group == b.group && a.header.nlmsg_type == b.header.nlmsg_type &&
               a.header.nlmsg_flags == b.header.nlmsg_flags &&
               a.header.nlmsg_seq == b.header.nlmsg_seq &&
               a.header.nlmsg_pid == b.header.nlmsg_pid && a.payload == b.payload;
    }
};

/// Makes the answers of one side to one session comparable: datagrams of a dump are one, times that
/// are now become 1, SPIs that were given by chance become numbers in the order they were given,
/// sizes of hash tables go.
class normalizer {
  public:
    /// texts   whether what is said in words counts: kernels before 6.2 say less
    explicit normalizer(bool texts)
        : texts_(texts) {}
    std::vector<item> operator()(const answer& a);

  private:
    void map_spis(std::vector<std::uint8_t>& payload);
    void drop_words(item& i) const;

    bool texts_;
    std::map<std::uint32_t, std::uint32_t> spis_;
};

/// nlmsg_seq of those requests in a datagram that esplane refuses and says so because it does not
/// carry what they ask for: doc/xfrm-differences.md.  With the kind of each.
[[nodiscard]] std::map<std::uint32_t, std::string> listed_refusals(const question& q,
                                                                   const answer& ours);
/// The question without those requests.
[[nodiscard]] question without(const question& q, const std::set<std::uint32_t>& sequences);

/// What kind of difference there is; nullopt: none.
[[nodiscard]] std::optional<std::string>
difference(const question& q, const std::vector<item>& ours, const std::vector<item>& theirs);

// As text
[[nodiscard]] std::string show(const question& q);
[[nodiscard]] std::string show(const std::vector<item>& items);

} // namespace esplane::tests::oracle
