// SPDX-License-Identifier: Apache-2.0
//
// The C interface, function by function: handle and arguments are checked, errors are kept for the
// thread that made the call, the work is the engine's.
#include <string>
#include <utility>

#include "fastpath/drop.h"
#include "fastpath/embed/engine.h"
#include "fastpath/embed/sized.h"
#include "fastpath/worker.h"

using namespace esplane;
using namespace esplane::embed;

namespace {

static_assert(sizeof(esplane_packet) == 48, "three packets in nine quarters of a line");

/// What esplane_error_text() says.
thread_local error latest{0, {}, {}};

int refuse(error e) {
    latest = std::move(e);
    return -latest.code;
}

int refuse(int code, const char* text) {
    return refuse(error{code, text, {}});
}

int refuse_handle() {
    return refuse(EBADF, "the handle names nothing: it was never given, or what it named is gone");
}

/// Runs `work(engine)` as a control call.  It returns result<void>, or result<int> for a value.
template <typename Work>
int with_engine(esplane_engine* handle, intent what, Work work) {
    embed::engine* e = find(handle);
    if (e == nullptr) return refuse_handle();
    const control_call call(*e, what);
    if (auto ok = call.admitted(); !ok) return refuse(ok.error());
    auto done = work(*e);
    if (!done) return refuse(done.error());
    if constexpr (std::is_same_v<decltype(done), result<int>>)
        return *done;
    else
        return 0;
}

moment moment_of(esplane_time t) noexcept {
    return {t.monotonic_ns, t.realtime_s};
}

template <typename T>
result<void> require(const T* argument, const char* name) {
    if (argument != nullptr) return {};
    return fail(EINVAL, std::string(name) + " is NULL", name);
}

/// Of the calling thread, which is not in a callback; nullptr and `code` set otherwise.
seat* seat_of(esplane_worker* handle, int& code) {
    seat* s = find(handle);
    if (s == nullptr)
        code = refuse_handle();
    else if (s->thread.load(std::memory_order_relaxed) != this_thread())
        code = refuse(EPERM, "the worker belongs to another thread: each thread registers itself");
    else if (s->busy)
        code = refuse(EBUSY, "a callback may read the engine, not change it or push packets");
    else
        return s;
    return nullptr;
}

/// Runs `work(worker, packet_array)` as a burst of the calling thread.
template <typename Work>
int burst(esplane_worker* handle, esplane_packet* packets, std::size_t count, Work work) {
    int code = 0;
    seat* s = seat_of(handle, code);
    if (s == nullptr) return code;
    if (packets == nullptr && count != 0)
        return refuse(EINVAL, "packets is NULL, and count is not 0");
    if (!s->online)
        return refuse(EPERM, "the worker is offline: call esplane_worker_online() first");
    s->busy = true;
    work(*s->run, packet_array(packets, s->packet_size, count));
    s->busy = false;
    return 0;
}

bool is_reason(std::uint16_t reason) noexcept {
    return reason != 0 && reason < fastpath::drop_reason_count;
}

} // namespace

std::uint32_t esplane_abi_version() {
    return ESPLANE_ABI_VERSION;
}

const char* esplane_version() {
    return ESPLANE_VERSION;
}

const char* esplane_error_text() {
    return latest.text.c_str();
}

const char* esplane_error_field() {
    return latest.field.c_str();
}

esplane_time esplane_now() {
    const moment m = fastpath::now();
    return {m.monotonic_ns, m.realtime_s};
}

int esplane_engine_create(const esplane_engine_options* options, esplane_engine** engine) {
    if (engine == nullptr) return refuse(EINVAL, "engine is NULL");
    *engine = nullptr;
    const auto given = take(options, "options");
    if (!given) return refuse(given.error());
    auto made = embed::engine::make(*given);
    if (!made) return refuse(made.error());
    *engine = make_handle(**made);
    if (*engine == nullptr) return refuse(ENOBUFS, "16 engines are there: destroy one first");
    (void)made->release(); // the handle's from now on
    return 0;
}

