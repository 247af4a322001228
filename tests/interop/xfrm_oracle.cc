// SPDX-License-Identifier: Apache-2.0
//
// The kernel judges: random sessions of XFRM requests, valid and invalid, go to esplane's
// dispatcher and to the Linux kernel of a guest, byte by byte the same.  Each reply, error, text,
// dump and event must be the kernel's, and come in its order.
//
//   this process --- dispatcher, control layer, backend ----------------+
//        |                                                              +-- compared
//        +-- sessions in a file --> Linux in user space --> answers ----+
//
// Sessions of requests: no time passes.  Timed sessions: few requests, packets and much time, which
// is virtual on both sides; what comes while it passes must come when the kernel's does.  In every
// fourth session of requests esplane is `kernel-like`.
//
// What esplane refuses because it does not carry it, and says so, the kernel is not asked.  That,
// and what else may differ, is listed in doc/xfrm-differences.md and told apart by
// xfrm_oracle_allowed.cc; any other difference fails, and after the first one in a session the rest
// of it is not compared: the databases have parted.
//
//   xfrm_oracle [--requests N] [--timed N] [--seed S] [--collect]      77 without a guest kernel
//   xfrm_oracle --replay SEED:SESSION[:DATAGRAM]           what was asked and answered there
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <stdexcept>
#include <unistd.h>

#include "tests/interop/lib/uml_guest.h"
#include "tests/interop/xfrm_oracle_allowed.h"
#include "tests/interop/xfrm_oracle_compare.h"
#include "tests/interop/xfrm_oracle_requests.h"
#include "tests/interop/xfrm_oracle_sides.h"
#include "tests/interop/xfrm_oracle_timed.h"

namespace {

using namespace esplane::tests;
using namespace esplane::tests::oracle;
using namespace std::chrono_literals;

constexpr unsigned datagrams_in_session = 80;

struct settings {
    std::uint64_t seed = 7;
    std::size_t requests = 20'000; ///< compared, at least
    std::uint32_t timed = 20;      ///< sessions
    bool collect = false;
    std::optional<std::uint32_t> only_session;
    std::optional<std::uint32_t> only_datagram;
};

/// Timed sessions have numbers from here on.
constexpr std::uint32_t first_timed = 1'000'000;

session session_of(const settings& how, std::uint32_t number) {
    return number < first_timed ? make_session(how.seed, number, datagrams_in_session)
                                : make_timed_session(how.seed, number);
}

/// One session with what esplane answered, and without what it does not carry.
struct prepared {
    std::uint32_t number = 0;
    session asked;
    answers ours;
    std::map<std::string, unsigned> refused;
};

std::size_t requests_in(const session& s) {
    std::size_t n = 0;
    for (const question& q : s.asked)
        n += messages_of(q).size();
    return n;
}

/// `told` are the answers with texts: which tell what is refused.
void leave_out_refused(prepared& p, const answers& told) {
    for (std::size_t i = 0; i < p.asked.asked.size(); ++i) {
        normalizer as_is(std::nullopt);
        const auto listed =
            allowed_refusals(p.asked.asked[i], as_is(told.all[i]), p.asked.kernel_like);
        if (listed.empty()) continue;
        std::set<std::uint32_t> sequences;
        for (const auto& [sequence, kind] : listed) {
            sequences.insert(sequence);
            ++p.refused[kind];
        }
        p.asked.asked[i] = without(p.asked.asked[i], sequences);
        std::erase_if(p.ours.all[i], [&](const heard& h) {
            esplane::xfrm::bytes rest(h.bytes);
            const auto m = esplane::xfrm::next_message(rest);
            return m && h.group == 0 && sequences.contains(m->header.nlmsg_seq);
        });
    }
}

prepared prepare(const settings& how, std::uint32_t number) {
    prepared p;
    p.number = number;
    p.asked = session_of(how, number);
    p.ours = ask_esplane(p.asked);
    session with_texts = p.asked;
    with_texts.extended_acks = true;
    leave_out_refused(p, p.asked.extended_acks ? p.ours : ask_esplane(with_texts));
    return p;
}

std::vector<prepared> prepare_all(const settings& how) {
    if (how.only_session) return {};
    std::vector<prepared> all;
    std::size_t requests = 0;
    for (std::uint32_t number = 0; requests < how.requests; ++number) {
        all.push_back(prepare(how, number));
        requests += requests_in(all.back().asked);
    }
    for (std::uint32_t i = 0; i < how.timed; ++i)
        all.push_back(prepare(how, first_timed + i));
    return all;
}

std::string guest_script(const std::string& self, const std::string& share) {
    return "mkdir /run/share\n"
           "mount -t hostfs none /run/share -o " +
           share +
           " && cd /run/share || exit 1\n"
           "modprobe -a esp4 esp6 xfrm_user 2>/dev/null\n" +
           self + " --serve sessions answers && sync && echo && echo guest-done && read never\n";
}

/// Time is virtual in it: it passes while nobody works.  One thing at boot waits for real time.
const std::vector<std::string> virtual_time = {"time-travel=inf-cpu",
                                               "initcall_blacklist=jent_mod_init"};

std::vector<answers> ask_guest(const std::string& kernel, const std::vector<prepared>& all) {
    scratch_directory scratch("xfrm_oracle");
    scratch_directory share("xfrm_oracle");
    std::vector<session> sessions;
    for (const prepared& p : all)
        sessions.push_back(p.asked);
    write_sessions(share.path() + "/sessions", sessions);
    char self[4096] = {};
    if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        throw std::runtime_error("/proc/self/exe");
    uml_guest guest(kernel, scratch, 0, guest_script(self, share.path()), {}, virtual_time);
    (void)guest.wait_for("guest-done", 240s);
    return read_answers(share.path() + "/answers");
}

struct tally {
    std::map<std::string, std::pair<unsigned, std::string>> kinds; ///< with the first place
    std::map<std::string, unsigned> refused;
    leveller allowed;
    std::size_t compared = 0; ///< requests
    std::size_t later = 0;    ///< events that came while time passed
};

/// What both begin with is left out.
void show_difference(const question& q, const std::vector<item>& ours,
                     const std::vector<item>& theirs) {
    const auto [a, b] = std::ranges::mismatch(ours, theirs);
    std::cout << "  asked:\n"
              << show(q) << "  esplane, after " << a - ours.begin() << " that are the same:\n"
              << show({a, ours.end()}) << "  kernel:\n"
              << show({b, theirs.end()});
}

/// Takes what came later out of an answer.
std::vector<item> take_later(std::vector<item>& all) {
    const auto later =
        std::stable_partition(all.begin(), all.end(), [](const item& i) { return !i.later; });
    std::vector<item> out(later, all.end());
    all.erase(later, all.end());
    return out;
}

class comparison {
  public:
    comparison(const settings& how, const prepared& p, const answers& theirs, tally& into)
        : how_(how)
        , p_(p)
        , theirs_(theirs)
        , into_(into)
        , our_normal_(p.asked.timed ? std::optional(p.ours.began_s) : std::nullopt)
        , their_normal_(p.asked.timed ? std::optional(theirs.began_s) : std::nullopt) {}

