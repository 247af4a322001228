// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "lib/control/journal.h"
#include "lib/control/journal_format.h"
#include "lib/wire/endian.h"

namespace esplane::control {

using namespace journal;

namespace {

/// Of an address without a family a client may give all 16 bytes.
bool is_sound(const ipsec::address& a) noexcept {
    if (a.fam == ipsec::family::unspecified) return true;
    const auto used = a.bytes.begin() + ipsec::address_length(a.fam);
    return a.bytes.end() == std::find_if(used, a.bytes.end(), [](auto b) { return b != 0; }) &&
           (a.fam == ipsec::family::ipv4 || a.fam == ipsec::family::ipv6);
}

bool is_sound(const ipsec::selector& s) noexcept {
    constexpr unsigned most = 128;
    return is_sound(s.source) && is_sound(s.destination) && s.source_prefix <= most &&
           s.destination_prefix <= most &&
           (s.fam == ipsec::family::unspecified || ipsec::address_length(s.fam) != 0);
}

bool is_sound(const ipsec::sa& s) noexcept {
    const bool has_end = s.id.destination.fam != ipsec::family::unspecified;
    return has_end && is_sound(s.id.destination) && is_sound(s.source) && is_sound(s.sel) &&
           s.replay_window <= ipsec::max_replay_window;
}

bool is_sound(const ipsec::policy& p) noexcept {
    constexpr std::uint32_t direction_bits = 7;
    return p.index != 0 && (p.index & direction_bits) == static_cast<std::uint32_t>(p.dir) &&
           is_sound(p.sel) &&
           std::all_of(p.templates.begin(), p.templates.end(), [](const ipsec::template_& t) {
               return is_sound(t.id.destination) && is_sound(t.source);
           });
}

struct id_hash {
    std::size_t operator()(const ipsec::sa_id& id) const noexcept {
        const auto low = wire::load<std::uint64_t>(id.destination.bytes.data());
        const auto high = wire::load<std::uint64_t>(id.destination.bytes.data() + 8);
        return ((low ^ high) * 0x9e3779b97f4a7c15u) ^ (id.spi.network() * 0xc2b2ae3d27d4eb4fu) ^
               id.mark.value;
    }
};

} // namespace

/// The last word on each object so far.
class journal_reader::image_maker {
  public:
    /// False: the record cannot be understood.
    bool apply(std::span<const std::uint8_t> record);
    sa_changes take_sas();
    policy_changes take_policies();
    journal_image finish();

  private:
    struct known_sa {
        std::uint64_t order = 0;
        bool given = false; ///< by take_sas()
        bool fresh = false; ///< not as it is; else `what` is empty
        ipsec::sa what;
    };
    using sa_map = std::unordered_map<ipsec::sa_id, known_sa, id_hash>;
    struct known_policy {
        ipsec::policy_key key;
        std::uint64_t position = 0;
        bool given = false; ///< by take_policies(), at that position
        bool fresh = false; ///< not as it is; else `what` is empty
        ipsec::policy what;
    };
    using policy_name = std::pair<ipsec::policy_type, std::uint32_t>;
    using policy_map = std::map<policy_name, known_policy>;

    bool put_sa(field_reader& r);
    bool remove_sa(field_reader& r);
    bool remove_sas(field_reader& r);
    bool put_policy(field_reader& r);
    bool remove_policy(field_reader& r);
    bool remove_policies(field_reader& r);
    bool put_settings(field_reader& r);
    bool begin_after(field_reader& r);
    void note_gone(const sa_map::value_type& entry) {
        if (entry.second.given) gone_.push_back(entry.first);
    }
    void note_gone(const policy_map::value_type& entry) {
        if (entry.second.given) gone_policies_.push_back(entry.second.key);
    }