int esplane_engine_destroy(esplane_engine* engine) {
    embed::engine* e = find(engine);
    if (e == nullptr) return refuse_handle();
    if (e->has_workers())
        return refuse(EBUSY, "a worker is registered still: its thread must unregister first");
    {
        const control_call call(*e, intent::change);
        if (auto ok = call.admitted(); !ok) return refuse(ok.error());
        drop_handle(engine);
    }
    delete e;
    return 0;
}

int esplane_tick(esplane_engine* engine, esplane_time now) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        e.tick(moment_of(now));
        return {};
    });
}

int esplane_next_deadline(esplane_engine* engine, std::uint64_t* monotonic_ns) {
    return with_engine(engine, intent::read, [&](embed::engine& e) {
        auto ok = require(monotonic_ns, "monotonic_ns");
        if (ok) *monotonic_ns = e.layer().next_deadline_ns().value_or(UINT64_MAX);
        return ok;
    });
}

int esplane_set_mtu(esplane_engine* engine, std::uint32_t mtu) {
    return with_engine(engine, intent::change, [&](embed::engine& e) { return e.set_mtu(mtu); });
}

int esplane_set_addresses(esplane_engine* engine, const esplane_address* addresses,
                          std::size_t count) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        if (count != 0)
            if (auto ok = require(addresses, "addresses"); !ok) return ok;
        std::vector<ipsec::address> all;
        for (const esplane_address& a : std::span(addresses, count)) {
            const auto one = address_from(a, "addresses");
            if (!one) return tl::unexpected(one.error());
            all.push_back(*one);
        }
        e.set_addresses(std::move(all));
        return {};
    });
}

int esplane_answer_acquires(esplane_engine* engine, std::uint32_t expires_s) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        e.answer_acquires(expires_s);
        return {};
    });
}

int esplane_set_filter(esplane_engine* engine, esplane_filter filter, void* user) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        e.set_filter(filter, user);
        return {};
    });
}

int esplane_sa_add(esplane_engine* engine, const esplane_sa* sa, esplane_time now) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        const auto given = take(sa, "sa");
        if (!given) return tl::unexpected(given.error());
        auto described = sa_from(*given);
        if (!described) return tl::unexpected(described.error());
        if (auto ok = e.check_room_for_sa(); !ok) return ok;
        return e.layer().add_sa(std::move(*described), {}, moment_of(now));
    });
}

int esplane_sa_update(esplane_engine* engine, const esplane_sa* sa, esplane_time now) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        const auto given = take(sa, "sa");
        if (!given) return tl::unexpected(given.error());
        auto described = sa_from(*given);
        if (!described) return tl::unexpected(described.error());
        return e.layer().update_sa(std::move(*described), {}, moment_of(now));
    });
}

int esplane_sa_delete(esplane_engine* engine, const esplane_sa_id* id) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        if (auto ok = require(id, "id"); !ok) return ok;
        const auto named = id_from(*id);
        if (!named) return tl::unexpected(named.error());
        return e.layer().delete_sa(*named, {});
    });
}

int esplane_sa_move(esplane_engine* engine, const esplane_sa_id* id, unsigned to) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        if (auto ok = require(id, "id"); !ok) return ok;
        if (auto ok = e.check_worker(to); !ok) return ok;
        const auto named = id_from(*id);
        if (!named) return tl::unexpected(named.error());
        if (!e.backend().ask_to_move(*named, to)) return fail(ESRCH, "there is no such SA");
        return {};
    });
}

int esplane_sa_flush(esplane_engine* engine) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        e.layer().flush_sas(0, {});
        return {};
    });
}

int esplane_sa_get(esplane_engine* engine, const esplane_sa_id* id, esplane_sa* into) {
    return with_engine(engine, intent::read, [&](embed::engine& e) -> result<void> {
        if (auto ok = require(id, "id"); !ok) return ok;
        if (auto ok = check_room(into, "into"); !ok) return ok;
        const auto named = id_from(*id);
        if (!named) return tl::unexpected(named.error());
        const ipsec::sa* found = e.layer().get_sa(*named);
        if (found == nullptr) return fail(ESRCH, "there is no such SA");
        give(into, sa_to(*found, keys::shown));
        return {};
    });
}

