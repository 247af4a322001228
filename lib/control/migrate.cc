// SPDX-License-Identifier: Apache-2.0
#include "lib/control/migrate.h"

#include <algorithm>
#include <utility>

namespace esplane::control {

namespace {

constexpr std::size_t max_moves = 6; // XFRM_MAX_DEPTH

bool same_origin(const ipsec::sa_move& a, const ipsec::sa_move& b) noexcept {
    return a.old_destination == b.old_destination && a.old_source == b.old_source &&
           a.protocol == b.protocol && a.run_mode == b.run_mode && a.reqid == b.reqid;
}

/// xfrm_migrate_check()
result<void> check(const std::vector<ipsec::sa_move>& moves) {
    if (moves.empty() || moves.size() > max_moves)
        return fail(EINVAL, "Invalid number of SAs to migrate, must be 0 < num <= "
                            "XFRM_MAX_DEPTH (6)");
    for (std::size_t i = 0; i < moves.size(); ++i) {
        if (moves[i].new_destination.is_any() || moves[i].new_source.is_any())
            return fail(EINVAL, "Addresses in the MIGRATE attribute's list cannot be null");
        for (std::size_t j = i + 1; j < moves.size(); ++j)
            if (same_origin(moves[i], moves[j]))
                return fail(EINVAL, "Entries in the MIGRATE attribute's list must be unique");
    }
    return {};
}

/// xfrm_addr_equal(): a template of another family is not told apart.
bool begins_as(const ipsec::address& a, const ipsec::address& asked) noexcept {
    const std::ptrdiff_t length = asked.fam == ipsec::family::ipv6 ? 16 : 4;
    return std::equal(asked.bytes.begin(), asked.bytes.begin() + length, a.bytes.begin());
}

/// migrate_tmpl_match().  A template in transport mode names no addresses.
bool is_about(const ipsec::sa_move& m, const ipsec::template_& t) noexcept {
    return t.run_mode == m.run_mode && t.id.protocol == m.protocol &&
           (m.reqid == 0 || t.reqid == m.reqid) &&
           (t.run_mode == ipsec::mode::transport ||
            (begins_as(t.id.destination, m.old_destination) && begins_as(t.source, m.old_source)));
}

/// xfrm_policy_migrate(): the templates with their new ends; none where no move is about them.
std::vector<ipsec::template_> moved_templates(const ipsec::policy& p,
                                              const std::vector<ipsec::sa_move>& moves) {
    std::vector<ipsec::template_> templates = p.templates;
    bool any = false;
    for (ipsec::template_& t : templates)
        for (const ipsec::sa_move& m : moves) {
            if (!is_about(m, t)) continue;
            any = true;
            if (t.run_mode != ipsec::mode::tunnel) continue;
            t.id.destination = m.new_destination;
            t.source = m.new_source;
            t.fam = m.new_destination.fam;
        }
    if (!any) templates.clear();
    return templates;
}

ipsec::sa_id moved_id(const ipsec::sa& s, const ipsec::sa_move& m) {
    ipsec::sa_id id = s.id;
    id.destination = m.new_destination;
    return id;
}

/// Before any is moved: what is moved back would be the newest SA.
result<void> check_places(const ipsec::migration& request, sa_keeper& sas) {
    for (const ipsec::sa_move& m : request.moves)
        if (const ipsec::sa* const s = sas.find_between(m, request.selected.if_id))
            if (!sas.may_relocate(s->id, moved_id(*s, m))) return fail(ENODATA);
    return {};
}

/// The SAs that one request has moved so far; taken back unless it is said to stay.
class relocations {
  public:
    relocations(sa_keeper& sas, moment now)
        : sas_(sas)
        , now_(now) {}
    ~relocations() {
        for (auto one = done_.rbegin(); one != done_.rend(); ++one)
            (void)sas_.relocate(one->now, one->before, now_);
    }
    relocations(const relocations&) = delete;
    relocations& operator=(const relocations&) = delete;

    [[nodiscard]] result<void> move(const ipsec::sa_move& m, const ipsec::migration& request) {
        const ipsec::sa* const s = sas_.find_between(m, request.selected.if_id);
        if (s == nullptr) return {};
        const sa_place before = place_of(*s);
        sa_place to = before;
        to.id = moved_id(*s, m);
        to.source = m.new_source;
        to.dying = false;
        if (request.encap) to.encap = request.encap;
        if (to.id != before.id && was_place(to.id)) return fail(ENODATA);
        if (auto r = sas_.relocate(before.id, to, now_); !r)
            return r.error().code == ENOBUFS ? r : fail(ENODATA);
        done_.push_back({before, to.id});
        return {};
    }

    void keep(migrated& into) {
        for (const done& one : std::exchange(done_, {}))
            if (const ipsec::sa* const s = sas_.get(one.now))
                into.sas.push_back({one.before.id, into.now.emplace_back(s->clone())});
    }

  private:
    struct done {
        sa_place before;
        ipsec::sa_id now;
    };
    /// In the kernel what is moved stays until all is done.
    [[nodiscard]] bool was_place(const ipsec::sa_id& id) const {
        return std::ranges::any_of(done_, [&](const done& d) { return d.before.id == id; });
    }

    sa_keeper& sas_;
    moment now_;
    std::vector<done> done_;
};

} // namespace

result<migrated> migrate(const ipsec::migration& m, sa_keeper& sas, policy_keeper& policies,
                         moment now) {
    if (auto ok = check(m.moves); !ok) return tl::unexpected(std::move(ok.error()));
    if (m.selected.sel.fam == ipsec::family::unspecified)
        return fail(EAFNOSUPPORT, "Target policy not found");
    const std::optional<ipsec::policy> p = policies.find_covering(m.selected);
    if (!p) return fail(ENOENT, "Target policy not found");
    std::vector<ipsec::template_> templates = moved_templates(*p, m.moves);
    if (templates.empty()) return fail(ENODATA);
    if (auto ok = check_places(m, sas); !ok) return tl::unexpected(std::move(ok.error()));
    relocations moved(sas, now);
    for (const ipsec::sa_move& one : m.moves)
        if (auto ok = moved.move(one, m); !ok) return tl::unexpected(std::move(ok.error()));
    auto selected = policies.set_templates(p->index, std::move(templates));
    if (!selected) return tl::unexpected(std::move(selected.error()));
    migrated all{std::move(*selected), {}, {}};
    moved.keep(all);
    return all;
}

} // namespace esplane::control
