// SPDX-License-Identifier: Apache-2.0
//
// Bytes that must not outlive their use: keys, salts, key schedules.
//
// Memory is wiped before it is given back, in every path: destruction, move, assignment.
// There is no operator<<: a secret cannot be logged by accident.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

namespace esplane {

/// Overwrites `length` bytes at `data` with zeros in a way the compiler may not remove.
inline void wipe(void* data, std::size_t length) noexcept {
    if (length != 0) ::explicit_bzero(data, length); // an empty vector has no data
}

/// A byte string that wipes itself.  Copies are explicit (`clone`).
class secret {
  public:
    secret() = default;
    explicit secret(std::span<const std::uint8_t> bytes)
        : bytes_(bytes.begin(), bytes.end()) {}
    secret(secret&& other) noexcept
        : bytes_(std::exchange(other.bytes_, {})) {}
    secret& operator=(secret&& other) noexcept {
        if (this != &other) {
            clear();
            bytes_ = std::exchange(other.bytes_, {});
        }
        return *this;
    }
    secret(const secret&) = delete;
    secret& operator=(const secret&) = delete;
    ~secret() { clear(); }

    [[nodiscard]] secret clone() const { return secret(bytes()); }
    [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept { return bytes_; }
    [[nodiscard]] std::size_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] bool empty() const noexcept { return bytes_.empty(); }

    /// Equality in time that depends on the lengths only.
    [[nodiscard]] bool equals(const secret& other) const noexcept {
        if (size() != other.size()) return false;
        std::uint8_t difference = 0;
        for (std::size_t i = 0; i < bytes_.size(); ++i)
            difference = static_cast<std::uint8_t>(difference | (bytes_[i] ^ other.bytes_[i]));
        return difference == 0;
    }

  private:
    void clear() noexcept {
        if (!bytes_.empty()) wipe(bytes_.data(), bytes_.size());
        bytes_.clear();
    }
    std::vector<std::uint8_t> bytes_;
};

} // namespace esplane
