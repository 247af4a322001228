// SPDX-License-Identifier: Apache-2.0
//
// The codec against libnl-xfrm's: every recorded SA and policy that libnl can parse has the same
// values in both.
#include <gtest/gtest.h>

#include <netlink/addr.h>
#include <netlink/object.h>
#include <netlink/xfrm/lifetime.h>
#include <netlink/xfrm/sa.h>
#include <netlink/xfrm/selector.h>
#include <netlink/xfrm/sp.h>
#include <netlink/xfrm/template.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>

#include "xfrm/codec.h"

/// libnl 3.7 does not give back all of what it parses into.
extern "C" const char* __lsan_default_suppressions();  // NOLINT(bugprone-reserved-identifier)
extern "C" const char* __lsan_default_suppressions() { // NOLINT(bugprone-reserved-identifier)
    return "leak:libnl";
}

namespace esplane::xfrm {
namespace {

/// libnl copies as much of a replay state as its length says, also where iproute2 left the bitmap
/// out: there is room behind the message for that.
constexpr std::size_t slack = 1024;

struct recording {
    std::string file;
    datagram whole;
};

std::vector<recording> load() {
    std::vector<recording> all;
    for (const auto& entry : std::filesystem::directory_iterator(ESPLANE_GOLDEN)) {
        const std::string file = entry.path().filename();
        if (entry.path().extension() != ".bin" || file.find("-xfrmi-") != file.npos) continue;
        std::ifstream in(entry.path(), std::ios::binary);
        all.push_back({file, {std::istreambuf_iterator<char>(in), {}}});
    }
    return all;
}

bytes bytes_of(nl_addr* a) {
    return {static_cast<const std::uint8_t*>(nl_addr_get_binary_addr(a)), nl_addr_get_len(a)};
}

/// One record of ours beside what libnl has of it.
class comparison {
  public:
    comparison(const record& r, std::string where)
        : record_(r)
        , where_(std::move(where)) {}

    [[nodiscard]] std::uint64_t number(std::string_view name) const {
        const value* const v = find_value(record_, name);
        EXPECT_NE(v, nullptr) << where_ << ": " << name;
        return number_in(v);
    }
    void same(std::string_view name, std::uint64_t theirs) const {
        EXPECT_EQ(number(name), theirs) << where_ << ": " << name;
    }
    void same(std::string_view name, nl_addr* theirs) const {
        const value* const v = find_value(record_, name);
        ASSERT_NE(v, nullptr) << where_ << ": " << name;
        ASSERT_NE(theirs, nullptr) << where_ << ": " << name;
        const bytes ours = std::get<datagram>(v->is);
        const bytes b = bytes_of(theirs);
        EXPECT_TRUE(std::ranges::equal(ours.first(b.size()), b)) << where_ << ": " << name;
    }
    void same(std::string_view name, const char* theirs) const {
        const value* const v = find_value(record_, name);
        ASSERT_NE(v, nullptr) << where_ << ": " << name;
        const bytes ours = std::get<datagram>(v->is);
        EXPECT_STREQ(reinterpret_cast<const char*>(ours.data()), theirs) << where_ << ": " << name;
    }

    void same_selector(xfrmnl_sel* s) const {
        ASSERT_NE(s, nullptr) << where_;
        same("sel.family", static_cast<unsigned>(xfrmnl_sel_get_family(s)));
        if (number("sel.family") == 0) return; // libnl takes its addresses for IPv6
        same("sel.daddr", xfrmnl_sel_get_daddr(s));
        same("sel.saddr", xfrmnl_sel_get_saddr(s));
        same("sel.dport", static_cast<unsigned>(xfrmnl_sel_get_dport(s)));
        same("sel.dport_mask", static_cast<unsigned>(xfrmnl_sel_get_dportmask(s)));
        same("sel.sport", static_cast<unsigned>(xfrmnl_sel_get_sport(s)));
        same("sel.sport_mask", static_cast<unsigned>(xfrmnl_sel_get_sportmask(s)));
        same("sel.prefixlen_d", static_cast<unsigned>(xfrmnl_sel_get_prefixlen_d(s)));
        same("sel.prefixlen_s", static_cast<unsigned>(xfrmnl_sel_get_prefixlen_s(s)));
        same("sel.proto", static_cast<unsigned>(xfrmnl_sel_get_proto(s)));
        same("sel.ifindex", static_cast<unsigned>(xfrmnl_sel_get_ifindex(s)));
        same("sel.user", static_cast<unsigned>(xfrmnl_sel_get_userid(s)));
    }
    void same_limits(xfrmnl_ltime_cfg* l) const {
        ASSERT_NE(l, nullptr) << where_;
        same("lft.soft_byte_limit", xfrmnl_ltime_cfg_get_soft_bytelimit(l));
        same("lft.hard_byte_limit", xfrmnl_ltime_cfg_get_hard_bytelimit(l));
        same("lft.soft_packet_limit", xfrmnl_ltime_cfg_get_soft_packetlimit(l));
        same("lft.hard_packet_limit", xfrmnl_ltime_cfg_get_hard_packetlimit(l));
        same("lft.soft_add_expires_seconds", xfrmnl_ltime_cfg_get_soft_addexpires(l));
        same("lft.hard_add_expires_seconds", xfrmnl_ltime_cfg_get_hard_addexpires(l));
        same("lft.soft_use_expires_seconds", xfrmnl_ltime_cfg_get_soft_useexpires(l));
        same("lft.hard_use_expires_seconds", xfrmnl_ltime_cfg_get_hard_useexpires(l));
    }
    /// get   xfrmnl_sa_get_curlifetime or xfrmnl_sp_get_curlifetime
    template <typename Get, typename Object>
    void same_current(Get get, Object* o) const {
        unsigned long long now_bytes = 0, packets = 0, added = 0, used = 0;
        ASSERT_EQ(get(o, &now_bytes, &packets, &added, &used), 0) << where_;
        same("curlft.bytes", now_bytes);
        same("curlft.packets", packets);
        same("curlft.add_time", added);
        same("curlft.use_time", used);
    }