int esplane_sa_next(esplane_engine* engine, std::uint64_t* cursor, esplane_sa* into) {
    return with_engine(engine, intent::read, [&](embed::engine& e) -> result<int> {
        if (auto ok = require(cursor, "cursor"); !ok) return tl::unexpected(ok.error());
        if (auto ok = check_room(into, "into"); !ok) return tl::unexpected(ok.error());
        control::cursor at{*cursor};
        const ipsec::sa* s = e.layer().next_sa(at);
        *cursor = at.next;
        if (s == nullptr) return 0;
        give(into, sa_to(*s, keys::shown));
        return 1;
    });
}

int esplane_spi_allocate(esplane_engine* engine, const esplane_spi_request* request,
                         esplane_time now, std::uint32_t* spi) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        if (auto ok = require(spi, "spi"); !ok) return ok;
        const auto given = take(request, "request");
        if (!given) return tl::unexpected(given.error());
        const auto asked = spi_request_from(*given);
        if (!asked) return tl::unexpected(asked.error());
        if (auto ok = e.check_room_for_sa(); !ok) return ok;
        const auto larval = e.layer().allocate_spi(*asked, moment_of(now));
        if (!larval) return tl::unexpected(larval.error());
        *spi = larval->get().id.spi.host();
        return {};
    });
}

int esplane_policy_add(esplane_engine* engine, const esplane_policy* policy, esplane_time now) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        const auto given = take(policy, "policy");
        if (!given) return tl::unexpected(given.error());
        auto described = policy_from(*given);
        if (!described) return tl::unexpected(described.error());
        if (auto ok = e.check_room_for_policy(); !ok) return ok;
        return e.layer().add_policy(std::move(*described), {}, moment_of(now));
    });
}

int esplane_policy_update(esplane_engine* engine, const esplane_policy* policy, esplane_time now) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        const auto given = take(policy, "policy");
        if (!given) return tl::unexpected(given.error());
        auto described = policy_from(*given);
        if (!described) return tl::unexpected(described.error());
        const ipsec::policy_key key{described->dir, described->sel, described->index,
                                    described->if_id};
        if (e.layer().get_policy(key) == nullptr)
            if (auto ok = e.check_room_for_policy(); !ok) return ok;
        return e.layer().update_policy(std::move(*described), {}, moment_of(now));
    });
}

int esplane_policy_delete(esplane_engine* engine, const esplane_policy_key* key) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        const auto given = take(key, "key");
        if (!given) return tl::unexpected(given.error());
        const auto named = policy_key_from(*given);
        if (!named) return tl::unexpected(named.error());
        return e.layer().delete_policy(*named, {});
    });
}

int esplane_policy_flush(esplane_engine* engine) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<void> {
        e.layer().flush_policies(ipsec::policy_type::main, {});
        return {};
    });
}

int esplane_policy_get(esplane_engine* engine, const esplane_policy_key* key,
                       esplane_policy* into) {
    return with_engine(engine, intent::read, [&](embed::engine& e) -> result<void> {
        const auto given = take(key, "key");
        if (!given) return tl::unexpected(given.error());
        if (auto ok = check_room(into, "into"); !ok) return ok;
        const auto named = policy_key_from(*given);
        if (!named) return tl::unexpected(named.error());
        const ipsec::policy* found = e.layer().get_policy(*named);
        if (found == nullptr) return fail(ENOENT, "there is no such policy");
        give(into, policy_to(*found, e.templates()));
        return {};
    });
}

int esplane_policy_next(esplane_engine* engine, std::uint64_t* cursor, esplane_policy* into) {
    return with_engine(engine, intent::read, [&](embed::engine& e) -> result<int> {
        if (auto ok = require(cursor, "cursor"); !ok) return tl::unexpected(ok.error());
        if (auto ok = check_room(into, "into"); !ok) return tl::unexpected(ok.error());
        control::cursor at{*cursor};
        const ipsec::policy* p = e.layer().next_policy(at);
        *cursor = at.next;
        if (p == nullptr) return 0;
        give(into, policy_to(*p, e.templates()));
        return 1;
    });
}

