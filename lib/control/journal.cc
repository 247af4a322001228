// SPDX-License-Identifier: Apache-2.0
#include "lib/control/journal.h"

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "lib/base/secret.h"
#include "lib/wire/endian.h"

namespace esplane::control {

namespace {

using frame = journal_frame;
using bytes = std::vector<std::uint8_t>;

constexpr std::array<char, 8> magic{'E', 'S', 'P', 'L', 'S', 'T', 'A', 'T'};
constexpr std::uint32_t version = 1;
constexpr std::uint32_t longest_record = 1u << 18; // a client's longest message and more

enum class kind : std::uint8_t {
    put_sa,
    remove_sa,
    remove_sas,
    put_policy,
    remove_policy,
    remove_policies,
    put_settings,
    begin_after,
};

struct frame_head {
    std::uint32_t length;
    std::uint32_t crc;
    frame what;
};

/// CRC-32 of IEEE 802.3, by half bytes.
std::uint32_t crc_of(std::span<const std::uint8_t> data) noexcept {
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < t.size(); ++i) {
            t[i] = i;
            for (int bit = 0; bit < 8; ++bit)
                t[i] = (t[i] >> 1) ^ ((t[i] & 1) != 0 ? 0xedb88320u : 0);
        }
        return t;
    }();
    std::uint32_t crc = ~0u;
    for (const std::uint8_t byte : data)
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xff];
    return ~crc;
}

/// Writes what describe() names.
class field_writer {
  public:
    explicit field_writer(bytes& to)
        : to_(to) {}

    void raw(const void* from, std::size_t length) {
        if (length == 0) return;
        const std::size_t at = to_.size();
        to_.resize(at + length);
        std::memcpy(to_.data() + at, from, length);
    }
    template <typename T>
    requires std::is_arithmetic_v<T>
    void number(const T& value) { raw(&value, sizeof value); }
    template <typename Enum>
    void choice(const Enum& value, Enum /*last*/) {
        raw(&value, sizeof value);
    }
    template <typename T>
    void list(const std::vector<T>& values) {
        number(static_cast<std::uint32_t>(values.size()));
        raw(values.data(), values.size() * sizeof(T));
    }
    void text(const std::string& value) {
        number(static_cast<std::uint32_t>(value.size()));
        raw(value.data(), value.size());
    }
    void hidden(const secret& value) {
        number(static_cast<std::uint32_t>(value.size()));
        raw(value.bytes().data(), value.size());
    }
    template <typename T, typename F>
    void optional(const std::optional<T>& value, F f) {
        number(static_cast<std::uint8_t>(value.has_value()));
        if (value) f(*value);
    }
    template <typename T, typename F>
    void each(const std::vector<T>& values, F f) {
        number(static_cast<std::uint32_t>(values.size()));
        for (const T& value : values)
            f(value);
    }

  private:
    bytes& to_;
};

/// Reads the same; after an error it gives zeros, and good() says so.
class field_reader {
  public:
    explicit field_reader(std::span<const std::uint8_t> from)
        : from_(from) {}

    [[nodiscard]] bool good() const noexcept { return good_; }
    [[nodiscard]] bool at_end() const noexcept { return good_ && from_.empty(); }

    void raw(void* to, std::size_t length) {
        good_ &= length <= from_.size();
        if (!good_) return;
        if (length != 0) std::memcpy(to, from_.data(), length);
        from_ = from_.subspan(length);
    }
    template <typename T>
    requires std::is_arithmetic_v<T>
    void number(T& value) { raw(&value, sizeof value); }
    void number(bool& value) {
        std::uint8_t byte = 0;
        number(byte);
        good_ &= byte <= 1;
        value = byte != 0;
    }
    template <typename Enum>
    void choice(Enum& value, Enum last) {
        std::underlying_type_t<Enum> read{};
        raw(&read, sizeof read);
        good_ &= read <= static_cast<decltype(read)>(last);
        if (good_) value = static_cast<Enum>(read);
    }
    template <typename T>
    void list(std::vector<T>& values) {
        const std::size_t n = count(sizeof(T));
        values.resize(n);
        raw(values.data(), n * sizeof(T));
    }
    void text(std::string& value) {
        value.resize(count(1));
        raw(value.data(), value.size());
    }
    void hidden(secret& value) {
        const std::size_t n = count(1);
        value = secret(from_.first(n));
        from_ = from_.subspan(n);
    }
    template <typename T, typename F>
    void optional(std::optional<T>& value, F f) {
        bool there = false;
        number(there);
        if (good_ && there) f(value.emplace());
    }
    template <typename T, typename F>
    void each(std::vector<T>& values, F f) {
        values.resize(count(1));
        for (T& value : values)
            f(value);
    }

