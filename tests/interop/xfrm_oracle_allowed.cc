// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/xfrm_oracle_allowed.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <netinet/in.h>
#include <optional>
#include <span>
#include <string_view>
#include <sys/socket.h>

namespace esplane::tests::oracle {

namespace {

using namespace esplane::xfrm;
using namespace std::string_view_literals;

using payload = std::vector<std::uint8_t>;

bool is_about_sa(std::uint16_t type) {
    return type == XFRM_MSG_NEWSA || type == XFRM_MSG_UPDSA || type == XFRM_MSG_EXPIRE;
}

void zero(payload& p, std::size_t at, std::size_t length) {
    if (at + length <= p.size())
        std::fill_n(p.begin() + static_cast<std::ptrdiff_t>(at), length, std::uint8_t{0});
}

template <typename T>
T value_at(const payload& p, std::size_t at) {
    T value{};
    if (at + sizeof value <= p.size()) std::memcpy(&value, p.data() + at, sizeof value);
    return value;
}

bool is_zero(const payload& p, std::size_t at, std::size_t length) {
    return at + length <= p.size() &&
           std::all_of(p.begin() + static_cast<std::ptrdiff_t>(at),
                       p.begin() + static_cast<std::ptrdiff_t>(at + length),
                       [](std::uint8_t b) { return b == 0; });
}

/// Each levels one kind where it is met, and says so.
using leveling = bool (*)(item& ours, item& theirs);

/// Goes through the attributes that both have at the same place.
template <typename Level>
bool for_each_pair(item& ours, item& theirs, std::uint16_t attribute, Level&& level) {
    const auto type = ours.header.nlmsg_type;
    if (own_attributes(type)) return false;
    const auto mine = attributes_of(type, ours.payload);
    const auto others = attributes_of(type, theirs.payload);
    bool met = false;
    for (std::size_t i = 0; i < std::min(mine.size(), others.size()); ++i)
        if (mine[i].type == attribute && others[i].type == attribute &&
            mine[i].at == others[i].at && mine[i].length == others[i].length)
            met |= level(mine[i]);
    return met;
}

/// An address and its family, in a structure.
struct address_place {
    std::size_t address, family;
};
constexpr address_place of_sa[] = {
    {offsetof(xfrm_selector, daddr), offsetof(xfrm_selector, family)},
    {offsetof(xfrm_selector, saddr), offsetof(xfrm_selector, family)},
    {offsetof(xfrm_usersa_info, id.daddr), offsetof(xfrm_usersa_info, family)},
    {offsetof(xfrm_usersa_info, saddr), offsetof(xfrm_usersa_info, family)},
};
constexpr address_place of_move[] = {
    {offsetof(xfrm_user_migrate, old_daddr), offsetof(xfrm_user_migrate, old_family)},
    {offsetof(xfrm_user_migrate, old_saddr), offsetof(xfrm_user_migrate, old_family)},
    {offsetof(xfrm_user_migrate, new_daddr), offsetof(xfrm_user_migrate, new_family)},
    {offsetof(xfrm_user_migrate, new_saddr), offsetof(xfrm_user_migrate, new_family)},
};
constexpr address_place of_kmaddress[] = {
    {offsetof(xfrm_user_kmaddress, local), offsetof(xfrm_user_kmaddress, family)},
    {offsetof(xfrm_user_kmaddress, remote), offsetof(xfrm_user_kmaddress, family)},
};

/// base   where the structure lies
bool level_behind_ipv4(item& ours, item& theirs, std::size_t base,
                       std::span<const address_place> places) {
    constexpr std::size_t used = sizeof(in_addr), rest = sizeof(xfrm_address_t) - used;
    bool met = false;
    for (const address_place& p : places) {
        const std::size_t at = base + p.address + used;
        if (value_at<std::uint16_t>(theirs.payload, base + p.family) != AF_INET ||
            !is_zero(ours.payload, at, rest) || is_zero(theirs.payload, at, rest))
            continue;
        zero(theirs.payload, at, rest);
        met = true;
    }
    return met;
}

/// What stands behind the four bytes of an IPv4 address means nothing: esplane shows zeros.
bool behind_ipv4(item& ours, item& theirs) {
    const auto in_each = [&](std::uint16_t type, std::span<const address_place> places) {
        return for_each_pair(ours, theirs, type, [&](const placed_attribute& a) {
            return level_behind_ipv4(ours, theirs, a.at, places);
        });
    };
    const auto type = ours.header.nlmsg_type;
    if (is_about_sa(type)) return level_behind_ipv4(ours, theirs, 0, of_sa);
    if (type == XFRM_MSG_DELSA) return in_each(XFRMA_SA, of_sa);
    if (type != XFRM_MSG_MIGRATE) return false;
    const bool in_moves = in_each(XFRMA_MIGRATE, of_move);
    return in_each(XFRMA_KMADDRESS, of_kmaddress) || in_moves;
}

/// XFRMA_LTIME_VAL with an add_time of 0 means now: else the SA would be 50 years old.
bool zero_add_time(item& ours, item& theirs) {
    const auto level = [&](std::size_t sa) {
        const std::size_t at =
            sa + offsetof(xfrm_usersa_info, curlft) + offsetof(xfrm_lifetime_cur, add_time);
        if (value_at<std::uint64_t>(theirs.payload, at) != 0 ||
            value_at<std::uint64_t>(ours.payload, at) == 0)
            return false;
        zero(ours.payload, at, sizeof(std::uint64_t));
        return true;
    };
    const auto type = ours.header.nlmsg_type;
    if (is_about_sa(type)) return level(0);
    return type == XFRM_MSG_DELSA &&
           for_each_pair(ours, theirs, XFRMA_SA,
                         [&](const placed_attribute& a) { return level(a.at); });
}

/// Takes out the attribute whose value lies there.
void erase_attribute(payload& p, const placed_attribute& a) {
    const auto start = p.begin() + static_cast<std::ptrdiff_t>(a.at - sizeof(nlattr));
    const auto left = static_cast<std::size_t>(p.end() - start);
    p.erase(start, start + static_cast<std::ptrdiff_t>(
                               std::min(aligned(sizeof(nlattr) + a.length), left)));
}

/// Security contexts of SAs are kept; the guest's kernel has no module for them.
bool security_context(item& ours, item& theirs) {
    const auto type = ours.header.nlmsg_type;
    if (type != XFRM_MSG_NEWSA && type != XFRM_MSG_UPDSA && type != XFRM_MSG_DELSA) return false;
    const auto is_it = [](const placed_attribute& a) { return a.type == XFRMA_SEC_CTX; };
    const auto all = attributes_of(type, ours.payload);
    const auto found = std::ranges::find_if(all, is_it);
    if (found == all.end() || std::ranges::any_of(attributes_of(type, theirs.payload), is_it))
        return false;
    erase_attribute(ours.payload, *found);
    return true;
}

/// The kernel shows a timer as what it was given times 10 by HZ, which is 100 there.
bool aevent_timer(item& ours, item& theirs) {
    return for_each_pair(ours, theirs, XFRMA_ETIMER_THRESH, [&](const placed_attribute& a) {
        constexpr std::uint32_t hz = 100;
        const auto mine = value_at<std::uint32_t>(ours.payload, a.at);
        if (mine == value_at<std::uint32_t>(theirs.payload, a.at) ||
            mine * 10 / hz != value_at<std::uint32_t>(theirs.payload, a.at))
            return false;
        std::memcpy(theirs.payload.data() + a.at, &mine, sizeof mine);
        return true;
    });
}

/// Clears the bits of numbers that are not in the window, or never were.
void clear_impossible(payload& p, const placed_attribute& a) {
    const auto state = value_at<xfrm_replay_state_esn>(p, a.at);
    const std::uint32_t window = std::min(state.replay_window, state.bmp_len * 32);
    const std::uint32_t numbers = state.seq_hi != 0 ? window : std::min(window, state.seq);
    payload ring(state.bmp_len * sizeof(std::uint32_t));
    if (a.length < sizeof state + ring.size()) return;
    for (std::uint32_t back = 0; back < numbers; ++back) {
        const std::uint32_t bit = (state.seq - back - 1) % window;
        ring[bit / 8] |=
            static_cast<std::uint8_t>(p[a.at + sizeof state + bit / 8] & 1u << bit % 8);
    }
    std::ranges::copy(ring, p.begin() + static_cast<std::ptrdiff_t>(a.at + sizeof state));
}

/// Of the SA that a message shows; the most that one without ESN has where it does not.
std::uint32_t window_of(const item& i) {
    constexpr std::size_t window = offsetof(xfrm_usersa_info, replay_window);
    constexpr std::uint32_t most = 32;
    const auto type = i.header.nlmsg_type;
    if (is_about_sa(type)) return value_at<std::uint8_t>(i.payload, window);
    if (type == XFRM_MSG_DELSA)
        for (const placed_attribute& a : attributes_of(type, i.payload))
            if (a.type == XFRMA_SA) return value_at<std::uint8_t>(i.payload, a.at + window);
    return type == XFRM_MSG_NEWAE ? most : 0;
}

/// A bitmap of esplane's has no bits of numbers that are not in the window, or never were.
bool impossible_bits(item& ours, item& theirs) {
    const bool esn =
        for_each_pair(ours, theirs, XFRMA_REPLAY_ESN_VAL, [&](const placed_attribute& a) {
            const payload before = theirs.payload;
            clear_impossible(theirs.payload, a);
            return before != theirs.payload;
        });
    return esn || for_each_pair(ours, theirs, XFRMA_REPLAY_VAL, [&](const placed_attribute& a) {
               const auto mine = value_at<xfrm_replay_state>(ours.payload, a.at);
               const auto other = value_at<xfrm_replay_state>(theirs.payload, a.at);
               const bool fewer =
                   (mine.bitmap & other.bitmap) == mine.bitmap && mine.bitmap != other.bitmap;
               if (!fewer || mine.seq != other.seq) return false;
               const std::uint32_t window = window_of(ours);
               const std::uint32_t possible = std::min(window, other.seq);
               const std::uint32_t mask = possible >= 32 ? ~0u : (1u << possible) - 1;
               if ((other.bitmap & mask) != mine.bitmap) return false;
               std::memcpy(theirs.payload.data() + a.at, &mine, sizeof mine);
               return true;
           });
}

/// `optional` of a template is yes or no.
bool optional_template(item& ours, item& theirs) {
    return for_each_pair(ours, theirs, XFRMA_TMPL, [&](const placed_attribute& a) {
        bool met = false;
        for (std::size_t at = a.at; at < a.at + a.length; at += sizeof(xfrm_user_tmpl)) {
            std::uint8_t& mine = ours.payload[at + offsetof(xfrm_user_tmpl, optional)];
            const std::uint8_t other = theirs.payload[at + offsetof(xfrm_user_tmpl, optional)];
            met |= mine != other && mine == 1 && other != 0;
            if (mine == 1 && other != 0) mine = other;
        }
        return met;
    });
}

/// The sizes of hash tables follow their load a little later, in the kernel.
bool table_sizes(item& ours, item& theirs) {
    const auto type = ours.header.nlmsg_type;
    const bool sad = type == XFRM_MSG_NEWSADINFO;
    if (!sad && type != XFRM_MSG_NEWSPDINFO) return false;
    bool met = false;
    for (const placed_attribute& a : attributes_of(type, ours.payload)) {
        if (a.type != (sad ? int{XFRMA_SAD_HINFO} : int{XFRMA_SPD_HINFO})) continue;
        met |= value_at<std::uint32_t>(ours.payload, a.at) !=
               value_at<std::uint32_t>(theirs.payload, a.at);
        for (item* const i : {&ours, &theirs})
            zero(i->payload, a.at, sizeof(std::uint32_t));
    }
    return met;
}

/// Of an ACQUIRE, and of the larval SA that stands for it: where the field lies, if at all.
std::optional<std::size_t> of_acquire(const item& i, std::size_t in_acquire, std::size_t in_sa) {
    if (i.header.nlmsg_type == XFRM_MSG_ACQUIRE) return in_acquire;
    const bool larval = is_about_sa(i.header.nlmsg_type) &&
                        is_zero(i.payload, offsetof(xfrm_usersa_info, id.spi), sizeof(__be32));
    return larval ? std::optional(in_sa) : std::nullopt;
}

/// The kernel counts ACQUIREs over all namespaces.
bool acquire_number(item& ours, item& theirs) {
    const auto at =
        of_acquire(ours, offsetof(xfrm_user_acquire, seq), offsetof(xfrm_usersa_info, seq));
    if (!at) return false;
    const bool met =
        value_at<std::uint32_t>(ours.payload, *at) != value_at<std::uint32_t>(theirs.payload, *at);
    for (item* const i : {&ours, &theirs})
        zero(i->payload, *at, sizeof(std::uint32_t));
    return met;
}

/// The device that a packet would leave by is in the selector of the kernel's.
bool acquire_device(item& ours, item& theirs) {
    const auto at =
        of_acquire(ours, offsetof(xfrm_user_acquire, sel) + offsetof(xfrm_selector, ifindex),
                   offsetof(xfrm_usersa_info, sel) + offsetof(xfrm_selector, ifindex));
    if (!at || !is_zero(ours.payload, *at, sizeof(int)) ||
        is_zero(theirs.payload, *at, sizeof(int)))
        return false;
    zero(theirs.payload, *at, sizeof(int));
    return true;
}

/// The kernel completes what it was asked, and echoes it so: the family of a template, the end of
/// an algorithm's name.
bool completed_echo(item& ours, item& theirs) {
    const auto echo = read_fixed<nlmsgerr>(theirs.payload);
    if (theirs.header.nlmsg_type != NLMSG_ERROR || !echo ||
        (theirs.header.nlmsg_flags & NLM_F_CAPPED) != 0)
        return false;
    const std::size_t end = std::min({words_at(ours), ours.payload.size(), theirs.payload.size()});
    const auto form = layout_of(echo->msg.nlmsg_type);
    if (!form || words_at(ours) != words_at(theirs)) return false;
    bool met = false;
    const auto take = [&](std::size_t at, std::size_t length, const payload& expected) {
        if (at + length > end ||
            std::equal(expected.begin(), expected.end(),
                       ours.payload.begin() + static_cast<std::ptrdiff_t>(at)) ||
            !std::equal(expected.begin(), expected.end(),
                        theirs.payload.begin() + static_cast<std::ptrdiff_t>(at)))
            return;
        std::ranges::copy(expected, ours.payload.begin() + static_cast<std::ptrdiff_t>(at));
        met = true;
    };
    const bytes asked = bytes(ours.payload).first(end);
    const std::size_t body = sizeof(nlmsgerr);
    const std::size_t policy =
        echo->msg.nlmsg_type == XFRM_MSG_ACQUIRE ? offsetof(xfrm_user_acquire, policy) : 0;
    const auto family = read_fixed<std::array<std::uint8_t, 2>>(
        asked.subspan(std::min(asked.size(), body + policy + offsetof(xfrm_selector, family))));
    for (const placed_attribute& a : attributes_at(asked, body + aligned(form->fixed))) {
        if (a.type == XFRMA_TMPL && family)
            for (std::size_t at = a.at; at + sizeof(xfrm_user_tmpl) <= a.at + a.length;
                 at += sizeof(xfrm_user_tmpl)) {
                const std::size_t where = at + offsetof(xfrm_user_tmpl, family);
                if (is_zero(ours.payload, where, 2)) take(where, 2, {(*family)[0], (*family)[1]});
            }
        if (a.type == XFRMA_ALG_AUTH || a.type == XFRMA_ALG_AUTH_TRUNC ||
            a.type == XFRMA_ALG_CRYPT || a.type == XFRMA_ALG_AEAD || a.type == XFRMA_ALG_COMP)
            take(a.at + sizeof(xfrm_algo::alg_name) - 1, 1, {0});
    }
    return met;
}

/// NLMSGERR_ATTR_POLICY, which esplane does not send, stands last.
bool attribute_policy(item& /*ours*/, item& theirs) {
    if (is_reply(theirs) || (theirs.header.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return false;
    for (const placed_attribute& a : attributes_at(theirs.payload, words_at(theirs)))
        if ((a.type & NLA_TYPE_MASK) == NLMSGERR_ATTR_POLICY) {
            theirs.payload.resize(a.at - sizeof(nlattr));
            return true;
        }
    return false;
}

/// XFRM_MODE_MAX is 5 in kernels that do not know IP-TFS.
bool mode_limit(item& ours, item& theirs) {
    constexpr auto older = "XFRM_MODE_MAX (5)"sv, newer = "XFRM_MODE_MAX (6)"sv;
    const auto at =
        std::search(theirs.payload.begin(), theirs.payload.end(), older.begin(), older.end());
    if (is_reply(ours) || at == theirs.payload.end()) return false;
    std::ranges::copy(newer, at);
    return true;
}

/// A packet that finds no SA is a use of its policy, too.
bool use_without_sa(item& ours, item& theirs) {
    const auto type = ours.header.nlmsg_type;
    const bool dumped = type == XFRM_MSG_NEWPOLICY && (ours.header.nlmsg_flags & NLM_F_MULTI) != 0;
    if (type != XFRM_MSG_ACQUIRE && !dumped) return false;
    const std::size_t at = (dumped ? 0 : offsetof(xfrm_user_acquire, policy)) +
                           offsetof(xfrm_userpolicy_info, curlft) +
                           offsetof(xfrm_lifetime_cur, use_time);
    const auto used = value_at<std::uint64_t>(ours.payload, at);
    if (used <= value_at<std::uint64_t>(theirs.payload, at)) return false;
    std::memcpy(theirs.payload.data() + at, &used, sizeof used);
    return true;
}

/// A limit in packets or bytes is told with what was counted when control hears of it: the packet
/// that passed it is in that.
bool packet_beyond_limit(item& ours, item& theirs) {
    if (ours.header.nlmsg_type != XFRM_MSG_EXPIRE || ours.header.nlmsg_pid != 0) return false;
    constexpr std::size_t at = offsetof(xfrm_usersa_info, curlft);
    const auto mine = value_at<xfrm_lifetime_cur>(ours.payload, at);
    const auto other = value_at<xfrm_lifetime_cur>(theirs.payload, at);
    if (mine.packets != other.packets + 1 || mine.bytes != other.bytes + packet_length)
        return false;
    std::memcpy(theirs.payload.data() + at + offsetof(xfrm_lifetime_cur, bytes), &mine.bytes,
                sizeof mine.bytes);
    std::memcpy(theirs.payload.data() + at + offsetof(xfrm_lifetime_cur, packets), &mine.packets,
                sizeof mine.packets);
    return true;
}

/// Where an UPDSA moves a limit below what was counted the kernel tells so before it has taken the
/// interface id of that request.
bool earlier_if_id(item& ours, item& theirs) {
    const auto type = ours.header.nlmsg_type;
    const auto is_it = [](const placed_attribute& a) { return a.type == XFRMA_IF_ID; };
    if (type != XFRM_MSG_EXPIRE || ours.header.nlmsg_seq != 0) return false;
    const auto all = attributes_of(type, ours.payload);
    const auto mine = std::ranges::find_if(all, is_it);
    if (mine == all.end() || std::ranges::any_of(attributes_of(type, theirs.payload), is_it))
        return false;
    erase_attribute(ours.payload, *mine);
    return true;
}

struct allowance {
    const char* name;
    leveling level;
};

constexpr allowance allowances[] = {
    {"bytes behind an IPv4 address", behind_ipv4},
    {"an add_time of 0", zero_add_time},
    {"a security context", security_context},
    {"XFRMA_ETIMER_THRESH", aevent_timer},
    {"bits of numbers that never were", impossible_bits},
    {"optional of a template", optional_template},
    {"sizes of hash tables", table_sizes},
    {"seq of an ACQUIRE", acquire_number},
    {"the device of an ACQUIRE", acquire_device},
    {"a use of a policy without SA", use_without_sa},
    {"the packet that passes a limit", packet_beyond_limit},
    {"the interface id of an EXPIRE", earlier_if_id},
    {"the echo of what was completed", completed_echo},
    {"NLMSGERR_ATTR_POLICY", attribute_policy},
    {"XFRM_MODE_MAX", mode_limit},
};

} // namespace

question without(const question& q, const std::set<std::uint32_t>& sequences) {
    question out;
    out.packets = q.packets;
    out.wait_ms = q.wait_ms;
    std::size_t gone = 0;
    for (const message& m : messages_of(q)) {
        const auto start = static_cast<std::size_t>(m.whole.data() - q.bytes.data());
        const std::size_t length = std::min(aligned(m.whole.size()), q.bytes.size() - start);
        if (sequences.contains(m.header.nlmsg_seq)) {
            gone += length;
            continue;
        }
        const auto from = q.bytes.begin() + static_cast<std::ptrdiff_t>(start);
        out.bytes.insert(out.bytes.end(), from, from + static_cast<std::ptrdiff_t>(length));
        for (const patch& p : q.patches)
            if (p.at >= start && p.at < start + length)
                out.patches.push_back({p.at - static_cast<std::uint32_t>(gone), p.from});
    }
    return out;
}

void leveller::operator()(std::vector<item>& ours, std::vector<item>& theirs) {
    for (std::size_t i = 0; i < std::min(ours.size(), theirs.size()); ++i) {
        if (ours[i] == theirs[i] || ours[i].header.nlmsg_type != theirs[i].header.nlmsg_type)
            continue;
        for (const allowance& a : allowances)
            if (a.level(ours[i], theirs[i])) ++met_[a.name];
    }
}

} // namespace esplane::tests::oracle
