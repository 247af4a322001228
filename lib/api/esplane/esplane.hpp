// SPDX-License-Identifier: Apache-2.0
//
// esplane as a C++20 library: <esplane/esplane.h> with owners, spans and results.
//
// All of it is inline over the C interface, so it works with any compiler and standard library that
// has C++20, and adds nothing to the library's ABI.  The contracts (threads, units, ranges, byte
// order, errors) are those of the C functions of the same name and are not said again here.
// Nothing throws; std::function and std::string may, where memory ends.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <arpa/inet.h>

#include <esplane/esplane.h>

namespace esplane {
inline namespace v1 {

/// Why a call failed.
struct error {
    int code = 0;      ///< an errno value, positive
    std::string text;  ///< one line
    std::string field; ///< at fault; may be empty

    /// Of this thread's latest call, which returned `negative`.
    [[nodiscard]] static error latest(int negative) {
        return {-negative, esplane_error_text(), esplane_error_field()};
    }
};

/// A value or an error.  value() of a failed one, and error() of a good one, are undefined.
template <typename T>
class [[nodiscard]] result {
  public:
    result(T value)
        : value_(std::move(value)) {}
    result(v1::error why)
        : error_(std::move(why)) {}

    [[nodiscard]] explicit operator bool() const noexcept { return value_.has_value(); }
    [[nodiscard]] T& value() & noexcept { return *value_; }
    [[nodiscard]] const T& value() const& noexcept { return *value_; }
    [[nodiscard]] T&& value() && noexcept { return *std::move(value_); }
    [[nodiscard]] T& operator*() & noexcept { return *value_; }
    [[nodiscard]] T&& operator*() && noexcept { return *std::move(value_); }
    [[nodiscard]] T* operator->() noexcept { return &*value_; }
    [[nodiscard]] const v1::error& error() const noexcept { return error_; }

  private:
    std::optional<T> value_;
    v1::error error_;
};

template <>
class [[nodiscard]] result<void> {
  public:
    result() = default;
    result(v1::error why)
        : error_(std::move(why)) {}

    [[nodiscard]] explicit operator bool() const noexcept { return error_.code == 0; }
    [[nodiscard]] const v1::error& error() const noexcept { return error_; }

  private:
    v1::error error_;
};

/// What a C function returned.
[[nodiscard]] inline result<void> checked(int returned) {
    if (returned < 0) return error::latest(returned);
    return {};
}

using time = esplane_time;
using packet = esplane_packet;
using counters = esplane_counters;
using address = esplane_address;
using limits = esplane_limits;

[[nodiscard]] inline time now() noexcept {
    return esplane_now();
}

/// From "10.1.0.1" or "fd01::1".
[[nodiscard]] inline result<address> parse_address(const std::string& text) {
    address a{};
    if (::inet_pton(AF_INET, text.c_str(), a.bytes) == 1) {
        a.family = ESPLANE_IPV4;
        return a;
    }
    if (::inet_pton(AF_INET6, text.c_str(), a.bytes) == 1) {
        a.family = ESPLANE_IPV6;
        return a;
    }
    return error{EINVAL, "'" + text + "' is no IPv4 or IPv6 address", "address"};
}

/// `name` and `key` must live until the call that takes the SA has returned.
[[nodiscard]] inline esplane_algorithm algorithm(const char* name,
                                                 std::span<const std::uint8_t> key,
                                                 std::uint32_t icv_bits = 0) noexcept {
    return {name, key.data(), static_cast<std::uint32_t>(key.size()), icv_bits};
}

// The structs of the C interface with their defaults.
struct sa : esplane_sa {
    sa() noexcept { esplane_sa_init(this); }
};
struct policy : esplane_policy {
    policy() noexcept { esplane_policy_init(this); }
};
struct policy_template : esplane_template {
    policy_template() noexcept { esplane_template_init(this); }
};
struct policy_key : esplane_policy_key {
    policy_key() noexcept { esplane_policy_key_init(this); }
};
struct spi_request : esplane_spi_request {
    spi_request() noexcept { esplane_spi_request_init(this); }
};

/// Where walks over SAs and policies begin.
inline constexpr std::uint64_t walk_start = UINT64_MAX;

/// The calling thread as a worker, until this goes: in the same thread, and before the engine.
class worker {
  public:
    worker(worker&& other) noexcept
        : handle_(std::exchange(other.handle_, nullptr)) {}
    worker& operator=(worker&& other) noexcept {
        std::swap(handle_, other.handle_);
        return *this;
    }
    worker(const worker&) = delete;
    worker& operator=(const worker&) = delete;
    ~worker() {
        if (handle_ != nullptr) (void)esplane_worker_unregister(handle_);
    }

    result<void> inbound(std::span<packet> packets, time when) {
        return checked(esplane_inbound(handle_, packets.data(), packets.size(), when));
    }
    result<void> outbound(std::span<packet> packets, time when, std::uint32_t flags = 0) {
        return checked(esplane_outbound(handle_, packets.data(), packets.size(), when, flags));
    }
    result<void> quiescent() { return checked(esplane_worker_quiescent(handle_)); }
    result<void> offline() { return checked(esplane_worker_offline(handle_)); }
    result<void> online() { return checked(esplane_worker_online(handle_)); }
    [[nodiscard]] unsigned index() const noexcept {
        return static_cast<unsigned>(esplane_worker_index(handle_));
    }
    [[nodiscard]] esplane_worker* handle() const noexcept { return handle_; }

  private:
    friend class engine;
    explicit worker(esplane_worker* handle) noexcept
        : handle_(handle) {}

    esplane_worker* handle_;
};

struct engine_options : esplane_engine_options {
    engine_options() noexcept { esplane_engine_options_init(this); }
    /// Told what happens, in place of esplane_engine_options::event.
    std::function<void(const esplane_event&)> on_event;
};

/// An engine.  It must outlive its workers.
class engine {
  public:
    [[nodiscard]] static result<engine> create(engine_options options) {
        engine e;
        if (options.on_event) {
            e.on_event_ = std::make_unique<std::function<void(const esplane_event&)>>(
                std::move(options.on_event));
            options.event_user = e.on_event_.get();
            options.event = [](void* user, const esplane_event* event) {
                (*static_cast<std::function<void(const esplane_event&)>*>(user))(*event);
            };
        }
        const int returned = esplane_engine_create(&options, &e.handle_);
        if (returned < 0) return error::latest(returned);
        return e;
    }
    engine(engine&& other) noexcept
        : handle_(std::exchange(other.handle_, nullptr))
        , on_event_(std::move(other.on_event_)) {}
    engine& operator=(engine&& other) noexcept {
        std::swap(handle_, other.handle_);
        std::swap(on_event_, other.on_event_);
        return *this;
    }
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;
    ~engine() {
        if (handle_ != nullptr) (void)esplane_engine_destroy(handle_);
    }

    result<void> tick(time when) { return checked(esplane_tick(handle_, when)); }
    result<std::uint64_t> next_deadline() {
        std::uint64_t ns = 0;
        const int returned = esplane_next_deadline(handle_, &ns);
        if (returned < 0) return error::latest(returned);
        return ns;
    }
    result<void> answer_acquires(std::uint32_t expires_s) {
        return checked(esplane_answer_acquires(handle_, expires_s));
    }
    result<void> set_mtu(std::uint32_t mtu) { return checked(esplane_set_mtu(handle_, mtu)); }
    result<void> set_addresses(std::span<const address> all) {
        return checked(esplane_set_addresses(handle_, all.data(), all.size()));
    }
    result<void> set_filter(esplane_filter filter, void* user) {
        return checked(esplane_set_filter(handle_, filter, user));
    }

    result<void> add(const esplane_sa& s, time when) {
        return checked(esplane_sa_add(handle_, &s, when));
    }
    result<void> update(const esplane_sa& s, time when) {
        return checked(esplane_sa_update(handle_, &s, when));
    }
    result<void> remove(const esplane_sa_id& id) {
        return checked(esplane_sa_delete(handle_, &id));
    }
    result<void> move(const esplane_sa_id& id, unsigned to) {
        return checked(esplane_sa_move(handle_, &id, to));
    }
    result<void> flush_sas() { return checked(esplane_sa_flush(handle_)); }
    result<sa> get(const esplane_sa_id& id) {
        sa s;
        const int returned = esplane_sa_get(handle_, &id, &s);
        if (returned < 0) return error::latest(returned);
        return s;
    }
    /// False at the end of the walk.
    result<bool> next(std::uint64_t& cursor, sa& into) {
        return walked(esplane_sa_next(handle_, &cursor, &into));
    }
    result<std::uint32_t> allocate_spi(const esplane_spi_request& request, time when) {
        std::uint32_t spi = 0;
        const int returned = esplane_spi_allocate(handle_, &request, when, &spi);
        if (returned < 0) return error::latest(returned);
        return spi;
    }

    result<void> add(const esplane_policy& p, time when) {
        return checked(esplane_policy_add(handle_, &p, when));
    }
    result<void> update(const esplane_policy& p, time when) {
        return checked(esplane_policy_update(handle_, &p, when));
    }
    result<void> remove(const esplane_policy_key& key) {
        return checked(esplane_policy_delete(handle_, &key));
    }
    result<void> flush_policies() { return checked(esplane_policy_flush(handle_)); }
    result<policy> get(const esplane_policy_key& key) {
        policy p;
        const int returned = esplane_policy_get(handle_, &key, &p);
        if (returned < 0) return error::latest(returned);
        return p;
    }
    result<bool> next(std::uint64_t& cursor, policy& into) {
        return walked(esplane_policy_next(handle_, &cursor, &into));
    }

    /// The calling thread becomes a worker.
    result<worker> register_worker() {
        esplane_worker* handle = nullptr;
        const int returned = esplane_worker_register(handle_, &handle);
        if (returned < 0) return error::latest(returned);
        return worker(handle);
    }

    /// Takes its SAs from a worker that is stuck; how many there were.
    result<unsigned> abandon(unsigned worker_index) {
        const int returned = esplane_worker_abandon(handle_, worker_index);
        if (returned < 0) return error::latest(returned);
        return static_cast<unsigned>(returned);
    }

    result<counters> count() const {
        counters c;
        esplane_counters_init(&c);
        const int returned = esplane_counters_get(handle_, &c);
        if (returned < 0) return error::latest(returned);
        return c;
    }
    result<std::uint64_t> drops(std::uint16_t reason) const {
        std::uint64_t n = 0;
        const int returned = esplane_drops(handle_, reason, &n);
        if (returned < 0) return error::latest(returned);
        return n;
    }
    [[nodiscard]] esplane_engine* handle() const noexcept { return handle_; }

  private:
    engine() = default;
    static result<bool> walked(int returned) {
        if (returned < 0) return error::latest(returned);
        return returned == 1;
    }

    esplane_engine* handle_ = nullptr;
    std::unique_ptr<std::function<void(const esplane_event&)>> on_event_;
};

/// "icv_mismatch"; "" where there is no such reason.
[[nodiscard]] inline std::string_view reason_name(std::uint16_t reason) noexcept {
    return esplane_reason_name(reason);
}
[[nodiscard]] inline std::string_view reason_text(std::uint16_t reason) noexcept {
    return esplane_reason_text(reason);
}

} // namespace v1
} // namespace esplane