  private:
    /// Of elements that take at least `least` bytes each; 0 where there are fewer.
    std::size_t count(std::size_t least) {
        std::uint32_t n = 0;
        number(n);
        good_ &= n <= from_.size() / least;
        return good_ ? n : 0;
    }

    std::span<const std::uint8_t> from_;
    bool good_ = true;
};

// What each object consists of, once for both directions: T is const where it is written.

template <typename A, typename T>
void describe_address(A& a, T& x) {
    // 0, 4 or 6: what lies between is none
    a.choice(x.fam, ipsec::family::ipv6);
    a.raw(x.bytes.data(), x.bytes.size());
}

template <typename A, typename T>
void describe_mark(A& a, T& m) {
    a.number(m.value);
    a.number(m.mask);
}

template <typename A, typename T>
void describe_port(A& a, T& p) {
    a.raw(&p, sizeof p);
}

template <typename A, typename T>
void describe_id(A& a, T& id) {
    describe_address(a, id.destination);
    a.raw(&id.spi, sizeof id.spi);
    a.number(id.protocol);
    describe_mark(a, id.mark);
}

template <typename A, typename T>
void describe_selector(A& a, T& s) {
    describe_address(a, s.source);
    describe_address(a, s.destination);
    a.number(s.source_prefix);
    a.number(s.destination_prefix);
    describe_port(a, s.source_port);
    describe_port(a, s.source_port_mask);
    describe_port(a, s.destination_port);
    describe_port(a, s.destination_port_mask);
    a.number(s.protocol);
    a.choice(s.fam, ipsec::family::ipv6);
    a.number(s.ifindex);
    a.number(s.user);
}

template <typename A, typename T>
void describe_limits(A& a, T& l) {
    for (auto* one : {&l.soft_bytes, &l.hard_bytes, &l.soft_packets, &l.hard_packets, &l.soft_add_s,
                      &l.hard_add_s, &l.soft_use_s, &l.hard_use_s})
        a.number(*one);
}

template <typename A, typename T>
void describe_current(A& a, T& c) {
    for (auto* one : {&c.bytes, &c.packets, &c.add_time, &c.use_time})
        a.number(*one);
}

template <typename A, typename T>
void describe_security(A& a, T& s) {
    a.optional(s, [&](auto& context) {
        a.number(context.domain);
        a.number(context.algorithm);
        a.list(context.label);
    });
}

template <typename A, typename T>
void describe_algorithm(A& a, T& k) {
    a.text(k.name);
    a.hidden(k.key);
    a.number(k.icv_bits);
}

template <typename A, typename T>
void describe_addressing(A& a, T& s) {
    describe_id(a, s.id);
    describe_address(a, s.source);
    describe_selector(a, s.sel);
    a.choice(s.run_mode, ipsec::mode::tunnel);
    a.choice(s.dir, ipsec::direction::out);
    a.optional(s.encap, [&](auto& e) {
        describe_port(a, e.source_port);
        describe_port(a, e.destination_port);
        describe_address(a, e.original);
    });
    a.optional(s.care_of, [&](auto& c) { describe_address(a, c); });
}

template <typename A, typename T>
void describe_replay(A& a, T& s) {
    a.number(s.replay_window);
    a.number(s.replay_esn_form);
    a.number(s.replay.sent);
    a.number(s.replay.received);
    a.list(s.replay.bitmap);
    a.number(s.replay_threshold);
    a.number(s.replay_timer);
}

