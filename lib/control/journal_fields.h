// SPDX-License-Identifier: Apache-2.0
//
// How the fields of a log's objects are written and read (journal.h): numbers as this machine has
// them, lists with their length before them.
// Threads: any.
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "lib/base/secret.h"

namespace esplane::control::journal {

using bytes = std::vector<std::uint8_t>;

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

} // namespace esplane::control::journal
