// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/packed_sa.h"

#include <cstring>
#include <new>
#include <string_view>
#include <type_traits>

namespace esplane::ipsec {

namespace {

/// A field that for_each_field() did not know would be lost.
static_assert(sizeof(sa) == 632, "pack what is new, and test it");

/// Calls `f` for each field, in the order they are packed in; keys are apart.
template <typename Sa, typename F>
void for_each_field(Sa& s, F& f) {
    f(s.source);
    f(s.sel.source);
    f(s.sel.destination);
    f(s.sel.source_prefix);
    f(s.sel.destination_prefix);
    f(s.sel.source_port);
    f(s.sel.source_port_mask);
    f(s.sel.destination_port);
    f(s.sel.destination_port_mask);
    f(s.sel.protocol);
    f(s.sel.fam);
    f(s.sel.ifindex);
    f(s.sel.user);
    f(s.run_mode);
    f(s.reqid);
    f(s.if_id);
    f(s.seq);
    f(s.output_mark);
    f(s.flags);
    f(s.extra_flags);
    f(s.dir);
    f(s.state);
    f(s.dying);
    f(s.encap);
    f(s.mapping_threshold);
    f(s.nat_keepalive);
    f(s.care_of);
    f(s.security);
    f(s.pcpu);
    f(s.tfc_pad);
    f(s.replay_window);
    f(s.replay_esn_form);
    f(s.replay.sent);
    f(s.replay.received);
    f(s.replay.bitmap);
    f(s.replay_threshold);
    f(s.replay_timer);
    f(s.limits);
    f(s.current.bytes);
    f(s.current.packets);
    f(s.current.add_time);
    f(s.current.use_time);
    f(s.last_used);
    f(s.statistics.replay_window);
    f(s.statistics.replay);
    f(s.statistics.integrity_failed);
}

template <typename Algorithms, typename F>
void for_each_algorithm(Algorithms& a, F& f) {
    f(a.run);
    f(a.aead);
    f(a.cipher);
    f(a.auth);
}

bool is_empty(const keyed_algorithm& a) noexcept {
    return a.name.empty() && a.key.empty() && a.icv_bits == 0;
}
template <typename T>
bool is_empty(const std::vector<T>& v) noexcept {
    return v.empty();
}
template <typename T>
bool is_empty(const T& value) noexcept {
    static const T none{};
    return value == none;
}

/// Puts values one behind the other, or only says how long they are.
class packer {
  public:
    explicit packer(std::uint8_t* to)
        : to_(to) {}
    [[nodiscard]] std::size_t length() const noexcept { return length_; }

    void raw(const void* from, std::size_t length) noexcept {
        if (to_ != nullptr && length != 0) std::memcpy(to_ + length_, from, length);
        length_ += length;
    }
    template <typename T>
    void put(const T& value) noexcept {
        static_assert(std::is_trivially_copyable_v<T>);
        raw(&value, sizeof value);
    }
    void put(const address& a) noexcept {
        put(a.fam);
        raw(a.bytes.data(), address_length(a.fam == family::ipv4 ? a.fam : family::ipv6));
    }
    template <typename T>
    void put(const std::vector<T>& values) noexcept {
        put(static_cast<std::uint32_t>(values.size()));
        raw(values.data(), values.size() * sizeof(T));
    }
    void put(const security_context& c) noexcept {
        put(c.domain);
        put(c.algorithm);
        put(c.label);
    }
    void put(const keyed_algorithm& a) noexcept {
        put(static_cast<std::uint8_t>(a.name.size()));
        raw(a.name.data(), a.name.size());
        put(static_cast<std::uint16_t>(a.key.size()));
        raw(a.key.bytes().data(), a.key.size());
        put(a.icv_bits);
    }
    template <typename T>
    void put(const std::optional<T>& value) noexcept {
        put(*value); // there: else it is empty, and not packed
    }

  private:
    std::uint8_t* to_;
    std::size_t length_ = 0;
};

/// Takes them in the same order.
class unpacker {
  public:
    explicit unpacker(const std::uint8_t* from)
        : from_(from) {}