template <typename A, typename T>
void describe_sa(A& a, T& s) {
    describe_addressing(a, s);
    for (auto* one : {&s.reqid, &s.if_id, &s.seq, &s.extra_flags, &s.mapping_threshold,
                      &s.nat_keepalive, &s.tfc_pad})
        a.number(*one);
    a.number(s.flags);
    a.number(s.dying);
    describe_mark(a, s.output_mark);
    describe_security(a, s.security);
    a.optional(s.pcpu, [&](auto& cpu) { a.number(cpu); });
    for (auto* one : {&s.algs.aead, &s.algs.cipher, &s.algs.auth})
        describe_algorithm(a, *one);
    describe_replay(a, s);
    describe_limits(a, s.limits);
    describe_current(a, s.current);
    a.number(s.last_used);
    for (auto* one :
         {&s.statistics.replay_window, &s.statistics.replay, &s.statistics.integrity_failed})
        a.number(*one);
}

template <typename A, typename T>
void describe_template(A& a, T& t) {
    describe_id(a, t.id);
    describe_address(a, t.source);
    a.choice(t.fam, ipsec::family::ipv6);
    a.choice(t.run_mode, ipsec::mode::tunnel);
    a.number(t.share);
    a.number(t.optional);
    for (auto* one : {&t.reqid, &t.auth_algs, &t.cipher_algs, &t.comp_algs})
        a.number(*one);
}

template <typename A, typename T>
void describe_policy(A& a, T& p) {
    a.choice(p.dir, ipsec::policy_direction::fwd);
    a.choice(p.type, ipsec::policy_type::sub);
    a.choice(p.action, ipsec::policy_action::block);
    describe_selector(a, p.sel);
    describe_mark(a, p.mark);
    describe_security(a, p.security);
    for (auto* one : {&p.if_id, &p.priority, &p.index})
        a.number(*one);
    a.number(p.flags);
    a.number(p.share);
    a.each(p.templates, [&](auto& t) { describe_template(a, t); });
    describe_limits(a, p.limits);
    describe_current(a, p.current);
    a.number(p.position);
    a.number(p.dying);
}

template <typename A, typename D, typename H>
void describe_settings(A& a, D& defaults, H& thresholds) {
    for (auto& action : defaults)
        a.choice(action, ipsec::policy_action::block);
    for (auto* one :
         {&thresholds.local_v4, &thresholds.remote_v4, &thresholds.local_v6, &thresholds.remote_v6})
        a.number(*one);
}

template <typename A, typename T>
void describe_session(A& a, T& s) {
    a.raw(s.name.data(), s.name.size());
    a.number(s.nonce_base);
    a.number(s.sealed);
    a.raw(s.salt.data(), s.salt.size());
}

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

} // namespace

bytes payload_of(const journal_session& s) {
    bytes payload;
    field_writer w(payload);
    w.raw(magic.data(), magic.size());
    w.number(version);
    describe_session(w, s);
    return payload;
}

journal_writer::journal_writer(const journal_session& session, std::unique_ptr<journal_seal> seal)
    : seal_(std::move(seal)) {
    append_frame(frame::session, payload_of(session));
}

journal_writer::~journal_writer() {
    wipe();
}

void journal_writer::wipe() noexcept {
    esplane::wipe(bytes_.data(), bytes_.size());
    bytes_.clear();
}

/// Room first: bytes that move must not leave a copy behind.
void journal_writer::make_room(std::size_t length) {
    const std::size_t needed = bytes_.size() + length;
    if (needed <= bytes_.capacity()) return;
    bytes larger;
    larger.reserve(std::bit_ceil(std::max<std::size_t>(needed, longest_record)));
    larger.assign(bytes_.begin(), bytes_.end());
    wipe();
    bytes_ = std::move(larger);
}

void journal_writer::append_frame(frame what, const bytes& payload) {
    const frame_head head{static_cast<std::uint32_t>(payload.size()), crc_of(payload), what};
    make_room(sizeof head + payload.size());
    field_writer w(bytes_);
    w.raw(&head, sizeof head);
    w.raw(payload.data(), payload.size());
}

template <typename Describe>
void journal_writer::record(Describe describe) {
    record_.reserve(longest_record); // it never moves
    field_writer w(record_);
    describe(w);
    if (seal_) seal_->seal(next_index_++, record_);
    append_frame(frame::record, record_);
    esplane::wipe(record_.data(), record_.size());
    record_.clear();
}

