// SPDX-License-Identifier: Apache-2.0
//
// The XFRM server behind its socket: whatever a client may do with connections, side channels,
// descriptors and the memory that it shares, on the real control layer.
//
// Input: steps, each an action, the number of one of our ends, and bytes behind their length (two
// bytes, host order).  Held to be true: the server comes to rest after each, leaves no request on a
// slate half done, never says an empty datagram, and has no client left when all our ends are
// closed.
#include <algorithm>
#include <array>
#include <cstdint>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <vector>

#include "lib/base/descriptor_passing.h"
#include "tests/fuzz/require.h"
#include "tests/unit/lib/fake_backend.h"
#include "xfrm/message.h"
#include "xfrm/proc.h"
#include "xfrm/server.h"
#include "xfrm/shim_protocol.h"

namespace {

using namespace esplane;
using namespace esplane::xfrm;

constexpr std::size_t max_ends = 16;
constexpr int patience = 10'000; // rounds; a dump takes one for each datagram

/// One directory for all runs: what a run leaves there the next replaces.
const std::string& socket_path() {
    static const std::string path = [] {
        char name[] = "/tmp/esplane-fuzz-XXXXXX";
        REQUIRE(::mkdtemp(name) != nullptr);
        static const std::string directory = name;
        std::atexit([] { std::filesystem::remove_all(directory); });
        return directory + "/xfrm";
    }();
    return path;
}

/// A socket of ours that leads to the server.
struct end {
    unique_fd socket;
    std::uint32_t channel = 0; ///< as the server's last word on it said
};

template <typename T>
T first_of(bytes given) {
    T value{};
    std::memcpy(&value, given.data(), std::min(given.size(), sizeof value));
    return value;
}

template <typename T>
bytes bytes_of(const T& value) {
    return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

class scene {
  public:
    scene()
        : server_(server::open(layer_, socket_path(), [this] { return now_; }).value()) {
        server_->set_files(files_);
        connect();
    }

    enum action : std::uint8_t {
        connects,
        opens,
        attaches,
        asks,
        reads,
        writes,
        controls,
        says_anything,
        passes_anything,
        closes,
        waits,
        shares,
        asks_on_slate,
        scrawls,
        passes_as,
        reopens,
        action_count
    };
    void step(std::uint8_t what, std::uint8_t who, bytes given) {
        end* const at = ends_.empty() ? nullptr : &ends_[who % ends_.size()];
        act(what % action_count, at, given);
        settle();
        hear();
    }
    void end_all() {
        ends_.clear();
        passed_ = {};
        settle();
        REQUIRE(server_->counters().clients == 0);
    }

  private:
    void act(std::uint8_t what, end* at, bytes given) {
        if (what == connects || at == nullptr) return connect();
        switch (what) {
        case opens:
            passed_ = new_pair();
            return pass(*at, message(*at, shim_open, given), unique_fd(::dup(passed_.get())));
        case reopens: // as another process that has the data socket
            return pass(*at, message(*at, shim_open, given), unique_fd(::dup(passed_.get())));
        case attaches:
            return pass(*at, message(*at, shim_attach, {}), new_pair());
        case asks:
            return say(*at, message(*at, shim_request, given));
        case reads:
            return say(*at, message(*at, shim_read, given));
        case writes:
            return say(*at, message(*at, shim_write, given));
        case controls:
            return control(*at, given);
        case says_anything:
            return say(*at, given);
        case passes_anything:
            return pass(*at, given, some_descriptor(*at, given));
        case passes_as:
            return pass_as(*at, given);
        case shares:
            return share(*at, given);
        case asks_on_slate:
            return ask_on_slate(*at, given);
        case scrawls:
            return scrawl(*at, given);
        case closes:
            ends_.erase(ends_.begin() + (at - ends_.data()));
            return;
        default:
            now_.monotonic_ns += 6'000'000'000;
            now_.realtime_s += 6;
            layer_.tick(now_);
        }
    }

    void connect() {
        if (ends_.size() == max_ends) return;
        unique_fd s(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
        sockaddr_un a{};
        a.sun_family = AF_UNIX;
        socket_path().copy(a.sun_path, sizeof a.sun_path - 1);
        REQUIRE(::connect(s.get(), reinterpret_cast<const sockaddr*>(&a), sizeof a) == 0);
        ends_.push_back({std::move(s)});
    }
    /// Keeps one end, returns the other.
    unique_fd new_pair() {
        int pair[2];
        REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
        if (ends_.size() < max_ends)
            kept_ = unique_fd(pair[0]);
        else
            ::close(pair[0]);
        return unique_fd(pair[1]);
    }

    [[nodiscard]] shim_header header(const end& at, std::uint16_t kind) {
        return {SHIM_MAGIC, SHIM_VERSION, kind,
                at.channel, ++id_,        now_.monotonic_ns + SHIM_ANSWER_TIMEOUT_NS};
    }
    [[nodiscard]] datagram message(const end& at, std::uint16_t kind, bytes body) {
        const shim_header h = header(at, kind);
        const bytes head = bytes_of(h);
        datagram d(head.begin(), head.end());
        d.insert(d.end(), body.begin(), body.end());
        return d;
    }
    void control(const end& at, bytes given) {
        auto c = first_of<shim_control>(given);
        c.magic = SHIM_MAGIC;
        c.version = SHIM_VERSION;
        say(at, bytes_of(c));
    }
    static void say(const end& at, bytes what) {
        (void)::send(at.socket.get(), what.data(), what.size(), MSG_NOSIGNAL);
    }
    void pass(const end& at, bytes what, unique_fd passed) {
        if (!what.empty()) (void)send_with_descriptor(at.socket.get(), what, passed.get());
        if (kept_.valid()) ends_.push_back({std::move(kept_)});
    }

    /// Whatever is given: one that can be cut short.
    void share(const end& at, bytes given) {
        slate_ = unique_fd(::memfd_create("slate", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        REQUIRE(slate_.valid() && ::ftruncate(slate_.get(), SHIM_SLATE_SIZE) == 0);
        REQUIRE(!given.empty() || ::fcntl(slate_.get(), F_ADD_SEALS, F_SEAL_SHRINK) == 0);
        pass(at, message(at, shim_share, {}), unique_fd(::dup(slate_.get())));
    }
    void ask_on_slate(const end& at, bytes given) {
        shim_slate s{};
        s.turn = shim_asked;
        s.takes = 1;
        s.length = static_cast<std::uint32_t>(given.size());
        s.header = header(at, shim_request);
        std::ranges::copy(given.first(std::min<std::size_t>(given.size(), SHIM_SLATE_ROOM)),
                          s.request);
        scrawl(at, bytes_of(s));
    }
    /// On the latest slate, whosever it is.
    void scrawl(const end& at, bytes given) {
        if (!slate_.valid()) return;
        const auto length = std::min<std::size_t>(given.size(), SHIM_SLATE_SIZE);
        lied_ = first_of<std::uint32_t>(given) == shim_at_work;
        REQUIRE(::pwrite(slate_.get(), given.data(), length, 0) == static_cast<ssize_t>(length));
        say(at, message(at, shim_bell, {}));
    }
    /// What a client may pass in place of what is expected.
    [[nodiscard]] static unique_fd some_descriptor(const end& at, bytes given) {
        int pair[2];
        switch (given.empty() ? 0 : given.back() % 7) {
        case 1: // of another kind, its other end closed
            REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
            ::close(pair[0]);
            return unique_fd(pair[1]);
        case 2:
            REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
            ::close(pair[0]);
            return unique_fd(pair[1]);
        case 3:
            REQUIRE(::pipe2(pair, O_CLOEXEC) == 0);
            ::close(pair[0]);
            return unique_fd(pair[1]);
        case 4:
            return unique_fd(::fcntl(at.socket.get(), F_DUPFD_CLOEXEC, 0)); // its own
        case 5:
            return unique_fd(::epoll_create1(EPOLL_CLOEXEC));
        case 6:
            return unique_fd(::memfd_create("some", MFD_CLOEXEC));
        default:
            return unique_fd(::open("/dev/null", O_RDWR | O_CLOEXEC));
        }
    }
    /// In good form, with a descriptor that is not.
    void pass_as(const end& at, bytes given) {
        constexpr std::uint16_t kinds[] = {shim_open, shim_attach, shim_share};
        const std::uint16_t kind = kinds[given.empty() ? 0 : given.front() % std::size(kinds)];
        pass(at, message(at, kind, given), some_descriptor(at, given));
    }

    void settle() {
        pollfd p{server_->descriptor(), POLLIN, 0};
        int rounds = 0;
        for (; rounds<patience&& ::poll(&p, 1, 0)> 0; ++rounds) {
            server_->serve();
            hear();
        }
        REQUIRE(rounds < patience);
        std::uint32_t turn = shim_blank;
        static_assert(offsetof(shim_slate, turn) == 0);
        (void)::pread(slate_.get(), &turn, sizeof turn, 0);
        REQUIRE(turn != shim_at_work || lied_);
    }
    void hear() {
        for (end& one : ends_) {
            std::array<std::uint8_t, 4096> heard;
            ssize_t length = 0;
            while ((length = ::recv(one.socket.get(), heard.data(), heard.size(),
                                    MSG_DONTWAIT | MSG_TRUNC)) > 0) {
                const auto a = first_of<shim_answer>({heard.data(), heard.size()});
                if (length == sizeof a && a.magic == SHIM_MAGIC) tell_channel(a.channel);
            }
            REQUIRE(length != 0 || has_ended(one));
        }
    }
    /// Else what came was an empty datagram, which a client would take for the end.
    [[nodiscard]] static bool has_ended(const end& one) {
        pollfd p{one.socket.get(), 0, 0};
        return ::poll(&p, 1, 0) == 1;
    }
    /// A side channel's number is for requests on the data socket, whichever end that is.
    void tell_channel(std::uint32_t channel) {
        for (end& one : ends_)
            one.channel = channel;
    }

    moment now_{1'000'000'000, 1'700'000'000};
    control::fake_backend backend_;
    control::layer layer_{backend_, [](auto into) { std::ranges::fill(into, 3); }};
    proc_files files_{layer_, [](auto) { return std::nullopt; }, [] { return xfrm_counters{}; }};
    std::unique_ptr<server> server_;
    std::vector<end> ends_;
    unique_fd kept_;    ///< our end of what is passed next
    unique_fd passed_;  ///< a copy of what was passed to be a data socket, the latest
    unique_fd slate_;   ///< the latest that was shared
    bool lied_ = false; ///< on the slate, whose turn it is
    std::uint32_t id_ = 0;
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    struct head {
        std::uint8_t action, end;
        std::uint16_t length;
    };
    bytes rest(data, size);
    scene s;
    while (const auto h = read_fixed<head>(rest)) {
        rest = rest.subspan(sizeof *h);
        const bytes given = rest.first(std::min<std::size_t>(h->length, rest.size()));
        s.step(h->action, h->end, given);
        rest = rest.subspan(given.size());
    }
    s.end_all();
    return 0;
}
