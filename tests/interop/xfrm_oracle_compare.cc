// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_compare.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <tuple>

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;

/// What a clock says today; clients of these tests give none so late.
constexpr std::uint64_t todays = 1'650'000'000;

/// Where struct xfrm_lifetime_cur lies in the fixed part; nullopt: nowhere.
std::optional<std::size_t> lifetime_in(std::uint16_t type) {
    switch (type) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
    case XFRM_MSG_EXPIRE:
        return offsetof(xfrm_usersa_info, curlft);
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
    case XFRM_MSG_POLEXPIRE:
        return offsetof(xfrm_userpolicy_info, curlft);
    case XFRM_MSG_ACQUIRE:
        return offsetof(xfrm_user_acquire, policy) + offsetof(xfrm_userpolicy_info, curlft);
    default:
        return std::nullopt;
    }
}

// Kinds of differences

std::string first_difference(bytes a, bytes b) {
    const auto [at, other] = std::ranges::mismatch(a, b);
    return "byte " + std::to_string(at - a.begin()) +
           (a.size() == b.size()
                ? ""
                : " (" + std::to_string(a.size()) + " and " + std::to_string(b.size()) + " bytes)");
}

std::string body_difference(const item& ours, const item& theirs) {
    const auto type = ours.header.nlmsg_type;
    const auto form = layout_of(type);
    if (!form) return first_difference(ours.payload, theirs.payload);
    const std::size_t fixed = aligned(form->fixed);
    const auto start = [&](const item& i) {
        return bytes(i.payload).first(std::min(fixed, i.payload.size()));
    };
    if (!std::ranges::equal(start(ours), start(theirs)))
        return "fixed part, " + first_difference(start(ours), start(theirs));
    const auto a = attributes_of(type, ours.payload), b = attributes_of(type, theirs.payload);
    const auto value = [](const item& i, const placed_attribute& p) {
        return bytes(i.payload).subspan(p.at, p.length);
    };
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); ++i) {
        if (i >= b.size() || (i < a.size() && a[i].type != b[i].type))
            return "attributes: ours has " +
                   (i < a.size() ? name_of_attribute(type, a[i].type) : "no more") +
                   ", the kernel's " +
                   (i < b.size() ? name_of_attribute(type, b[i].type) : "no more");
        if (i >= a.size())
            return "attributes: ours has no more, the kernel's " +
                   name_of_attribute(type, b[i].type);
        if (!std::ranges::equal(value(ours, a[i]), value(theirs, b[i])))
            return name_of_attribute(type, a[i].type) + ", " +
                   first_difference(value(ours, a[i]), value(theirs, b[i]));
    }
    return "attributes";
}

std::string item_difference(const item& ours, const item& theirs) {
    if (name_of(ours) != name_of(theirs)) {
        const auto what = [](const item& i) {
            return i.header.nlmsg_type == NLMSG_ERROR ? kind_of(verdict_of(i)) : name_of(i);
        };
        return "ours " + what(ours) + ", the kernel's " + what(theirs);
    }
    if (ours.header.nlmsg_type == NLMSG_ERROR && ours.payload != theirs.payload) {
        const verdict a = verdict_of(ours), b = verdict_of(theirs);
        if (describe(a) == describe(b))
            return "the echo of the request, " + first_difference(ours.payload, theirs.payload);
        if (kind_of(a) == kind_of(b)) return "the offset with " + kind_of(a);
        return "ours " + kind_of(a) + ", the kernel's " + kind_of(b);
    }
    if (ours.payload != theirs.payload) return name_of(ours) + ": " + body_difference(ours, theirs);
    const auto flags = [](const item& i) { return std::to_string(i.header.nlmsg_flags); };
    if (ours.header.nlmsg_flags != theirs.header.nlmsg_flags)
        return name_of(ours) + ": flags, ours " + flags(ours) + ", the kernel's " + flags(theirs);
    return name_of(ours) + ": sequence number or port id";
}

/// The kernel's clock ticks so often, and what it is asked takes a moment.
constexpr std::uint32_t slack_ms = 100;

/// How late the kernel may be with an event, in ms.
std::uint32_t most_late(const item& i, unsigned earlier_of_it) {
    constexpr std::uint32_t wheel = 640; ///< of a timer of 5 to 40 s, at 100 Hz
    return slack_ms + (i.header.nlmsg_type == XFRM_MSG_POLEXPIRE ? wheel * (earlier_of_it + 4) : 0);
}

/// What an event is about, and whether it ends that.
std::vector<std::uint8_t> object_of(const item& i) {
    std::vector<std::uint8_t> key;
    const auto add = [&](std::size_t at, std::size_t length) {
        const bytes all(i.payload);
        if (at + length > all.size()) return;
        for (const std::uint8_t b : all.subspan(at, length))
            key.push_back(b);
    };
    if (i.header.nlmsg_type == XFRM_MSG_EXPIRE) {
        add(offsetof(xfrm_user_expire, state.id.spi), sizeof(__be32));
        add(offsetof(xfrm_user_expire, hard), 1);
    }
    if (i.header.nlmsg_type == XFRM_MSG_POLEXPIRE) {
        add(offsetof(xfrm_user_polexpire, pol.index), sizeof(__u32));
        add(offsetof(xfrm_user_polexpire, hard), 1);
    }
    return key;
}

} // namespace