void journal_writer::put(const ipsec::sa& s, std::optional<std::uint64_t> order) {
    record([&](field_writer& w) {
        w.choice(kind::put_sa, kind::put_sa);
        w.optional(order, [&](const std::uint64_t& o) { w.number(o); });
        describe_sa(w, s);
    });
}

void journal_writer::remove(const ipsec::sa_id& id) {
    record([&](field_writer& w) {
        w.choice(kind::remove_sa, kind::remove_sa);
        describe_id(w, id);
    });
}

void journal_writer::remove_sas(std::uint8_t protocol) {
    record([&](field_writer& w) {
        w.choice(kind::remove_sas, kind::remove_sas);
        w.number(protocol);
    });
}

void journal_writer::put(const ipsec::policy& p) {
    record([&](field_writer& w) {
        w.choice(kind::put_policy, kind::put_policy);
        describe_policy(w, p);
    });
}

void journal_writer::remove_policy(ipsec::policy_type type, std::uint32_t index) {
    record([&](field_writer& w) {
        w.choice(kind::remove_policy, kind::remove_policy);
        w.choice(type, ipsec::policy_type::sub);
        w.number(index);
    });
}

void journal_writer::remove_policies(ipsec::policy_type type) {
    record([&](field_writer& w) {
        w.choice(kind::remove_policies, kind::remove_policies);
        w.choice(type, ipsec::policy_type::sub);
    });
}

void journal_writer::put(const ipsec::default_actions& defaults,
                         const spd_hash_thresholds& thresholds) {
    record([&](field_writer& w) {
        w.choice(kind::put_settings, kind::put_settings);
        describe_settings(w, defaults, thresholds);
    });
}

void journal_writer::begin_after(std::uint64_t order) {
    record([&](field_writer& w) {
        w.choice(kind::begin_after, kind::begin_after);
        w.number(order);
    });
}

namespace {

struct id_hash {
    std::size_t operator()(const ipsec::sa_id& id) const noexcept {
        const auto low = wire::load<std::uint64_t>(id.destination.bytes.data());
        const auto high = wire::load<std::uint64_t>(id.destination.bytes.data() + 8);
        return ((low ^ high) * 0x9e3779b97f4a7c15u) ^ (id.spi.network() * 0xc2b2ae3d27d4eb4fu) ^
               id.mark.value;
    }
};

/// The last word on each object so far.
class image_maker {
  public:
    /// False: the record cannot be understood.
    bool apply(std::span<const std::uint8_t> record);
    journal_image finish();

  private:
    struct known_sa {
        std::uint64_t order = 0;
        ipsec::sa what;
    };

    bool put_sa(field_reader& r);
    bool remove_sa(field_reader& r);
    bool remove_sas(field_reader& r);
    bool put_policy(field_reader& r);
    bool remove_policy(field_reader& r);
    bool remove_policies(field_reader& r);
    bool put_settings(field_reader& r);
    bool begin_after(field_reader& r);