    /// Up to the session's first difference.
    void run() {
        for (std::size_t i = 0; i < p_.asked.asked.size(); ++i)
            if (!compare_question(i)) return;
        sort_later(our_later_);
        sort_later(their_later_);
        into_.allowed(our_later_, their_later_);
        into_.later += our_later_.size();
        if (const auto kind = later_difference(our_later_, their_later_))
            note(*kind, p_.asked.asked.size(), {}, our_later_, their_later_);
    }

  private:
    bool compare_question(std::size_t i) {
        const question& q = p_.asked.asked[i];
        auto ours = our_normal_(p_.ours.all[i]);
        auto theirs = their_normal_(theirs_.all.at(i));
        move_later(ours, our_later_);
        move_later(theirs, their_later_);
        into_.allowed(ours, theirs);
        const auto kind = difference(q, ours, theirs);
        if (how_.only_datagram == i) {
            std::cout << "datagram " << i << ": " << kind.value_or("no difference") << '\n';
            show_difference(q, ours, theirs);
        }
        if (!kind)
            into_.compared += messages_of(q).size();
        else if (how_.only_datagram != i)
            note(*kind, i, q, ours, theirs);
        else
            ++into_.kinds[*kind].first;
        return !kind;
    }
    static void move_later(std::vector<item>& from, std::vector<item>& to) {
        const auto later = take_later(from);
        to.insert(to.end(), later.begin(), later.end());
    }
    void note(const std::string& kind, std::size_t at, const question& q,
              const std::vector<item>& ours, const std::vector<item>& theirs) {
        const std::string place =
            std::to_string(how_.seed) + ":" + std::to_string(p_.number) + ":" + std::to_string(at);
        auto& [count, first] = into_.kinds[kind];
        if (count++ != 0) return;
        first = place;
        if (how_.collect || into_.kinds.size() != 1) return;
        std::cout << "DIFFERENT at " << place << ": " << kind << '\n';
        show_difference(q, ours, theirs);
    }

