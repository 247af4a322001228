// SPDX-License-Identifier: Apache-2.0
#include "fastpath/embed/engine.h"

#include <algorithm>
#include <cstdlib>
#include <sys/random.h>

#include "fastpath/embed/handle.h"
#include "fastpath/filter.h"
#include "fastpath/lane.h"

namespace esplane::embed {

namespace {

constexpr std::size_t most_engines = 16;
constexpr std::uint32_t smallest_mtu = 68;
constexpr std::uint32_t largest_mtu = 65535;

handle_table<esplane_engine, engine, most_engines> engines;
handle_table<esplane_worker, seat, most_engines * fastpath::max_lanes> workers;

/// The calling thread as a worker.  A thread that ends is taken off: a reader that is gone would
/// be waited for for ever.
struct thread_state {
    seat* taken = nullptr;
    ~thread_state() {
        if (taken != nullptr) engine::unregister_worker(*taken);
    }
};
thread_local thread_state mine;

void system_random(std::span<std::uint8_t> into) {
    while (!into.empty()) {
        const ssize_t n = ::getrandom(into.data(), into.size(), 0);
        if (n < 0 && errno != EINTR) std::abort(); // no kernel does that; no IV may be foreseen
        if (n > 0) into = into.subspan(static_cast<std::size_t>(n));
    }
}

control::random_source random_of(const esplane_engine_options& o) {
    if (o.random == nullptr) return system_random;
    return [fill = o.random, user = o.random_user](std::span<std::uint8_t> into) {
        fill(user, into.data(), into.size());
    };
}

/// An embedder's function as a filter.
class callback_filter final : public fastpath::packet_filter {
  public:
    callback_filter(esplane_filter f, void* user) noexcept
        : filter_(f)
        , user_(user) {}

    [[nodiscard]] std::uint64_t deny(fastpath::filter_direction d, unsigned lane,
                                     std::span<fastpath::packet* const> packets) noexcept override {
        std::uint64_t denied = 0;
        for (std::size_t i = 0; i < packets.size(); ++i) {
            const fastpath::packet& p = *packets[i];
            const int verdict = filter_(user_, static_cast<std::uint32_t>(d), lane, p.data,
                                        p.length, reinterpret_cast<void*>(p.handle));
            denied |= std::uint64_t{verdict != 0} << i;
        }
        return denied;
    }

