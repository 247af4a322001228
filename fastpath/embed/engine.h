// SPDX-License-Identifier: Apache-2.0
//
// The engine behind the C interface: tables, backend and control layer, and the workers that
// threads of the embedder have registered.
//
// Threads: control's, one at a time, which `control_call` sees to; register_worker, unregister
// and counting are any thread's.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "fastpath/backend.h"
#include "fastpath/embed/translate.h"
#include "fastpath/embed/worker.h"
#include "fastpath/quiescence.h"
#include "fastpath/tables.h"
#include "lib/control/layer.h"

namespace esplane::embed {
class engine;
struct seat;
} // namespace esplane::embed

/// What handles point to.
struct esplane_engine {
    std::atomic<esplane::embed::engine*> object{nullptr};
};
struct esplane_worker {
    std::atomic<esplane::embed::seat*> object{nullptr};
};

namespace esplane::embed {

/// A worker and the thread that it belongs to; kept for the next one when that goes.
struct seat {
    engine* home = nullptr;
    std::unique_ptr<worker> run;
    esplane_worker* handle = nullptr;
    std::size_t packet_size = 0;
    std::atomic<const void*> thread{nullptr}; ///< what this_thread() is to it; nullptr = nobody's
    std::optional<fastpath::reader> reader;   ///< the thread's own
    bool online = false;                      ///< likewise
    bool busy = false;                        ///< likewise: in a burst, or in a control call
    std::atomic<bool> left{false};            ///< nobody's, and SAs may be its still
};

class engine final : private ipsec::listener {
  public:
    /// Errors: EPROTONOSUPPORT, EINVAL, ENOTSUP.
    [[nodiscard]] static result<std::unique_ptr<engine>> make(const esplane_engine_options& o);
    ~engine() override;
    engine(const engine&) = delete;
    engine& operator=(const engine&) = delete;

    // Control.
    void tick(moment now);
    /// Errors: EINVAL.
    [[nodiscard]] result<void> set_mtu(std::uint32_t mtu);
    void set_addresses(std::vector<ipsec::address> addresses);
    void set_filter(esplane_filter f, void* user);
    /// expires_s   0: nobody answers them
    void answer_acquires(std::uint32_t expires_s);
    [[nodiscard]] control::layer& layer() noexcept { return layer_; }
    [[nodiscard]] fastpath::user_backend& backend() noexcept { return backend_; }
    /// Errors: ENOBUFS.
    [[nodiscard]] result<void> check_room_for_sa() const;
    [[nodiscard]] result<void> check_room_for_policy() const;
    /// Whether a worker of that index was ever registered.  Errors: EINVAL.
    [[nodiscard]] result<void> check_worker(unsigned index) const;
    /// Templates of what policy_to() gave last.
    [[nodiscard]] std::vector<esplane_template>& templates() noexcept { return templates_; }

    // Any thread.
    /// Makes the calling thread a worker.  Errors: EALREADY, ENOBUFS, ENOTSUP.
    [[nodiscard]] result<seat*> register_worker();
    /// By the worker's own thread.
    static void unregister_worker(seat& s) noexcept;
    [[nodiscard]] bool has_workers() const;
    void count(fastpath::worker_counters& into) const;

  private:
    friend class control_call;

    explicit engine(const esplane_engine_options& o);
    void on_event(const ipsec::event& e) override;
    void tell(esplane_event_kind kind, bool hard, const ipsec::sa* sa, const ipsec::policy* policy);
    void tell_first_use(const ipsec::sa_id& id);
    void publish_routes();
    void release_sas_of_those_who_left();
    [[nodiscard]] result<seat*> free_seat();
    [[nodiscard]] std::vector<seat*> seats() const;

    esplane_engine_options options_;
    std::vector<ipsec::address> addresses_;
    fastpath::tables tables_;
    fastpath::user_backend backend_;
    control::layer layer_;
    std::vector<esplane_template> templates_;       ///< of answers
    std::vector<esplane_template> event_templates_; ///< of events

    std::atomic<const void*> controlling_{nullptr}; ///< the thread in a control call

    mutable std::mutex seats_mutex_;
    std::vector<std::unique_ptr<seat>> seats_; ///< by index of the worker
};

enum class intent : bool { read, change };

/// One control call: no other thread may be in one, and out of a callback only reading is allowed.
/// Where the thread is a worker too, it is quiescent meanwhile: nobody waits for himself.
class control_call {
  public:
    control_call(engine& e, intent what) noexcept;
    ~control_call();
    control_call(const control_call&) = delete;
    control_call& operator=(const control_call&) = delete;

    /// Errors: EBUSY.
    [[nodiscard]] result<void> admitted() const;

  private:
    enum class standing : std::uint8_t { admitted, nested, in_callback, beside_another };
    [[nodiscard]] standing enter(intent what) noexcept;

    engine& engine_;
    standing standing_;
    seat* resting_ = nullptr; ///< the thread's own, where it is a worker
};

/// An address that only the calling thread has while it lives.
[[nodiscard]] const void* this_thread() noexcept;

/// Tells a live handle from any other; nullptr where it is none.
[[nodiscard]] esplane_engine* make_handle(engine& e) noexcept;
[[nodiscard]] engine* find(const esplane_engine* handle) noexcept;
void drop_handle(esplane_engine* handle) noexcept;
[[nodiscard]] seat* find(const esplane_worker* handle) noexcept;
/// The calling thread's; nullptr where it is no worker.
[[nodiscard]] seat* own_seat() noexcept;

} // namespace esplane::embed