  private:
    const record& record_;
    std::string where_;
};

const attribute* find(const description& d, std::uint16_t type) {
    // libnl takes the last of several, as the kernel does.
    const auto found = std::find_if(d.attributes.rbegin(), d.attributes.rend(),
                                    [type](const attribute& a) { return a.number() == type; });
    return found == d.attributes.rend() ? nullptr : &*found;
}

std::size_t compared_attributes = 0;

struct key_buffer {
    char name[128] = {};
    unsigned key_bits = 0;
    unsigned icv_bits = 0;
    char key[4096] = {};
};

void same_algorithm(const attribute& a, const key_buffer& theirs, const char* icv,
                    const std::string& where) {
    ++compared_attributes;
    const comparison c(a.records.at(0), where + " " + std::string(a.form->name));
    c.same("alg_name", theirs.name);
    c.same("alg_key_len", theirs.key_bits);
    if (icv != nullptr) c.same(icv, theirs.icv_bits);
    EXPECT_TRUE(
        std::equal(a.rest.begin(), a.rest.end(), reinterpret_cast<const std::uint8_t*>(theirs.key)))
        << where;
}

void same_algorithms(const description& d, xfrmnl_sa* sa, const std::string& where) {
    key_buffer k;
    if (const attribute* a = find(d, XFRMA_ALG_AEAD)) {
        ASSERT_EQ(xfrmnl_sa_get_aead_params(sa, k.name, &k.key_bits, &k.icv_bits, k.key), 0);
        same_algorithm(*a, k, "alg_icv_len", where);
    }
    if (const attribute* a = find(d, XFRMA_ALG_AUTH_TRUNC)) {
        ASSERT_EQ(xfrmnl_sa_get_auth_params(sa, k.name, &k.key_bits, &k.icv_bits, k.key), 0);
        same_algorithm(*a, k, "alg_trunc_len", where);
    } else if (const attribute* old = find(d, XFRMA_ALG_AUTH)) {
        ASSERT_EQ(xfrmnl_sa_get_auth_params(sa, k.name, &k.key_bits, &k.icv_bits, k.key), 0);
        same_algorithm(*old, k, nullptr, where);
    }
    if (const attribute* a = find(d, XFRMA_ALG_CRYPT)) {
        ASSERT_EQ(xfrmnl_sa_get_crypto_params(sa, k.name, &k.key_bits, k.key), 0);
        same_algorithm(*a, k, nullptr, where);
    }
    if (const attribute* a = find(d, XFRMA_ALG_COMP)) {
        ASSERT_EQ(xfrmnl_sa_get_comp_params(sa, k.name, &k.key_bits, k.key), 0);
        same_algorithm(*a, k, nullptr, where);
    }
}

void same_other_attributes(const description& d, xfrmnl_sa* sa, const std::string& where) {
    if (const attribute* a = find(d, XFRMA_ENCAP)) {
        unsigned type = 0, source = 0, destination = 0;
        nl_addr* original = nullptr;
        ASSERT_EQ(xfrmnl_sa_get_encap_tmpl(sa, &type, &source, &destination, &original), 0);
        const comparison c(a->records.at(0), where + " encap");
        c.same("encap_type", type);
        c.same("encap_sport", source);
        c.same("encap_dport", destination);
        c.same("encap_oa", original);
        ++compared_attributes;
    }
    if (const attribute* a = find(d, XFRMA_MARK)) {
        unsigned value = 0, mask = 0;
        ASSERT_EQ(xfrmnl_sa_get_mark(sa, &mask, &value), 0);
        const comparison c(a->records.at(0), where + " mark");
        c.same("v", value);
        c.same("m", mask);
        ++compared_attributes;
    }
    if (const attribute* a = find(d, XFRMA_TFCPAD)) {
        comparison(a->records.at(0), where)
            .same("", static_cast<unsigned>(xfrmnl_sa_get_tfcpad(sa)));
        ++compared_attributes;
    }
    if (const attribute* a = find(d, XFRMA_REPLAY_THRESH)) {
        comparison(a->records.at(0), where)
            .same("", static_cast<unsigned>(xfrmnl_sa_get_replay_maxdiff(sa)));
        ++compared_attributes;
    }
    if (const attribute* a = find(d, XFRMA_COADDR)) {
        comparison(a->records.at(0), where).same("", xfrmnl_sa_get_coaddr(sa));
        ++compared_attributes;
    }
    const attribute* const esn = find(d, XFRMA_REPLAY_ESN_VAL);
    if (const attribute* a = find(d, XFRMA_REPLAY_VAL); a != nullptr && esn == nullptr) {
        unsigned sent = 0, received = 0, bitmap = 0;
        ASSERT_EQ(xfrmnl_sa_get_replay_state(sa, &sent, &received, &bitmap), 0);
        const comparison c(a->records.at(0), where + " replay");
        c.same("oseq", sent);
        c.same("seq", received);
        c.same("bitmap", bitmap);
        ++compared_attributes;
    }
    if (esn != nullptr) {
        unsigned sent = 0, received = 0, sent_high = 0, received_high = 0, window = 0, words = 0;
        unsigned bitmap[128] = {};
        ASSERT_EQ(xfrmnl_sa_get_replay_state_esn(sa, &sent, &received, &sent_high, &received_high,
                                                 &window, &words, bitmap),
                  0);
        const comparison c(esn->records.at(0), where + " replay");
        c.same("bmp_len", words);
        c.same("oseq", sent);
        c.same("seq", received);
        c.same("oseq_hi", sent_high);
        c.same("seq_hi", received_high);
        c.same("replay_window", window);
        EXPECT_TRUE(std::equal(esn->rest.begin(), esn->rest.end(),
                               reinterpret_cast<const std::uint8_t*>(bitmap)))
            << where;
        ++compared_attributes;
    }
}

void same_sa(const description& d, xfrmnl_sa* sa, const std::string& where) {
    const comparison c(*d.fixed, where);
    c.same_selector(xfrmnl_sa_get_sel(sa));
    c.same("id.daddr", xfrmnl_sa_get_daddr(sa));
    c.same("id.spi", static_cast<unsigned>(xfrmnl_sa_get_spi(sa)));
    c.same("id.proto", static_cast<unsigned>(xfrmnl_sa_get_proto(sa)));
    c.same("saddr", xfrmnl_sa_get_saddr(sa));
    c.same_limits(xfrmnl_sa_get_lifetime_cfg(sa));
    c.same_current(xfrmnl_sa_get_curlifetime, sa);
    unsigned long long window = 0, replay = 0, integrity = 0;
    ASSERT_EQ(xfrmnl_sa_get_stats(sa, &window, &replay, &integrity), 0);
    c.same("stats.replay_window", window);
    c.same("stats.replay", replay);
    c.same("stats.integrity_failed", integrity);
    c.same("seq", static_cast<unsigned>(xfrmnl_sa_get_seq(sa)));
    c.same("reqid", static_cast<unsigned>(xfrmnl_sa_get_reqid(sa)));
    c.same("family", static_cast<unsigned>(xfrmnl_sa_get_family(sa)));
    c.same("mode", static_cast<unsigned>(xfrmnl_sa_get_mode(sa)));
    c.same("replay_window", static_cast<unsigned>(xfrmnl_sa_get_replay_window(sa)));
    c.same("flags", static_cast<unsigned>(xfrmnl_sa_get_flags(sa)));
    same_algorithms(d, sa, where);
    same_other_attributes(d, sa, where);
}

void same_template(const record& r, xfrmnl_user_tmpl* t, const std::string& where) {
    ++compared_attributes;
    const comparison c(r, where + " template");
    c.same("id.daddr", xfrmnl_user_tmpl_get_daddr(t));
    c.same("id.spi", static_cast<unsigned>(xfrmnl_user_tmpl_get_spi(t)));
    c.same("id.proto", static_cast<unsigned>(xfrmnl_user_tmpl_get_proto(t)));
    c.same("family", static_cast<unsigned>(xfrmnl_user_tmpl_get_family(t)));
    c.same("saddr", xfrmnl_user_tmpl_get_saddr(t));
    c.same("reqid", static_cast<unsigned>(xfrmnl_user_tmpl_get_reqid(t)));
    c.same("mode", static_cast<unsigned>(xfrmnl_user_tmpl_get_mode(t)));
    c.same("share", static_cast<unsigned>(xfrmnl_user_tmpl_get_share(t)));
    c.same("optional", static_cast<unsigned>(xfrmnl_user_tmpl_get_optional(t)));
    c.same("aalgos", static_cast<unsigned>(xfrmnl_user_tmpl_get_aalgos(t)));
    c.same("ealgos", static_cast<unsigned>(xfrmnl_user_tmpl_get_ealgos(t)));
    c.same("calgos", static_cast<unsigned>(xfrmnl_user_tmpl_get_calgos(t)));
}

void same_policy(const description& d, xfrmnl_sp* sp, const std::string& where) {
    const comparison c(*d.fixed, where);
    c.same_selector(xfrmnl_sp_get_sel(sp));
    c.same_limits(xfrmnl_sp_get_lifetime_cfg(sp));
    c.same_current(xfrmnl_sp_get_curlifetime, sp);
    c.same("priority", static_cast<unsigned>(xfrmnl_sp_get_priority(sp)));
    c.same("index", static_cast<unsigned>(xfrmnl_sp_get_index(sp)));
    c.same("dir", static_cast<unsigned>(xfrmnl_sp_get_dir(sp)));
    c.same("action", static_cast<unsigned>(xfrmnl_sp_get_action(sp)));
    c.same("flags", static_cast<unsigned>(xfrmnl_sp_get_flags(sp)));
    c.same("share", static_cast<unsigned>(xfrmnl_sp_get_share(sp)));
    const attribute* const templates = find(d, XFRMA_TMPL);
    const std::size_t count = templates != nullptr ? templates->records.size() : 0;
    ASSERT_EQ(count, static_cast<std::size_t>(std::max(xfrmnl_sp_get_nusertemplates(sp), 0)));
    for (std::size_t i = 0; i < count; ++i)
        same_template(templates->records[i], xfrmnl_sp_usertemplate_n(sp, static_cast<int>(i)),
                      where);
    if (const attribute* a = find(d, XFRMA_POLICY_TYPE))
        comparison(a->records.at(0), where)
            .same("type", static_cast<unsigned>(xfrmnl_sp_get_userpolicy_type(sp)));
    if (const attribute* a = find(d, XFRMA_MARK)) {
        unsigned value = 0, mask = 0;
        ASSERT_EQ(xfrmnl_sp_get_mark(sp, &mask, &value), 0);
        const comparison mark(a->records.at(0), where + " mark");
        mark.same("v", value);
        mark.same("m", mask);
    }
}

/// The message as libnl takes it, with room behind it.
struct native {
    explicit native(const description& d) {
        descriptions one;
        one.messages.push_back(d);
        memory = encode(one);
        memory.resize(memory.size() + slack);
    }
    nlmsghdr* header() { return reinterpret_cast<nlmsghdr*>(memory.data()); }
    datagram memory;
};

TEST(CodecBesideLibnl, SecurityAssociationsHaveTheSameValues) {
    std::size_t compared = 0;
    compared_attributes = 0;
    for (const recording& r : load())
        for (const description& d : decode(r.whole).messages) {
            const bool is_sa =
                d.header.nlmsg_type == XFRM_MSG_NEWSA || d.header.nlmsg_type == XFRM_MSG_UPDSA;
            if (!is_sa || !d.fixed) continue;
            xfrmnl_sa* sa = nullptr;
            ASSERT_EQ(xfrmnl_sa_parse(native(d).header(), &sa), 0) << r.file;
            const std::unique_ptr<xfrmnl_sa, decltype(&xfrmnl_sa_put)> keep(sa, xfrmnl_sa_put);
            same_sa(d, sa, r.file);
            ++compared;
        }
    EXPECT_GT(compared, 100u);
    EXPECT_GT(compared_attributes, 200u);
}

TEST(CodecBesideLibnl, PoliciesHaveTheSameValues) {
    std::size_t compared = 0;
    compared_attributes = 0;
    for (const recording& r : load())
        for (const description& d : decode(r.whole).messages) {
            const bool is_policy = d.header.nlmsg_type == XFRM_MSG_NEWPOLICY ||
                                   d.header.nlmsg_type == XFRM_MSG_UPDPOLICY;
            if (!is_policy || !d.fixed) continue;
            xfrmnl_sp* sp = nullptr;
            ASSERT_EQ(xfrmnl_sp_parse(native(d).header(), &sp), 0) << r.file;
            const std::unique_ptr<xfrmnl_sp, decltype(&xfrmnl_sp_put)> keep(sp, xfrmnl_sp_put);
            same_policy(d, sp, r.file);
            ++compared;
        }
    EXPECT_GT(compared, 30u);
    EXPECT_GT(compared_attributes, 30u);
}

} // namespace
} // namespace esplane::xfrm