    sa_map sas_;
    std::vector<ipsec::sa_id> fresh_; ///< and may have gone again
    std::vector<ipsec::sa_id> gone_;  ///< of those that were given
    policy_map policies_;
    std::vector<policy_name> fresh_policies_;      ///< and may have gone again
    std::vector<ipsec::policy_key> gone_policies_; ///< of those that were given
    std::uint64_t last_order_ = 0;
    ipsec::default_actions defaults_{};
    spd_hash_thresholds thresholds_;
};

bool journal_reader::image_maker::apply(std::span<const std::uint8_t> record) {
    field_reader r(record);
    kind what{};
    r.choice(what, kind::begin_after);
    if (!r.good()) return false;
    switch (what) {
    case kind::put_sa:
        return put_sa(r);
    case kind::remove_sa:
        return remove_sa(r);
    case kind::remove_sas:
        return remove_sas(r);
    case kind::put_policy:
        return put_policy(r);
    case kind::remove_policy:
        return remove_policy(r);
    case kind::remove_policies:
        return remove_policies(r);
    case kind::put_settings:
        return put_settings(r);
    case kind::begin_after:
        return begin_after(r);
    }
    return false;
}

bool journal_reader::image_maker::put_sa(field_reader& r) {
    std::optional<std::uint64_t> order;
    r.optional(order, [&](std::uint64_t& o) { r.number(o); });
    ipsec::sa s;
    describe_sa(r, s);
    if (!r.at_end() || !is_sound(s) || !ipsec::resolve(s.algs)) return false;
    const auto [at, is_new] = sas_.try_emplace(s.id);
    if (!order && is_new) order = last_order_ + 1;
    if (order) at->second.order = *order;
    last_order_ = std::max(last_order_, at->second.order);
    if (!std::exchange(at->second.fresh, true)) fresh_.push_back(s.id);
    at->second.what = std::move(s);
    return true;
}

bool journal_reader::image_maker::remove_sa(field_reader& r) {
    ipsec::sa_id id;
    describe_id(r, id);
    if (!r.at_end()) return false;
    const auto at = sas_.find(id);
    if (at == sas_.end()) return true;
    note_gone(*at);
    sas_.erase(at);
    return true;
}

bool journal_reader::image_maker::remove_sas(field_reader& r) {
    constexpr std::uint8_t any = 255;
    std::uint8_t protocol = 0;
    r.number(protocol);
    if (!r.at_end()) return false;
    std::erase_if(sas_, [&](const auto& entry) {
        const bool all = protocol == 0 || protocol == any;
        if (!all && entry.first.protocol != protocol) return false;
        note_gone(entry);
        return true;
    });
    return true;
}

bool journal_reader::image_maker::put_policy(field_reader& r) {
    ipsec::policy p;
    describe_policy(r, p);
    if (!r.at_end() || !is_sound(p)) return false;
    const policy_name name{p.type, p.index};
    const auto [at, is_new] = policies_.try_emplace(name);
    known_policy& known = at->second;
    if (!is_new && known.position != p.position) {
        note_gone(*at);
        known.given = false;
    }
    if (!std::exchange(known.fresh, true)) fresh_policies_.push_back(name);
    known.key = {p.dir, {}, p.index, p.if_id, p.mark, p.type};
    known.position = p.position;
    known.what = std::move(p);
    return true;
}

bool journal_reader::image_maker::remove_policy(field_reader& r) {
    ipsec::policy_type type{};
    std::uint32_t index = 0;
    r.choice(type, ipsec::policy_type::sub);
    r.number(index);
    if (!r.at_end()) return false;
    const auto at = policies_.find({type, index});
    if (at == policies_.end()) return true;
    note_gone(*at);
    policies_.erase(at);
    return true;
}

bool journal_reader::image_maker::remove_policies(field_reader& r) {
    ipsec::policy_type type{};
    r.choice(type, ipsec::policy_type::sub);
    if (!r.at_end()) return false;
    std::erase_if(policies_, [&](const auto& entry) {
        if (entry.first.first != type) return false;
        note_gone(entry);
        return true;
    });
    return true;
}

bool journal_reader::image_maker::put_settings(field_reader& r) {
    describe_settings(r, defaults_, thresholds_);
    return r.at_end();
}

bool journal_reader::image_maker::begin_after(field_reader& r) {
    r.number(last_order_);
    return r.at_end();
}

journal_reader::sa_changes journal_reader::image_maker::take_sas() {
    sa_changes changes;
    changes.gone = std::exchange(gone_, {});
    std::vector<known_sa*> fresh;
    for (const ipsec::sa_id& id : std::exchange(fresh_, {}))
        if (const auto at = sas_.find(id); at != sas_.end() && at->second.fresh) {
            at->second.fresh = false; // it may have gone and come
            fresh.push_back(&at->second);
        }
    std::ranges::sort(fresh, {}, &known_sa::order);
    changes.put.reserve(fresh.size());
    for (known_sa* one : fresh) {
        one->given = true;
        changes.put.push_back(std::move(one->what));
    }
    return changes;
}

journal_reader::policy_changes journal_reader::image_maker::take_policies() {
    policy_changes changes;
    changes.gone = std::exchange(gone_policies_, {});
    for (const policy_name& name : std::exchange(fresh_policies_, {})) {
        const auto at = policies_.find(name);
        if (at == policies_.end() || !at->second.fresh) continue; // it may have gone and come
        known_policy& known = at->second;
        known.fresh = false;
        if (std::exchange(known.given, true))
            changes.in_place = true;
        else
            changes.put.push_back(std::move(known.what));
    }
    std::ranges::sort(changes.put, {}, &ipsec::policy::position);
    return changes;
}

journal_image journal_reader::image_maker::finish() {
    journal_image image;
    image.sas = std::move(take_sas().put);
    image.policies = std::move(take_policies().put);
    image.defaults = defaults_;
    image.thresholds = thresholds_;
    return image;
}

/// Frame by frame, session by session.
class journal_reader::log_reader {
  public:
    explicit log_reader(journal_opener opener)
        : opener_(std::move(opener)) {}