    const std::uint8_t* raw(std::size_t length) noexcept {
        const std::uint8_t* const at = from_;
        from_ += length;
        return at;
    }
    template <typename T>
    void take(T& value) noexcept {
        static_assert(std::is_trivially_copyable_v<T>);
        std::memcpy(&value, raw(sizeof value), sizeof value);
    }
    void take(address& a) noexcept {
        take(a.fam);
        const std::size_t length = address_length(a.fam == family::ipv4 ? a.fam : family::ipv6);
        std::memcpy(a.bytes.data(), raw(length), length);
    }
    template <typename T>
    void take(std::vector<T>& values) {
        std::uint32_t count;
        take(count);
        values.resize(count);
        std::memcpy(values.data(), raw(count * sizeof(T)), count * sizeof(T));
    }
    void take(security_context& c) {
        take(c.domain);
        take(c.algorithm);
        take(c.label);
    }
    void take(keyed_algorithm& a) {
        std::uint8_t name;
        take(name);
        a.name.assign(reinterpret_cast<const char*>(raw(name)), name);
        std::uint16_t key;
        take(key);
        a.key = secret({raw(key), key});
        take(a.icv_bits);
    }
    template <typename T>
    void take(std::optional<T>& value) {
        take(value.emplace());
    }

  private:
    const std::uint8_t* from_;
};

/// Says which fields there are.
class field_map {
  public:
    template <typename T>
    void operator()(const T& value) noexcept {
        bits_ |= std::uint64_t{!is_empty(value)} << count_++;
    }
    [[nodiscard]] std::uint64_t bits() const noexcept { return bits_; }

  private:
    std::uint64_t bits_ = 0;
    unsigned count_ = 0;
};

/// Calls `f` for those; of an empty description the others become empty here, too.
template <typename F>
class if_there {
  public:
    if_there(std::uint64_t bits, F f)
        : bits_(bits)
        , f_(f) {}
    template <typename T>
    void operator()(T& value) {
        if ((bits_ & 1) != 0)
            f_(value);
        else if constexpr (std::is_scalar_v<T> && !std::is_const_v<T>)
            value = T{};
        bits_ >>= 1;
    }

  private:
    std::uint64_t bits_;
    F f_;
};

/// At the start of the memory.
struct head {
    std::uint64_t fields;
    std::uint32_t length; ///< of all
};
constexpr std::size_t head_length = sizeof(std::uint64_t) + sizeof(std::uint32_t);

head head_of(const std::uint8_t* packed) noexcept {
    head h{};
    std::memcpy(&h.fields, packed, sizeof h.fields);
    std::memcpy(&h.length, packed + sizeof h.fields, sizeof h.length);
    return h;
}

/// Returns the length of the fields.
std::size_t write_fields(std::uint8_t* to, std::uint64_t fields, const sa& s,
                         const algorithms& algs) noexcept {
    packer p(to);
    if_there put(fields, [&p](const auto& value) { p.put(value); });
    for_each_field(s, put);
    for_each_algorithm(algs, put);
    return p.length();
}

} // namespace

packed_sa packed_sa::without_keys(const sa& s) {
    algorithms suite_alone;
    suite_alone.run = s.algs.run;
    return packed_sa(s, suite_alone);
}

packed_sa::packed_sa(const sa& s, const algorithms& algs) {
    field_map map;
    for_each_field(s, map);
    for_each_algorithm(algs, map);
    const std::size_t length = head_length + write_fields(nullptr, map.bits(), s, algs);
    bytes_.reset(static_cast<std::uint8_t*>(::operator new(length)));
    const std::uint64_t fields = map.bits();
    const auto stored_length = static_cast<std::uint32_t>(length);
    std::memcpy(bytes_.get(), &fields, sizeof fields);
    std::memcpy(bytes_.get() + sizeof fields, &stored_length, sizeof stored_length);
    (void)write_fields(bytes_.get() + head_length, fields, s, algs);
}

sa packed_sa::unpack(const sa_id& id) const {
    sa s;
    s.id = id;
    if (!bytes_) return s;
    unpacker u(bytes_.get() + head_length);
    if_there take(head_of(bytes_.get()).fields, [&u](auto& value) { u.take(value); });
    for_each_field(s, take);
    for_each_algorithm(s.algs, take);
    return s;
}

std::size_t packed_sa::size() const noexcept {
    return bytes_ ? head_of(bytes_.get()).length : 0;
}

void packed_sa::wiping::operator()(std::uint8_t* packed) const noexcept {
    wipe(packed, head_of(packed).length);
    ::operator delete(packed);
}

} // namespace esplane::ipsec