    std::unordered_map<ipsec::sa_id, known_sa, id_hash> sas_;
    std::map<std::pair<ipsec::policy_type, std::uint32_t>, ipsec::policy> policies_;
    std::uint64_t last_order_ = 0;
    ipsec::default_actions defaults_{};
    spd_hash_thresholds thresholds_;
};

bool image_maker::apply(std::span<const std::uint8_t> record) {
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

bool image_maker::put_sa(field_reader& r) {
    std::optional<std::uint64_t> order;
    r.optional(order, [&](std::uint64_t& o) { r.number(o); });
    ipsec::sa s;
    describe_sa(r, s);
    if (!r.at_end() || !is_sound(s) || !ipsec::resolve(s.algs)) return false;
    const auto [at, is_new] = sas_.try_emplace(s.id);
    if (!order && is_new) order = last_order_ + 1;
    if (order) at->second.order = *order;
    last_order_ = std::max(last_order_, at->second.order);
    at->second.what = std::move(s);
    return true;
}

bool image_maker::remove_sa(field_reader& r) {
    ipsec::sa_id id;
    describe_id(r, id);
    if (!r.at_end()) return false;
    sas_.erase(id);
    return true;
}

bool image_maker::remove_sas(field_reader& r) {
    constexpr std::uint8_t any = 255;
    std::uint8_t protocol = 0;
    r.number(protocol);
    if (!r.at_end()) return false;
    std::erase_if(sas_, [&](const auto& entry) {
        return protocol == 0 || protocol == any || entry.first.protocol == protocol;
    });
    return true;
}

bool image_maker::put_policy(field_reader& r) {
    ipsec::policy p;
    describe_policy(r, p);
    if (!r.at_end() || !is_sound(p)) return false;
    policies_.insert_or_assign({p.type, p.index}, std::move(p));
    return true;
}

bool image_maker::remove_policy(field_reader& r) {
    ipsec::policy_type type{};
    std::uint32_t index = 0;
    r.choice(type, ipsec::policy_type::sub);
    r.number(index);
    if (!r.at_end()) return false;
    policies_.erase({type, index});
    return true;
}

bool image_maker::remove_policies(field_reader& r) {
    ipsec::policy_type type{};
    r.choice(type, ipsec::policy_type::sub);
    if (!r.at_end()) return false;
    std::erase_if(policies_, [&](const auto& entry) { return entry.first.first == type; });
    return true;
}

bool image_maker::put_settings(field_reader& r) {
    describe_settings(r, defaults_, thresholds_);
    return r.at_end();
}

bool image_maker::begin_after(field_reader& r) {
    r.number(last_order_);
    return r.at_end();
}

/// What a map holds, as `order_of` says.
template <typename Map, typename Order>
auto sorted(Map& known, Order order_of) {
    std::vector<typename Map::mapped_type*> all;
    for (auto& [name, one] : known)
        all.push_back(&one);
    std::sort(all.begin(), all.end(),
              [&](const auto* a, const auto* b) { return order_of(*a) < order_of(*b); });
    return all;
}

journal_image image_maker::finish() {
    journal_image image;
    for (known_sa* one : sorted(sas_, [](const known_sa& s) { return s.order; }))
        image.sas.push_back(std::move(one->what));
    for (ipsec::policy* one : sorted(policies_, [](const ipsec::policy& p) { return p.position; }))
        image.policies.push_back(std::move(*one));
    image.defaults = defaults_;
    image.thresholds = thresholds_;
    return image;
}

/// Frame by frame, session by session.
class log_reader {
  public:
    log_reader(std::span<const std::uint8_t> file, const journal_opener& opener)
        : file_(file)
        , opener_(opener) {}

    result<journal_image> read();

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
    const journal_opener& opener_;
    std::size_t at_ = 0; ///< of the frame that is read
    std::size_t next_ = 0;
    std::optional<journal_session> session_;
    std::unique_ptr<journal_seal> seal_;
    std::uint64_t index_ = 0;
    image_maker image_;
};

result<std::optional<log_reader::whole_frame>> log_reader::next_frame() {
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

result<void> log_reader::begin_session(std::span<const std::uint8_t> payload) {
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

result<void> log_reader::take_record(std::span<const std::uint8_t> payload) {
    bytes record(payload.begin(), payload.end());
    const bool first = index_ == 0;
    const bool opened = !seal_ || seal_->open(index_++, record);
    const bool understood = opened && image_.apply(record);
    wipe(record.data(), record.size());
    if (!opened && first) return fail(EINVAL, "sealed with another key, or corrupted");
    if (!understood) return corrupted();
    return {};
}

result<journal_image> log_reader::read() {
    while (true) {
        const auto next = next_frame();
        if (!next) return tl::unexpected(next.error());
        if (!*next) break;
        const auto& [what, payload] = **next;
        if (what == frame::record && !session_) return corrupted();
        const auto taken = what == frame::session ? begin_session(payload) : take_record(payload);
        if (!taken) return tl::unexpected(taken.error());
    }
    journal_image image = image_.finish();
    if (session_) image.last = *session_;
    image.whole = at_;
    return image;
}

} // namespace

result<journal_image> read_journal(std::span<const std::uint8_t> file,
                                   const journal_opener& opener) {
    return log_reader(file, opener).read();
}

} // namespace esplane::control
