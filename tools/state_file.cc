// SPDX-License-Identifier: Apache-2.0
#include "tools/state_file.h"

#include <algorithm>
#include <array>
#include <sys/mman.h>
#include <sys/stat.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>

#include "fastpath/backend.h"
#include "lib/base/overloaded.h"
#include "tools/engine.h"
#include "tools/live_numbers.h"
#include "tools/sealing.h"

namespace esplane::tools {

namespace {

constexpr std::uint64_t smallest_rewritten = 1u << 20; ///< a log below that is left as it is
constexpr std::size_t rewritten_at_once = 256;         ///< control has others to serve
constexpr std::uint64_t retry_ns = 10'000'000'000;

bool operator==(const control::spd_hash_thresholds& a, const control::spd_hash_thresholds& b) {
    return a.local_v4 == b.local_v4 && a.remote_v4 == b.remote_v4 && a.local_v6 == b.local_v6 &&
           a.remote_v6 == b.remote_v6;
}

/// A file where it stands, as long as it is read.
class mapped_file {
  public:
    static result<mapped_file> open(int fd, const std::string& name) {
        struct stat st {};
        if (::fstat(fd, &st) != 0) return fail_errno(name);
        const auto size = static_cast<std::size_t>(st.st_size);
        if (size == 0) return mapped_file(nullptr, 0);
        void* const at = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (at == MAP_FAILED) return fail_errno(name);
        return mapped_file(at, size);
    }
    mapped_file(mapped_file&& other) noexcept
        : at_(std::exchange(other.at_, nullptr))
        , size_(other.size_) {}
    mapped_file(const mapped_file&) = delete;
    mapped_file& operator=(const mapped_file&) = delete;
    ~mapped_file() {
        if (at_ != nullptr) ::munmap(at_, size_);
    }
    [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept {
        return {static_cast<const std::uint8_t*>(at_), size_};
    }

  private:
    mapped_file(void* at, std::size_t size) noexcept
        : at_(at)
        , size_(size) {}

    void* at_;
    std::size_t size_;
};

bool is_same_file(int one, int other) {
    struct stat a {
    }, b{};
    return ::fstat(one, &a) == 0 && ::fstat(other, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

} // namespace

/// What came back while the daemon that has it went on.
struct state_file::ahead {
    struct sa {
        std::uint64_t sent = 0; ///< as the log says
        std::uint64_t received = 0;
        ipsec::direction dir = ipsec::direction::unknown;

        [[nodiscard]] control::sa_usage usage(const found_numbers& n) const {
            control::sa_usage u;
            u.current.packets = n.packets;
            u.current.bytes = n.bytes;
            u.current.use_time = n.use_time;
            u.last_used = n.last_used;
            u.replay.sent = std::max(sent, n.sent);
            u.replay.received = std::max(received, n.received);
            return u;
        }
    };
    by_sa<sa> sas;
    numbers_then numbers;
    by_sa<found_numbers> then;        ///< the same, by SA
    std::vector<ipsec::sa_id> unseen; ///< that came back without
    std::size_t lost = 0;
};

state_file::state_file(std::unique_ptr<state_place> place, std::string run_dir, secret key,
                       log_line log)
    : place_(std::move(place))
    , run_dir_(std::move(run_dir))
    , key_(std::move(key))
    , say_(std::move(log))
    , earlier_(std::make_unique<control::journal_reader>(
          [this](const control::journal_session& s) -> std::unique_ptr<control::journal_seal> {
              if (key_.empty()) return nullptr;
              return make_seal(key_, s);
          })) {}

state_file::~state_file() = default;

result<std::unique_ptr<state_file>> state_file::open(const state_options& options,
                                                     std::unique_ptr<state_place> place,
                                                     const std::string& run_dir, log_line log) {
    secret key;
    if (const std::string path = state_key_path(options.key_path); !path.empty()) {
        auto read = read_state_key(path);
        if (!read) return tl::unexpected(read.error());
        key = std::move(*read);
    }
    if (key.empty() && place->on_disk())
        return fail(EINVAL,
                    "--state " + place->name() +
                        ": lies on a disk, and keys must not lie there readable: give "
                        "--state-key, or a file in memory (tmpfs)",
                    "state");
    std::unique_ptr<state_file> s(
        new state_file(std::move(place), run_dir, std::move(key), std::move(log)));
    if (auto done = s->find(); !done) return tl::unexpected(done.error());
    return s;
}

result<void> state_file::find() {
    auto log = place_->find(state_part::log);
    if (!log) return tl::unexpected(log.error());
    auto live = place_->find(state_part::live);
    if (!live) return tl::unexpected(live.error());
    earlier_live_ = std::move(*live);
    log_.fd = std::move(*log);
    if (!log_.fd.valid()) return {};
    if (auto done = read_log(); !done) return done;
    marked_ = earlier_->session() && is_marked(run_dir_, earlier_->session()->name);
    return {};
}

/// To where it ends now.
result<void> state_file::read_log() {
    const std::string name = place_->name();
    const auto file = mapped_file::open(log_.fd.get(), name);
    if (!file) return tl::unexpected(file.error());
    if (auto read = earlier_->read(file->bytes()); !read)
        return fail(read.error().code,
                    "state " + name + ": " + read.error().text +
                        "; nothing passes: give what it needs, or move it away to start anew");
    return {};
}

control::journal_session state_file::new_session() const {
    control::journal_session s;
    s.name = name_;
    s.nonce_base = nonce_base_;
    s.sealed = !key_.empty();
    kernel_random(s.salt);
    return s;
}

state_file::open_log state_file::begin_log(unique_fd fd, std::uint64_t length) const {
    const control::journal_session s = new_session();
    auto seal = key_.empty() ? nullptr : make_seal(key_, s);
    return {std::move(fd), std::make_unique<control::journal_writer>(s, std::move(seal)), length};
}

/// What is written in part is taken back: it would be in the way of what follows.
result<void> state_file::flush(open_log& to) const {
    const auto made = to.writer->made();
    if (made.empty()) return {};
    const ssize_t n =
        ::pwrite(to.fd.get(), made.data(), made.size(), static_cast<off_t>(to.length));
    const int code = n < 0 ? errno : ENOSPC;
    const bool all = n == std::ssize(made);
    if (all) to.length += made.size();
    to.writer->wipe();
    if (all) return {};
    (void)::ftruncate(to.fd.get(), static_cast<off_t>(to.length));
    errno = code;
    return fail_errno("state " + place_->name());
}

// 1. The name and the nonces' beginning: the earlier ones, where there are some.
// 2. Memory that lasts; it is put in its place once all SAs are in it.
result<void> state_file::prepare(fastpath::user_backend& b) {
    if (const auto& last = earlier_->session()) {
        name_ = last->name;
        nonce_base_ = last->nonce_base + fastpath::nonce_space::range;
    } else {
        kernel_random(name_);
        std::array<std::uint8_t, sizeof nonce_base_> start;
        kernel_random(start);
        nonce_base_ = wire::load<std::uint64_t>(start.data());
    }
    auto file = place_->create(state_part::live);
    if (!file) return tl::unexpected(file.error());
    auto memory = fastpath::lasting_memory::make(std::move(*file), name_);
    if (!memory) return tl::unexpected(memory.error());
    live_ = std::move(*memory);
    b.use_memory(*live_);
    b.start_nonces_at(nonce_base_);
    return {};
}

/// The session is on disk before the first nonce is used.
result<void> state_file::begin_writing() {
    const bool goes_on = earlier_->whole() != 0;
    if (goes_on) {
        if (::ftruncate(log_.fd.get(), static_cast<off_t>(earlier_->whole())) != 0)
            return fail_errno("state " + place_->name());
        log_ = begin_log(std::move(log_.fd), earlier_->whole());
    } else {
        auto fresh = place_->create(state_part::log);
        if (!fresh) return tl::unexpected(fresh.error());
        log_ = begin_log(std::move(*fresh), 0);
    }
    if (auto written = flush(log_); !written) return written;
    if (place_->on_disk() && place_->sync()(log_.fd.get()) != 0)
        return fail_errno("state " + place_->name());
    if (!goes_on)
        if (auto put = place_->put(state_part::log, log_.fd.get()); !put) return put;
    if (!marked_)
        if (auto marked = mark_state(run_dir_, name_); !marked) return marked;
    return {};
}

/// All that the log has: one whose numbers are not found now is being moved, or taken out.
bool state_file::restore_ahead(control::layer& l, moment now) {
    if (!marked_ || !earlier_live_.valid()) return false;
    ahead_ = std::make_unique<ahead>();
    auto then = ahead_->numbers.take(earlier_live_.get(), name_);
    earlier_live_ = unique_fd();
    if (!then) return false;
    ahead_->then = std::move(then->of);
    return take_changes(l, now);
}

// 1. What was read is the beginning of the log that there is, and nobody's nonces begin where this
//    one's do.
// 2. SAs and policies as they are now; then the numbers that SAs ended with.
bool state_file::catch_up(control::layer& l, int log, unique_fd& live, moment now) {
    if (!is_same_file(log, log_.fd.get()) || !read_log()) return false;
    if (earlier_->session()->nonce_base + fastpath::nonce_space::range != nonce_base_) return false;
    if (!take_changes(l, now) || !settle_numbers(l, live.get(), now)) return false;
    earlier_live_ = std::move(live);
    return true;
}

/// What the log says that it did not say before.  False: not all of that can be done.
bool state_file::take_changes(control::layer& l, moment now) {
    take_sa_changes(l, now);
    auto changes = earlier_->take_policies();
    if (changes.in_place) return false;
    for (const ipsec::policy_key& gone : changes.gone)
        (void)l.delete_policy(gone, {});
    return std::ranges::all_of(changes.put, [&](ipsec::policy& p) {
        return l.restore_policy(std::move(p), now).has_value(); // restore() says why
    });
}

void state_file::take_sa_changes(control::layer& l, moment now) {
    auto changes = earlier_->take_sas();
    for (const ipsec::sa_id& id : changes.gone) {
        l.withdraw_sa(id);
        ahead_->sas.erase(id);
        ahead_->then.erase(id);
    }
    for (ipsec::sa& s : changes.put) {
        const ipsec::sa_id id = s.id;
        const auto [at, is_new] = ahead_->sas.try_emplace(id);
        at->second = {s.replay.sent, s.replay.received, s.dir};
        if (const auto then = ahead_->then.find(id); then != ahead_->then.end())
            continue_from(s, then->second);
        else
            ahead_->unseen.push_back(id);
        const auto done =
            is_new ? l.restore_sa(std::move(s), now) : l.restore_again(std::move(s), now);
        if (done) continue;
        say_lost(id, done.error());
        ahead_->sas.erase(at);
        ++ahead_->lost;
    }
}

/// What the other daemon ended with.
bool state_file::settle_numbers(control::layer& l, int live, moment now) {
    const auto changes = ahead_->numbers.changes(live, name_, ahead_->unseen);
    if (!changes) return false;
    std::size_t unknown = 0;
    for (const auto& [id, n] : changes->of) {
        const auto known = ahead_->sas.find(id);
        if (known == ahead_->sas.end()) continue;
        if (n.any) {
            l.begin_from(id, known->second.usage(n), now);
        } else if (!can_do_without(known->second.dir, changes->complete)) {
            l.withdraw_sa(id);
            ++unknown;
        }
    }
    say_unknown(unknown);
    ahead_->lost += unknown;
    return true;
}

/// What came back early.
state_file::counts state_file::counts_of(const control::layer& l) const {
    const control::spd_counts policies = l.policy_counts();
    return {true, l.sa_count(), std::size_t{policies.in} + policies.out + policies.fwd,
            ahead_->lost};
}

void state_file::say_lost(const ipsec::sa_id& id, const error& e) const {
    say_("state: SA of SPI " + std::to_string(id.spi.host()) + ": " + e.text);
}

void state_file::say_unknown(std::size_t sas) const {
    if (sas != 0)
        say_("state: " + std::to_string(sas) +
             " SAs without live numbers: there was no room for them in memory, or they were being "
             "taken out");
}

void state_file::restore_sas(control::layer& l, control::journal_image& earlier, moment now,
                             counts& into) {
    all_numbers numbers;
    if (earlier_live_.valid() && !marked_)
        say_("state: it was forgotten (esplane release, --state off): it is not used");
    if (earlier_live_.valid() && marked_) {
        auto read = read_numbers(earlier_live_.get(), name_);
        into.found = read.has_value();
        if (!read) say_("state: " + read.error().text + ": it is not used");
        if (read) numbers = std::move(*read);
    }
    if (!into.found) {
        into.lost = earlier.sas.size() + earlier.policies.size();
        return;
    }
    std::size_t unknown = 0;
    for (ipsec::sa& s : earlier.sas) {
        const found_numbers& known = numbers.of[s.id];
        if (!known.any && !can_do_without(s.dir, numbers.complete)) {
            ++unknown;
            continue;
        }
        continue_from(s, known);
        const ipsec::sa_id id = s.id;
        if (auto done = l.restore_sa(std::move(s), now)) {
            ++into.sas;
            continue;
        } else
            say_lost(id, done.error());
        ++into.lost;
    }
    say_unknown(unknown);
    into.lost += unknown;
}

// 1. SAs, then the policies that take them, then what holds beside all policies.
// 2. From here on the memory is the state's, and changes are written.
// 3. What did not come back is not to come back later.
result<state_file::counts> state_file::restore(control::layer& l, moment now) {
    counts n;
    if (auto begun = begin_writing(); !begun) return tl::unexpected(begun.error());
    control::journal_image earlier = earlier_->finish();
    if (ahead_)
        n = counts_of(l);
    else
        restore_sas(l, earlier, now, n);
    if (n.found) {
        for (ipsec::policy& p : earlier.policies) {
            const std::uint32_t index = p.index;
            if (auto done = l.restore_policy(std::move(p), now))
                ++n.policies;
            else
                return fail(done.error().code,
                            "state: policy " + std::to_string(index) + ": " + done.error().text);
        }
        l.set_defaults(earlier.defaults);
        l.hash_thresholds() = earlier.thresholds;
    }
    if (auto put = place_->put(state_part::live, live_->descriptor()); !put)
        return tl::unexpected(put.error());
    layer_ = &l;
    thresholds_ = l.hash_thresholds();
    write([&](control::journal_writer& w) {
        if (!n.found) {
            w.remove_sas(0);
            w.remove_policies(ipsec::policy_type::main);
            w.remove_policies(ipsec::policy_type::sub);
        }
        w.put(l.defaults(), thresholds_);
    });
    lost_ = n.lost;
    return n;
}

/// To the log, and to the one that is to follow it.
template <typename F>
void state_file::write(F f) {
    if (layer_ == nullptr) return;
    if (!failed_) {
        f(*log_.writer);
        if (auto done = flush(log_); !done) give_up(done.error());
    }
    if (!rewriting_) return;
    f(*rewriting_->log.writer);
    if (auto done = flush(rewriting_->log); !done) give_up_rewriting(done.error());
}

/// The log that there is stays.
void state_file::give_up_rewriting(const error& e) {
    if (!failed_) say_(e.text + ": the state stays as long as it is; trying again every 10 s");
    rewriting_.reset();
}

/// A log that lacks a policy would let pass what it protects: no log keeps everything closed.
void state_file::give_up(const error& e) {
    if (!failed_) say_(e.text + ": nothing would survive a restart; trying again every 10 s");
    failed_ = true;
    rewriting_.reset();
    place_->drop(state_part::log);
    try_again_ns_ = 0;
}

void state_file::put_sa(const ipsec::sa& s) {
    if (s.state == ipsec::sa_state::valid) write([&](control::journal_writer& w) { w.put(s); });
}

/// The event has what the client asked for, not what came of it.
void state_file::put_current(const ipsec::sa_id& id) {
    if (const ipsec::sa* const s = layer_->get_sa(id)) put_sa(*s);
}

void state_file::lend(moment now) {
    constexpr std::uint64_t minute_ns = 60'000'000'000;
    rewriting_.reset();
    try_again_ns_ = now.monotonic_ns + minute_ns;
}

void state_file::leave() {
    layer_ = nullptr;
    if (live_) live_->detach();
}

void state_file::on_event(const ipsec::event& e) {
    using namespace ipsec;
    if (layer_ == nullptr) return;
    const auto put_policy = [this](const policy& p) {
        write([&](control::journal_writer& w) { w.put(p); });
    };
    const auto remove_policy = [this](const policy& p) {
        write([&](control::journal_writer& w) { w.remove_policy(p.type, p.index); });
    };
    const auto remove_sa = [this](const sa_id& id) {
        write([&](control::journal_writer& w) { w.remove(id); });
    };
    std::visit(
        overloaded{
            [&](const sa_added& x) { put_sa(x.what); },
            [&](const sa_updated& x) { put_current(x.what.id); },
            [&](const sa_moved& x) { put_sa(x.what); },
            [&](const sa_deleted& x) { remove_sa(x.what.id); },
            [&](const sa_flushed& x) {
                write([&](control::journal_writer& w) { w.remove_sas(x.protocol); });
            },
            [&](const sa_expired& x) { x.hard ? remove_sa(x.what.id) : put_sa(x.what); },
            [&](const policies_migrated& x) {
                for (const relocated_sa& moved : x.sas) {
                    if (moved.before != moved.now.id) remove_sa(moved.before);
                    put_sa(moved.now);
                }
                if (x.selected != nullptr) put_policy(*x.selected);
            },
            [&](const policy_added& x) { put_policy(x.what); },
            [&](const policy_updated& x) { put_policy(x.what); },
            [&](const policy_deleted& x) { remove_policy(x.what); },
            [&](const policy_flushed& x) {
                write([&](control::journal_writer& w) { w.remove_policies(x.type); });
            },
            [&](const policy_expired& x) { x.hard ? remove_policy(x.what) : put_policy(x.what); },
            [&](const defaults_changed& x) {
                write([&](control::journal_writer& w) { w.put(x.what, thresholds_); });
            },
            [](const auto&) {},
        },
        e);
}

bool state_file::tend(moment now) {
    if (layer_ == nullptr) return false;
    if (earlier_) forget_earlier();
    if (const auto& set = layer_->hash_thresholds(); !(set == thresholds_)) {
        thresholds_ = set;
        write([&](control::journal_writer& w) { w.put(layer_->defaults(), thresholds_); });
    }
    const bool mostly_past = log_.length > smallest_rewritten + 2 * length_when_new_;
    const bool wanted = !rewriting_ && (failed_ || mostly_past);
    if (wanted && !disk_is_busy() && now.monotonic_ns >= try_again_ns_) {
        try_again_ns_ = now.monotonic_ns + retry_ns;
        begin_rewriting();
    }
    return rewriting_ && rewrite_some();
}

/// Not before packets flow, and not by this thread: with many SAs it takes a while.
void state_file::forget_earlier() {
    auto all = [log = std::move(earlier_), sas = std::move(ahead_),
                live = std::move(earlier_live_)] {};
    try {
        std::thread(std::move(all)).detach();
    } catch (const std::system_error&) {
        return; // then by this one
    }
}

void state_file::begin_rewriting() {
    auto file = place_->create(state_part::log);
    if (!file) return give_up_rewriting(file.error());
    control::cursor newest;
    (void)layer_->next_sa(newest);
    rewriting_.emplace(rewriting{begin_log(std::move(*file), 0), {}, {}, false, false});
    control::journal_writer& w = *rewriting_->log.writer;
    w.begin_after(newest.next + 1);
    w.put(layer_->defaults(), thresholds_);
}

/// One that hangs holds a thread: no other is begun until it has answered.
bool state_file::disk_is_busy() const {
    return disk_ && !disk_->outcome();
}

/// A disk is waited for by a thread: control has others to serve.  What is written meanwhile goes
/// to both logs.  Errors: what fdatasync gives.
result<bool> state_file::is_synced() {
    if (!place_->on_disk()) return true;
    if (!std::exchange(rewriting_->syncing, true)) {
        auto begun = disk_sync::begin(rewriting_->log.fd.get(), place_->sync());
        if (!begun) return tl::unexpected(begun.error());
        disk_ = std::move(*begun);
    }
    const auto code = disk_->outcome();
    if (!code || *code == 0) return code.has_value();
    errno = *code;
    return fail_errno("state " + place_->name());
}

bool state_file::rewrite_some() {
    control::journal_writer& w = *rewriting_->log.writer;
    std::size_t n = 0;
    for (; n < rewritten_at_once && !rewriting_->sas_done; ++n) {
        const ipsec::sa* const s = layer_->next_sa(rewriting_->sas);
        rewriting_->sas_done = s == nullptr;
        if (s != nullptr && s->state == ipsec::sa_state::valid) w.put(*s, rewriting_->sas.next + 1);
    }
    const ipsec::policy* p = nullptr;
    for (; n < rewritten_at_once && (p = layer_->next_policy(rewriting_->policies)); ++n)
        w.put(*p);
    const bool all = n < rewritten_at_once;
    if (auto done = flush(rewriting_->log); !done) {
        give_up_rewriting(done.error());
        return false;
    }
    if (!all) return true;
    const auto synced = is_synced();
    if (synced && !*synced) return false;
    if (!synced)
        give_up_rewriting(synced.error());
    else if (auto done = finish_rewriting(); !done)
        give_up_rewriting(done.error());
    return false;
}

result<void> state_file::finish_rewriting() {
    if (auto put = place_->put(state_part::log, rewriting_->log.fd.get()); !put) return put;
    if (std::exchange(failed_, false)) say_("the state is written again");
    log_ = std::move(rewriting_->log);
    length_when_new_ = log_.length;
    rewriting_.reset();
    try_again_ns_ = 0;
    return {};
}

} // namespace esplane::tools