    const settings& how_;
    const prepared& p_;
    const answers& theirs_;
    tally& into_;
    normalizer our_normal_, their_normal_;
    std::vector<item> our_later_, their_later_;
};

void print_counts(const char* what, const std::map<std::string, unsigned>& counts) {
    for (const auto& [kind, count] : counts)
        std::cout << what << ' ' << count << ' ' << kind << '\n';
}

std::size_t sum_of(const std::map<std::string, unsigned>& counts) {
    std::size_t sum = 0;
    for (const auto& [kind, count] : counts)
        sum += count;
    return sum;
}

int report(const settings& how, const std::vector<prepared>& all, const tally& found,
           const std::string& release) {
    if (how.collect) print_counts("refused", found.refused);
    print_counts("allowed", found.allowed.met());
    for (const auto& [kind, seen] : found.kinds)
        std::cout << "different " << seen.first << ' ' << kind << "  (" << seen.second << ")\n";
    std::cout << all.size() << " sessions against Linux " << release << ": " << found.compared
              << " requests compared, " << found.later << " events while time passed, "
              << sum_of(found.refused) << " requests not carried, " << found.kinds.size()
              << " kinds of differences\n";
    const bool enough = how.only_session || found.compared >= how.requests;
    return found.kinds.empty() && enough ? 0 : 1;
}

int run(const settings& how, const std::string& kernel, const std::string& release) {
    std::vector<prepared> all = prepare_all(how);
    if (how.only_session) all.push_back(prepare(how, *how.only_session));
    const auto theirs = ask_guest(kernel, all);
    tally found;
    for (std::size_t i = 0; i < all.size(); ++i) {
        comparison(how, all[i], theirs.at(i), found).run();
        for (const auto& [kind, count] : all[i].refused)
            found.refused[kind] += count;
    }
    return report(how, all, found, release);
}

/// "6.12.117" and later.
bool is_recent(const std::string& release) {
    int major = 0, minor = 0;
    return std::sscanf(release.c_str(), "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 12));
}

std::string release_of(const std::string& kernel) {
    FILE* const out = ::popen((kernel + " --version").c_str(), "r");
    if (out == nullptr) throw std::runtime_error(kernel);
    char line[128] = {};
    const bool read = std::fgets(line, sizeof line, out) != nullptr;
    if (::pclose(out) != 0 || !read) throw std::runtime_error(kernel + " --version");
    return std::string(line, std::strcspn(line, "\n"));
}

settings settings_from(int argc, char** argv) {
    settings s;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--collect") {
            s.collect = true;
        } else if (word == "--requests" && i + 1 < argc) {
            s.requests = std::stoul(argv[++i]);
        } else if (word == "--timed" && i + 1 < argc) {
            s.timed = static_cast<std::uint32_t>(std::stoul(argv[++i]));
        } else if (word == "--seed" && i + 1 < argc) {
            s.seed = std::stoull(argv[++i]);
        } else if (word == "--replay" && i + 1 < argc) {
            std::string place = argv[++i];
            std::ranges::replace(place, ':', ' ');
            std::istringstream in(place);
            unsigned number = 0;
            in >> s.seed >> number;
            s.only_session = number;
            if (in >> number) s.only_datagram = number;
        } else {
            throw std::runtime_error("usage: xfrm_oracle [--requests N] [--timed N] [--seed S] "
                                     "[--collect] [--replay SEED:SESSION[:DATAGRAM]]");
        }
    }
    return s;
}

} // namespace

int main(int argc, char** argv) {
    try {
        if (argc == 4 && std::strcmp(argv[1], "--serve") == 0) {
            serve_guest(argv[2], argv[3]);
            return 0;
        }
        const settings how = settings_from(argc, argv);
        const auto kernel = uml_guest::find_kernel();
        if (!kernel) {
            std::cout << "skipped: " << kernel.error().text << '\n';
            return 77;
        }
        const std::string release = release_of(*kernel);
        if (!is_recent(release)) {
            std::cout << "skipped: Linux " << release
                      << " is older than 6.12, whose answers these are: "
                      << "name a newer guest kernel in ESPLANE_UML_KERNEL\n";
            return 77;
        }
        return run(how, *kernel, release);
    } catch (const std::exception& e) {
        std::cout << "FAILED " << e.what() << '\n';
        return 1;
    }
}