int esplane_worker_register(esplane_engine* engine, esplane_worker** worker) {
    if (worker == nullptr) return refuse(EINVAL, "worker is NULL");
    *worker = nullptr;
    embed::engine* e = find(engine);
    if (e == nullptr) return refuse_handle();
    const auto taken = e->register_worker();
    if (!taken) return refuse(taken.error());
    *worker = (*taken)->handle;
    return 0;
}

int esplane_worker_unregister(esplane_worker* worker) {
    int code = 0;
    if (seat* s = seat_of(worker, code)) embed::engine::unregister_worker(*s);
    return code;
}

int esplane_worker_abandon(esplane_engine* engine, unsigned index) {
    return with_engine(engine, intent::change, [&](embed::engine& e) -> result<int> {
        if (auto ok = e.check_worker(index); !ok) return tl::unexpected(ok.error());
        return static_cast<int>(e.backend().take_from(index));
    });
}

int esplane_worker_quiescent(esplane_worker* worker) {
    int code = 0;
    seat* s = seat_of(worker, code);
    if (s != nullptr && s->online) s->reader->quiescent();
    return code;
}

int esplane_worker_offline(esplane_worker* worker) {
    int code = 0;
    seat* s = seat_of(worker, code);
    if (s == nullptr || !s->online) return code;
    s->online = false;
    s->reader->offline();
    return 0;
}

int esplane_worker_online(esplane_worker* worker) {
    int code = 0;
    seat* s = seat_of(worker, code);
    if (s == nullptr || s->online) return code;
    s->reader->online();
    s->online = true;
    return 0;
}

int esplane_worker_index(esplane_worker* worker) {
    const seat* s = find(worker);
    return s == nullptr ? refuse_handle() : static_cast<int>(s->run->index());
}

int esplane_inbound(esplane_worker* worker, esplane_packet* packets, std::size_t count,
                    esplane_time now) {
    return burst(worker, packets, count,
                 [&](embed::worker& w, packet_array all) { w.inbound(all, moment_of(now)); });
}

int esplane_outbound(esplane_worker* worker, esplane_packet* packets, std::size_t count,
                     esplane_time now, std::uint32_t flags) {
    if ((flags & ~ESPLANE_FROM_OUTSIDE) != 0)
        return refuse(EINVAL, "flags has a bit that this version does not know");
    return burst(worker, packets, count, [&](embed::worker& w, packet_array all) {
        w.outbound(all, moment_of(now), (flags & ESPLANE_FROM_OUTSIDE) != 0);
    });
}

int esplane_counters_get(esplane_engine* engine, esplane_counters* into) {
    const embed::engine* e = find(engine);
    if (e == nullptr) return refuse_handle();
    if (auto ok = check_room(into, "into"); !ok) return refuse(ok.error());
    fastpath::worker_counters sum;
    e->count(sum);
    esplane_counters c{};
    c.received = sum.received.get();
    c.passed = sum.sent.get();
    c.for_machine = sum.punted.get();
    c.handed_over = sum.handed_out.get();
    c.dropped = sum.dropped_total();
    c.encrypted = sum.encrypted.get();
    c.decrypted = sum.decrypted.get();
    give(into, c);
    return 0;
}

int esplane_drops(esplane_engine* engine, std::uint16_t reason, std::uint64_t* count) {
    const embed::engine* e = find(engine);
    if (e == nullptr) return refuse_handle();
    if (count == nullptr) return refuse(EINVAL, "count is NULL");
    if (!is_reason(reason)) return refuse(EINVAL, "reason is none: see esplane_reason_count()");
    fastpath::worker_counters sum;
    e->count(sum);
    *count = sum.dropped[reason].get();
    return 0;
}

std::uint16_t esplane_reason_count() {
    return fastpath::drop_reason_count;
}

// Names and texts are string literals, so they end in a zero.

const char* esplane_reason_name(std::uint16_t reason) {
    return is_reason(reason) ? describe(static_cast<fastpath::drop_reason>(reason)).name.data()
                             : "";
}

const char* esplane_reason_text(std::uint16_t reason) {
    return is_reason(reason) ? describe(static_cast<fastpath::drop_reason>(reason)).text.data()
                             : "";
}
