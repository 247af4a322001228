// SPDX-License-Identifier: Apache-2.0
//
// How descriptions are packed (packed.h): for packed_sa.cc and packed_policy.cc.
//
// What is packed has a walk: a callable that takes another one and calls it with each field, always
// in the same order, at most 64.  Packing walks three times: which fields are there, how long are
// they, write them; unpacking once.
#pragma once

#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "lib/ipsec/algorithm_names.h"
#include "lib/ipsec/packed.h"
#include "lib/ipsec/sa.h"

namespace esplane::ipsec::packing {

/// Whether a field is as in an empty description.
inline bool is_empty(const keyed_algorithm& a) noexcept {
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

/// Says which fields are there.
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

/// Calls `f` for each field, as fields of what has the selector.
template <typename Selector, typename F>
void walk_selector(Selector& s, F& f) {
    f(s.source);
    f(s.destination);
    f(s.source_prefix);
    f(s.destination_prefix);
    f(s.source_port);
    f(s.source_port_mask);
    f(s.destination_port);
    f(s.destination_port_mask);
    f(s.protocol);
    f(s.fam);
    f(s.ifindex);
    f(s.user);
}

/// The same of lifetime_current.
template <typename Counts, typename F>
void walk_counts(Counts& c, F& f) {
    f(c.bytes);
    f(c.packets);
    f(c.add_time);
    f(c.use_time);
}

/// What is a description itself has a walk_fields(value, f) beside it.
template <typename T>
concept described = requires(const T& value, field_map& f) {
    walk_fields(value, f);
};

/// Puts values one behind the other, or only says how long they are.
class packer {
  public:
    /// to   nullptr: nowhere
    explicit packer(std::uint8_t* to)
        : to_(to) {}
    [[nodiscard]] std::size_t length() const noexcept { return length_; }

    template <typename T>
    void put(const T& value) noexcept {
        if constexpr (described<T>) {
            field_map map;
            walk_fields(value, map);
            put_number(map.bits());
            if_there put_it(map.bits(), [this](const auto& field) { this->put(field); });
            walk_fields(value, put_it);
        } else {
            static_assert(std::is_trivially_copyable_v<T>);
            raw(&value, sizeof value);
        }
    }
    void put(const address& a) noexcept {
        put(a.fam);
        raw(a.bytes.data(), address_length(a.fam == family::ipv4 ? a.fam : family::ipv6));
    }
    template <typename T>
    void put(const std::vector<T>& values) noexcept {
        put_number(values.size());
        if constexpr (described<T>)
            for (const T& value : values)
                put(value);
        else
            raw(values.data(), values.size() * sizeof(T));
    }
    void put(const security_context& c) noexcept {
        put(c.domain);
        put(c.algorithm);
        put(c.label);
    }
    void put(const keyed_algorithm& a) noexcept {
        put_name(a.name);
        put_number(a.key.size());
        raw(a.key.bytes().data(), a.key.size());
        put(a.icv_bits);
    }
    template <typename T>
    void put(const std::optional<T>& value) noexcept {
        put(*value); // there: else it is empty, and not packed
    }

  private:
    /// Small ones are many: seven bits a byte, and whether another one follows.
    void put_number(std::uint64_t n) noexcept {
        for (; n >= 0x80; n >>= 7)
            put(static_cast<std::uint8_t>(n | 0x80));
        put(static_cast<std::uint8_t>(n));
    }
    /// One that is known as its number, another as its length beyond all numbers and itself.
    void put_name(std::string_view name) noexcept {
        const std::size_t number = number_of_algorithm(name);
        const bool known = number != algorithm_names.size();
        put_number(known ? number : algorithm_names.size() + name.size());
        if (!known) raw(name.data(), name.size());
    }
    void raw(const void* from, std::size_t length) noexcept {
        if (to_ != nullptr && length != 0) std::memcpy(to_ + length_, from, length);
        length_ += length;
    }

    std::uint8_t* to_;
    std::size_t length_ = 0;
};

/// Takes them in the same order.
class unpacker {
  public:
    explicit unpacker(const std::uint8_t* from)
        : from_(from) {}

    template <typename T>
    void take(T& value) {
        if constexpr (described<T>) {
            if_there take_it(take_number(), [this](auto& field) { this->take(field); });
            walk_fields(value, take_it);
        } else {
            static_assert(std::is_trivially_copyable_v<T>);
            std::memcpy(&value, raw(sizeof value), sizeof value);
        }
    }
    void take(address& a) noexcept {
        take(a.fam);
        const std::size_t length = address_length(a.fam == family::ipv4 ? a.fam : family::ipv6);
        std::memcpy(a.bytes.data(), raw(length), length);
    }
    template <typename T>
    void take(std::vector<T>& values) {
        const std::size_t count = take_number();
        values.resize(count);
        if constexpr (described<T>)
            for (T& value : values)
                take(value);
        else if (count != 0)
            std::memcpy(values.data(), raw(count * sizeof(T)), count * sizeof(T));
    }
    void take(security_context& c) {
        take(c.domain);
        take(c.algorithm);
        take(c.label);
    }
    void take(keyed_algorithm& a) {
        a.name = take_name();
        const std::size_t length = take_number();
        a.key = secret({raw(length), length});
        take(a.icv_bits);
    }
    template <typename T>
    void take(std::optional<T>& value) {
        take(value.emplace());
    }

  private:
    std::uint64_t take_number() noexcept {
        std::uint64_t n = 0;
        for (unsigned shift = 0;; shift += 7) {
            const std::uint8_t part = *raw(1);
            n |= std::uint64_t{part & 0x7fu} << shift;
            if (part < 0x80) return n;
        }
    }
    std::string_view take_name() noexcept {
        const std::size_t number = take_number();
        if (number < algorithm_names.size()) return algorithm_names[number];
        const std::size_t length = number - algorithm_names.size();
        return {reinterpret_cast<const char*>(raw(length)), length};
    }
    const std::uint8_t* raw(std::size_t length) noexcept {
        const std::uint8_t* const at = from_;
        from_ += length;
        return at;
    }

    const std::uint8_t* from_;
};

template <typename Walk>
[[nodiscard]] packed pack(Walk walk) {
    field_map map;
    walk(map);
    const auto write_to = [&](std::uint8_t* to) {
        packer p(to);
        if_there put(map.bits(), [&p](const auto& value) { p.put(value); });
        walk(put);
        return p.length();
    };
    packed made(map.bits(), write_to(nullptr));
    (void)write_to(made.bytes());
    return made;
}

/// Into an empty description, which it stays where nothing was packed.
template <typename Walk>
void unpack(const packed& from, Walk walk) {
    if (from.size() == 0) return;
    unpacker u(from.bytes());
    if_there take(from.fields(), [&u](auto& value) { u.take(value); });
    walk(take);
}

} // namespace esplane::ipsec::packing