    result<void> read(std::span<const std::uint8_t> file);
    [[nodiscard]] const std::optional<journal_session>& session() const noexcept {
        return session_;
    }
    [[nodiscard]] std::size_t whole() const noexcept { return at_; }
    [[nodiscard]] image_maker& image() noexcept { return image_; }

  private:
    struct whole_frame {
        frame what;
        std::span<const std::uint8_t> payload;
    };
    /// nullopt at the end, or where the rest is torn.
    result<std::optional<whole_frame>> next_frame();
    result<void> begin_session(std::span<const std::uint8_t> payload);
    result<void> take_record(std::span<const std::uint8_t> payload);
    [[nodiscard]] tl::unexpected<error> corrupted() const {
        return fail(EINVAL, "corrupted at byte " + std::to_string(at_));
    }

    std::span<const std::uint8_t> file_;
    journal_opener opener_;
    std::size_t at_ = 0; ///< of the frame that is read
    std::size_t next_ = 0;
    std::optional<journal_session> session_;
    std::unique_ptr<journal_seal> seal_;
    std::uint64_t index_ = 0;
    image_maker image_;
};

result<std::optional<journal_reader::log_reader::whole_frame>>
journal_reader::log_reader::next_frame() {
    at_ = next_;
    const auto rest = file_.subspan(at_);
    if (rest.size() < sizeof(frame_head)) return std::nullopt;
    if (std::ranges::all_of(rest, [](auto byte) { return byte == 0; })) // pages never written
        return std::nullopt;
    const auto head = wire::load<frame_head>(rest.data());
    if (head.length > longest_record || head.what > frame::record) return corrupted();
    if (rest.size() - sizeof head < head.length) return std::nullopt;
    const auto payload = rest.subspan(sizeof head, head.length);
    next_ = at_ + sizeof head + head.length;
    if (crc_of(payload) == head.crc) return whole_frame{head.what, payload};
    if (next_ == file_.size()) return std::nullopt; // its last pages were not written
    return corrupted();
}

result<void> journal_reader::log_reader::begin_session(std::span<const std::uint8_t> payload) {
    field_reader r(payload);
    std::array<char, magic.size()> word{};
    std::uint32_t number = 0;
    r.raw(word.data(), word.size());
    r.number(number);
    if (!r.good() || word != magic) return corrupted();
    if (number != version)
        return fail(EPROTO, "of another version of esplane (" + std::to_string(number) + ")");
    journal_session s;
    describe_session(r, s);
    if (!r.at_end() || (session_ && s.name != session_->name)) return corrupted();
    session_ = s;
    index_ = 0;
    seal_ = s.sealed ? opener_(s) : nullptr;
    if (s.sealed && !seal_) return fail(ENOKEY, "sealed: give its key with --state-key");
    return {};
}

result<void> journal_reader::log_reader::take_record(std::span<const std::uint8_t> payload) {
    bytes record(payload.begin(), payload.end());
    const bool first = index_ == 0;
    const bool opened = !seal_ || seal_->open(index_++, record);
    const bool understood = opened && image_.apply(record);
    wipe(record.data(), record.size());
    if (!opened && first) return fail(EINVAL, "sealed with another key, or corrupted");
    if (!understood) return corrupted();
    return {};
}

result<void> journal_reader::log_reader::read(std::span<const std::uint8_t> file) {
    if (file.size() < at_) return corrupted();
    file_ = file;
    next_ = at_;
    while (true) {
        const auto next = next_frame();
        if (!next) return tl::unexpected(next.error());
        if (!*next) return {};
        const auto& [what, payload] = **next;
        if (what == frame::record && !session_) return corrupted();
        const auto taken = what == frame::session ? begin_session(payload) : take_record(payload);
        if (!taken) return tl::unexpected(taken.error());
    }
}

journal_reader::journal_reader(journal_opener opener)
    : log_(std::make_unique<log_reader>(std::move(opener))) {}

journal_reader::~journal_reader() = default;

result<void> journal_reader::read(std::span<const std::uint8_t> file) {
    return log_->read(file);
}

const std::optional<journal_session>& journal_reader::session() const noexcept {
    return log_->session();
}

std::size_t journal_reader::whole() const noexcept {
    return log_->whole();
}

journal_reader::sa_changes journal_reader::take_sas() {
    return log_->image().take_sas();
}

journal_reader::policy_changes journal_reader::take_policies() {
    return log_->image().take_policies();
}

journal_image journal_reader::finish() {
    journal_image image = log_->image().finish();
    if (session()) image.last = *session();
    image.whole = whole();
    return image;
}

result<journal_image> read_journal(std::span<const std::uint8_t> file,
                                   const journal_opener& opener) {
    journal_reader reader(opener);
    if (auto done = reader.read(file); !done) return tl::unexpected(done.error());
    return reader.finish();
}

} // namespace esplane::control