void normalizer::map_time(std::vector<std::uint8_t>& payload, std::size_t at) const {
    std::uint64_t value = 0;
    if (at + sizeof value > payload.size()) return;
    std::memcpy(&value, payload.data() + at, sizeof value);
    if (value < todays || value == ~std::uint64_t{0}) return;
    value = 1 + (began_s_ ? value - *began_s_ : 0);
    std::memcpy(payload.data() + at, &value, sizeof value);
}

void normalizer::map_lifetime(std::vector<std::uint8_t>& payload, std::size_t at) const {
    map_time(payload, at + offsetof(xfrm_lifetime_cur, add_time));
    map_time(payload, at + offsetof(xfrm_lifetime_cur, use_time));
}

void normalizer::map_times(item& i) const {
    const auto type = i.header.nlmsg_type;
    if (const auto at = lifetime_in(type)) map_lifetime(i.payload, *at);
    if (own_attributes(type)) return;
    for (const placed_attribute& a : attributes_of(type, i.payload)) {
        if (a.type == XFRMA_LTIME_VAL) map_lifetime(i.payload, a.at);
        if (a.type == XFRMA_SA) map_lifetime(i.payload, a.at + offsetof(xfrm_usersa_info, curlft));
        if (a.type == XFRMA_POLICY)
            map_lifetime(i.payload, a.at + offsetof(xfrm_userpolicy_info, curlft));
        if (a.type == XFRMA_LASTUSED) map_time(i.payload, a.at);
    }
}

void normalizer::map_spis(std::vector<std::uint8_t>& payload) {
    for (std::size_t at = 0; at + 4 <= payload.size(); at += 4) {
        std::uint32_t word = 0;
        std::memcpy(&word, payload.data() + at, sizeof word);
        const std::uint32_t spi = __builtin_bswap32(word);
        if (spi < first_random_spi || spi > last_random_spi) continue;
        word = 0xa5a50000u + spis_.emplace(word, spis_.size()).first->second;
        std::memcpy(payload.data() + at, &word, sizeof word);
    }
}

std::vector<item> normalizer::operator()(const answer& a) {
    std::vector<item> all;
    for (const heard& h : a) {
        bytes rest(h.bytes);
        while (const auto m = next_message(rest)) {
            item i{
                h.group, m->header, {m->payload().begin(), m->payload().end()}, h.at_ms, h.later};
            if (is_reply(i)) map_times(i);
            map_spis(i.payload);
            all.push_back(std::move(i));
        }
    }
    // Where a dump goes on between other replies depends on the size of its datagrams.
    std::stable_partition(all.begin(), all.end(), [](const item& i) {
        return i.group != 0 || (i.header.nlmsg_flags & NLM_F_MULTI) == 0;
    });
    return all;
}

std::optional<std::string> difference(const question& q, const std::vector<item>& ours,
                                      const std::vector<item>& theirs) {
    if (ours == theirs) return std::nullopt;
    const auto [a, b] = std::ranges::mismatch(ours, theirs);
    const auto what = [](const item& i) {
        return i.header.nlmsg_type == NLMSG_ERROR ? describe(verdict_of(i)) : name_of(i);
    };
    if (a == ours.end()) return request_name(q, *b) + ": ours lacks " + what(*b);
    if (b == theirs.end()) return request_name(q, *a) + ": the kernel's lacks " + what(*a);
    return request_name(q, *a) + ": " + item_difference(*a, *b);
}

void sort_later(std::vector<item>& all) {
    std::ranges::stable_sort(all, [](const item& a, const item& b) {
        return std::tuple(a.header.nlmsg_type, object_of(a), a.at_ms) <
               std::tuple(b.header.nlmsg_type, object_of(b), b.at_ms);
    });
}

std::optional<std::string> later_difference(const std::vector<item>& ours,
                                            const std::vector<item>& theirs) {
    const auto when = [](const item& i) {
        return name_of(i) + " at " + std::to_string(i.at_ms) + " ms";
    };
    unsigned earlier = 0; ///< events of the same kind
    for (std::size_t i = 0; i < std::max(ours.size(), theirs.size()); ++i) {
        if (i >= theirs.size()) return "later: the kernel's lacks " + when(ours[i]);
        if (i >= ours.size()) return "later: ours lacks " + when(theirs[i]);
        if (ours[i] != theirs[i])
            return "later: " + when(ours[i]) + ", the kernel's " + when(theirs[i]) + ": " +
                   item_difference(ours[i], theirs[i]);
        earlier = i > 0 && object_of(ours[i]) == object_of(ours[i - 1]) ? earlier + 1 : 0;
        if (theirs[i].at_ms + slack_ms < ours[i].at_ms ||
            theirs[i].at_ms > ours[i].at_ms + most_late(ours[i], earlier))
            return "later: " + when(ours[i]) + ", the kernel's " + when(theirs[i]);
    }
    return std::nullopt;
}

} // namespace esplane::tests::oracle