  private:
    esplane_filter filter_;
    void* user_;
};
static_assert(static_cast<unsigned>(fastpath::filter_direction::in) == ESPLANE_FILTER_IN &&
              static_cast<unsigned>(fastpath::filter_direction::out) == ESPLANE_FILTER_OUT);

crypto::engine_options crypto_of(const esplane_engine_options& o) noexcept {
    return {.gcm_kernel = o.library_gcm == 0};
}

result<void> check_mtu(std::uint32_t mtu) {
    if (mtu >= smallest_mtu && mtu <= largest_mtu) return {};
    return fail(EINVAL, "mtu is not within 68 to 65535", "mtu");
}

result<void> check(const esplane_engine_options& o) {
    if (o.abi_version != ESPLANE_ABI_VERSION)
        return fail(EPROTONOSUPPORT,
                    "built against ABI " + std::to_string(o.abi_version) +
                        " of esplane, this library has " + std::to_string(ESPLANE_ABI_VERSION) +
                        ": build again with its headers",
                    "abi_version");
    if (o.packet_size < sizeof(esplane_packet) || o.packet_size % alignof(esplane_packet) != 0)
        return fail(EINVAL, "packet_size is not sizeof(struct esplane_packet)", "packet_size");
    if (auto ok = check_mtu(o.mtu); !ok) return ok;
    if (o.max_workers == 0 || o.max_workers > fastpath::max_lanes)
        return fail(EINVAL, "max_workers is not within 1 to 64", "max_workers");
    if (o.library_gcm > 1) return fail(EINVAL, "library_gcm is neither 0 nor 1", "library_gcm");
    if (std::any_of(std::begin(o.reserved), std::end(o.reserved), [](auto b) { return b != 0; }))
        return fail(EINVAL, "reserved is not zero", "reserved");
    return {};
}

} // namespace

const void* this_thread() noexcept {
    return &mine;
}

esplane_engine* make_handle(engine& e) noexcept {
    return engines.put(e);
}

engine* find(const esplane_engine* handle) noexcept {
    return engines.find(handle);
}

void drop_handle(esplane_engine* handle) noexcept {
    engines.erase(handle);
}

seat* find(const esplane_worker* handle) noexcept {
    return workers.find(handle);
}

seat* own_seat() noexcept {
    return mine.taken;
}

result<std::unique_ptr<engine>> engine::make(const esplane_engine_options& o) {
    if (auto ok = check(o); !ok) return tl::unexpected(ok.error());
    // A processor or a cipher that cannot be used is found out here, not by the first thread.
    if (auto crypto = crypto::engine::make(crypto_of(o)); !crypto)
        return tl::unexpected(crypto.error());
    return std::unique_ptr<engine>(new engine(o));
}

engine::engine(const esplane_engine_options& o)
    : options_(o)
    , backend_(tables_, random_of(o))
    , layer_(backend_, random_of(o)) {
    layer_.subscribe(this);
    publish_routes();
}

engine::~engine() {
    layer_.unsubscribe(this);
}

void engine::publish_routes() {
    tables_.publish(fastpath::fib::everywhere(0, options_.mtu, addresses_));
}

/// Whoever has the next packet takes them; a thread that has the seat by now keeps them.
void engine::release_sas_of_those_who_left() {
    for (seat* s : seats())
        if (s->left.exchange(false)) (void)backend_.take_from(s->run->index());
}

void engine::tick(moment now) {
    layer_.tick(now);
    release_sas_of_those_who_left();
    for (seat* s : seats())
        for (fastpath::worker_event e; s->run->events().pop(e);) {
            backend_.deliver(e);
            if (e.kind == fastpath::worker_event_kind::sa_first_use) tell_first_use(e.id);
        }
}

result<void> engine::set_mtu(std::uint32_t mtu) {
    if (auto ok = check_mtu(mtu); !ok) return ok;
    options_.mtu = mtu;
    publish_routes();
    return {};
}

void engine::set_addresses(std::vector<ipsec::address> addresses) {
    addresses_ = std::move(addresses);
    publish_routes();
}

void engine::set_filter(esplane_filter f, void* user) {
    tables_.set_filter(f == nullptr ? nullptr : std::make_unique<callback_filter>(f, user));
}

void engine::answer_acquires(std::uint32_t expires_s) {
    if (expires_s != 0) layer_.set_acquire_expires(expires_s);
    layer_.answer_acquires(this, expires_s != 0);
}

result<void> engine::check_room_for_sa() const {
    if (layer_.sa_count() < options_.max_sas) return {};
    return fail(ENOBUFS, "max_sas SAs are there", "max_sas");
}

result<void> engine::check_room_for_policy() const {
    const control::spd_counts n = layer_.policy_counts();
    if (std::uint64_t{n.in} + n.out + n.fwd < options_.max_policies) return {};
    return fail(ENOBUFS, "max_policies policies are there", "max_policies");
}

result<void> engine::check_worker(unsigned index) const {
    if (index < seats().size()) return {};
    return fail(EINVAL, "there is no worker with that index", "index");
}

void engine::tell(esplane_event_kind kind, bool hard, const ipsec::sa* sa,
                  const ipsec::policy* policy) {
    if (options_.event == nullptr) return;
    esplane_sa described;
    esplane_policy ruled;
    esplane_event event{};
    event.size = sizeof event;
    event.kind = kind;
    event.hard = hard ? 1 : 0;
    if (sa != nullptr) {
        described = sa_to(*sa, keys::hidden);
        event.sa = &described;
    }
    if (policy != nullptr) {
        ruled = policy_to(*policy, event_templates_);
        event.policy = &ruled;
    }
    options_.event(options_.event_user, &event);
}

void engine::tell_first_use(const ipsec::sa_id& id) {
    if (const ipsec::sa* sa = layer_.get_sa(id)) tell(ESPLANE_SA_FIRST_USE, false, sa, nullptr);
}

void engine::on_event(const ipsec::event& e) {
    struct {
        engine& to;
        void operator()(const ipsec::sa_added& x) { to.tell(ESPLANE_SA_ADDED, false, &x.what, {}); }
        void operator()(const ipsec::sa_updated& x) {
            to.tell(ESPLANE_SA_UPDATED, false, &x.what, {});
        }
        void operator()(const ipsec::sa_deleted& x) {
            to.tell(ESPLANE_SA_DELETED, false, &x.what, {});
        }
        void operator()(const ipsec::sa_flushed&) { to.tell(ESPLANE_SA_FLUSHED, false, {}, {}); }
        void operator()(const ipsec::sa_expired& x) {
            to.tell(ESPLANE_SA_EXPIRED, x.hard, &x.what, {});
        }
        // The interface has no events of these.
        void operator()(const ipsec::sa_mapping&) {}
        void operator()(const ipsec::sa_moved&) {}
        void operator()(const ipsec::policies_migrated&) {}
        void operator()(const ipsec::packet_reported&) {}
        void operator()(const ipsec::defaults_changed&) {}
        void operator()(const ipsec::acquire& x) {
            to.tell(ESPLANE_ACQUIRE, false, &x.larval, &x.what);
        }
        void operator()(const ipsec::policy_added& x) {
            to.tell(ESPLANE_POLICY_ADDED, false, {}, &x.what);
        }
        void operator()(const ipsec::policy_updated& x) {
            to.tell(ESPLANE_POLICY_UPDATED, false, {}, &x.what);
        }
        void operator()(const ipsec::policy_deleted& x) {
            to.tell(ESPLANE_POLICY_DELETED, false, {}, &x.what);
        }
        void operator()(const ipsec::policy_flushed&) {
            to.tell(ESPLANE_POLICY_FLUSHED, false, {}, {});
        }
        void operator()(const ipsec::policy_expired& x) {
            to.tell(ESPLANE_POLICY_EXPIRED, x.hard, {}, &x.what);
        }
    } teller{*this};
    std::visit(teller, e);
}

/// One whose thread has gone, or a new one.
result<seat*> engine::free_seat() {
    for (const auto& s : seats_)
        if (s->thread.load(std::memory_order_acquire) == nullptr) return s.get();
    if (seats_.size() == options_.max_workers)
        return fail(ENOBUFS, "max_workers threads are registered", "max_workers");
    auto run = worker::make(tables_, static_cast<unsigned>(seats_.size()), crypto_of(options_));
    if (!run) return tl::unexpected(run.error());
    auto s = std::make_unique<seat>();
    s->home = this;
    s->run = std::move(*run);
    s->packet_size = options_.packet_size;
    return seats_.emplace_back(std::move(s)).get();
}

/// All that there are.  They stay as long as the engine; nobody is kept out meanwhile, because a
/// control call may wait for a worker that wants to count.
std::vector<seat*> engine::seats() const {
    const std::lock_guard lock(seats_mutex_);
    std::vector<seat*> all;
    for (const auto& s : seats_)
        all.push_back(s.get());
    return all;
}

result<seat*> engine::register_worker() {
    if (mine.taken != nullptr)
        return fail(EALREADY, "this thread is a worker: unregister it first");
    if (controlling_.load(std::memory_order_relaxed) == this_thread())
        return fail(EBUSY, "a callback may read the engine, not change it");
    const std::lock_guard lock(seats_mutex_);
    auto free = free_seat();
    if (!free) return tl::unexpected(free.error());
    seat& s = **free;
    s.handle = workers.put(s);
    if (s.handle == nullptr) return fail(ENOBUFS, "the process has no handle left");
    s.reader.emplace();
    fastpath::enter_lane(s.run->index());
    s.online = true;
    s.busy = false;
    s.left = false;
    s.thread.store(this_thread(), std::memory_order_release);
    mine.taken = &s;
    return &s;
}

/// The seat is free last: until then nobody else may touch it.
void engine::unregister_worker(seat& s) noexcept {
    workers.erase(s.handle);
    fastpath::enter_lane(0);
    s.reader.reset();
    mine.taken = nullptr;
    s.left = true;
    s.thread.store(nullptr, std::memory_order_release);
}

bool engine::has_workers() const {
    const auto all = seats();
    return std::any_of(all.begin(), all.end(),
                       [](const seat* s) { return s->thread.load() != nullptr; });
}

void engine::count(fastpath::worker_counters& into) const {
    for (const seat* s : seats())
        into.add(s->run->counters());
}

control_call::control_call(engine& e, intent what) noexcept
    : engine_(e)
    , standing_(enter(what)) {
    if (standing_ != standing::admitted || own_seat() == nullptr) return;
    resting_ = own_seat();
    resting_->busy = true;
    if (resting_->online) resting_->reader->offline();
}

auto control_call::enter(intent what) noexcept -> standing {
    if (engine_.controlling_.load(std::memory_order_relaxed) == this_thread())
        return what == intent::read ? standing::nested : standing::in_callback;
    if (const seat* own = own_seat(); own != nullptr && own->busy)
        return standing::in_callback; // of a burst, or of another engine
    const void* nobody = nullptr;
    return engine_.controlling_.compare_exchange_strong(nobody, this_thread(),
                                                        std::memory_order_acquire)
               ? standing::admitted
               : standing::beside_another;
}

control_call::~control_call() {
    if (standing_ != standing::admitted) return;
    if (resting_ != nullptr) {
        if (resting_->online) resting_->reader->online();
        resting_->busy = false;
    }
    engine_.controlling_.store(nullptr, std::memory_order_release);
}

result<void> control_call::admitted() const {
    switch (standing_) {
    case standing::in_callback:
        return fail(EBUSY, "a callback may read the engine, not change it");
    case standing::beside_another:
        return fail(EBUSY, "another thread is in a control call: one at a time");
    default:
        return {};
    }
}

} // namespace esplane::embed
