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
// What esplane does not carry it refuses and says so: those requests the kernel does not get (they
// are counted, and listed in doc/xfrm-differences.md).  After the first difference in a session the
// rest of it is not compared: the databases have parted.
//
//   xfrm_oracle [--requests N] [--seed S] [--collect]      77 without a guest kernel
//   xfrm_oracle --replay SEED:SESSION[:DATAGRAM]           what was asked and answered there
#include <algorithm>
#include <cstring>
#include <fstream>
#include <iostream>
#include <sched.h>
#include <stdexcept>
#include <sys/utsname.h>
#include <unistd.h>

#include "tests/interop/lib/uml_guest.h"
#include "tests/interop/xfrm_oracle_compare.h"
#include "tests/interop/xfrm_oracle_requests.h"
#include "tests/interop/xfrm_oracle_sides.h"

namespace {

using namespace esplane::tests;
using namespace esplane::tests::oracle;
using namespace std::chrono_literals;

constexpr unsigned datagrams_in_session = 80;
constexpr unsigned full_requests = 20'000;

struct settings {
    std::uint64_t seed = 7;
    unsigned requests = full_requests;
    bool collect = false;
    std::optional<unsigned> only_session;
    std::optional<unsigned> only_datagram;
};

std::size_t requests_in(const session& s) {
    std::size_t n = 0;
    for (const question& q : s.asked) {
        esplane::xfrm::bytes rest(q.bytes);
        while (esplane::xfrm::next_message(rest))
            ++n;
    }
    return n;
}

/// One session with what esplane answered, and without what it does not carry.
struct prepared {
    std::uint32_t number = 0;
    session asked;
    answers ours;
    std::map<std::string, unsigned> refused;
};

/// `told` are the answers with texts: which tell what is refused.
void leave_out_refused(prepared& p, const answers& told) {
    for (std::size_t i = 0; i < p.asked.asked.size(); ++i) {
        const auto listed = listed_refusals(p.asked.asked[i], told[i]);
        if (listed.empty()) continue;
        std::set<std::uint32_t> sequences;
        for (const auto& [sequence, kind] : listed) {
            sequences.insert(sequence);
            ++p.refused[kind];
        }
        p.asked.asked[i] = without(p.asked.asked[i], sequences);
        for (heard& h : p.ours[i]) {
            esplane::xfrm::bytes rest(h.bytes);
            const auto m = esplane::xfrm::next_message(rest);
            if (m && h.group == 0 && sequences.contains(m->header.nlmsg_seq)) h.bytes.clear();
        }
        std::erase_if(p.ours[i], [](const heard& h) { return h.bytes.empty(); });
    }
}

std::vector<prepared> prepare(const settings& how, std::size_t& requests) {
    std::vector<prepared> all;
    requests = 0;
    std::uint32_t number = how.only_session.value_or(0);
    do {
        prepared p;
        p.number = number++;
        p.asked = make_session(how.seed, p.number, datagrams_in_session);
        requests += requests_in(p.asked);
        p.ours = ask_esplane(p.asked);
        session with_texts = p.asked;
        with_texts.extended_acks = true;
        leave_out_refused(p, p.asked.extended_acks ? p.ours : ask_esplane(with_texts));
        all.push_back(std::move(p));
    } while (!how.only_session && requests < how.requests);
    return all;
}

std::string guest_script(const std::string& self, const std::string& share) {
    return "mkdir /run/share\n"
           "mount -t hostfs none /run/share -o " +
           share +
           " && cd /run/share || exit 1\n"
           "modprobe -a esp4 esp6 xfrm_user 2>/dev/null\n"
           "uname -r >release\n" +
           self + " --serve sessions answers && sync && echo && echo guest-done && read never\n";
}

std::vector<answers> ask_guest(const std::string& kernel, const std::vector<prepared>& all,
                               std::string& release) {
    scratch_directory scratch("xfrm_oracle");
    scratch_directory share("xfrm_oracle");
    std::vector<session> sessions;
    for (const prepared& p : all)
        sessions.push_back(p.asked);
    write_sessions(share.path() + "/sessions", sessions);
    char self[4096] = {};
    if (::readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        throw std::runtime_error("/proc/self/exe");
    uml_guest guest(kernel, scratch, 0, guest_script(self, share.path()));
    (void)guest.wait_for("guest-done", 240s);
    std::ifstream(share.path() + "/release") >> release;
    return read_answers(share.path() + "/answers");
}

struct tally {
    std::map<std::string, std::pair<unsigned, std::string>> kinds; ///< with the first place
    std::map<std::string, unsigned> refused;
    std::size_t compared = 0;
};

void show_difference(const prepared& p, std::size_t at, const std::vector<item>& ours,
                     const std::vector<item>& theirs) {
    std::cout << "  asked:\n"
              << show(p.asked.asked[at]) << "  esplane:\n"
              << show(ours) << "  kernel:\n"
              << show(theirs);
}

/// Up to the session's first difference.
void compare(const settings& how, const prepared& p, const answers& theirs, tally& into) {
    normalizer our_normal(true), their_normal(true);
    for (std::size_t i = 0; i < p.asked.asked.size(); ++i) {
        const question& q = p.asked.asked[i];
        const auto ours = our_normal(p.ours[i]);
        const auto kernels = their_normal(theirs.at(i));
        const auto kind = difference(q, ours, kernels);
        if (how.only_datagram == i) {
            std::cout << "datagram " << i << ": " << kind.value_or("no difference") << '\n';
            show_difference(p, i, ours, kernels);
        }
        if (!kind) {
            ++into.compared;
            continue;
        }
        const std::string place =
            std::to_string(how.seed) + ":" + std::to_string(p.number) + ":" + std::to_string(i);
        auto& [count, first] = into.kinds[*kind];
        if (count++ == 0) first = place;
        if (!how.collect && into.kinds.size() == 1 && count == 1) {
            std::cout << "DIFFERENT at " << place << ": " << *kind << '\n';
            show_difference(p, i, ours, kernels);
        }
        if (!how.only_datagram || *how.only_datagram <= i) return;
    }
}

/// "6.12.117" and later.
bool is_recent(const std::string& release) {
    int major = 0, minor = 0;
    return std::sscanf(release.c_str(), "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 12));
}

/// Sessions in a thousand that may part: what doc/xfrm-differences.md calls open.
constexpr std::size_t open_in_thousand = 60;

int run(const settings& how, const std::string& kernel) {
    std::size_t requests = 0;
    const auto all = prepare(how, requests);
    std::string release;
    const auto theirs = ask_guest(kernel, all, release);
    if (!is_recent(release)) {
        std::cout << "skipped: Linux " << release
                  << " is older than 6.12, whose answers these are: "
                  << "name a newer guest kernel in ESPLANE_UML_KERNEL\n";
        return 77;
    }
    tally found;
    for (std::size_t i = 0; i < all.size(); ++i) {
        compare(how, all[i], theirs.at(i), found);
        for (const auto& [kind, count] : all[i].refused)
            found.refused[kind] += count;
    }
    std::size_t refused = 0;
    for (const auto& [kind, count] : found.refused) {
        refused += count;
        if (how.collect) std::cout << "refused " << count << ' ' << kind << '\n';
    }
    std::vector<std::pair<unsigned, std::string>> sorted;
    for (const auto& [kind, seen] : found.kinds)
        sorted.emplace_back(seen.first, kind + "  (" + seen.second + ")");
    std::ranges::sort(sorted, std::greater{});
    std::size_t parted = 0;
    for (const auto& [count, text] : sorted) {
        parted += count;
        std::cout << "different " << count << ' ' << text << '\n';
    }
    std::cout << all.size() << " sessions of " << requests << " requests against Linux " << release
              << ": " << refused << " not carried, " << found.compared << " datagrams compared, "
              << sorted.size() << " kinds of differences\n";
    return parted * 1000 <= all.size() * open_in_thousand ? 0 : 1;
}

settings settings_from(int argc, char** argv) {
    settings s;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        if (word == "--collect") {
            s.collect = true;
        } else if (word == "--requests" && i + 1 < argc) {
            s.requests = static_cast<unsigned>(std::stoul(argv[++i]));
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
            throw std::runtime_error("usage: xfrm_oracle [--requests N] [--seed S] [--collect] "
                                     "[--replay SEED:SESSION[:DATAGRAM]]");
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
        return run(how, *kernel);
    } catch (const std::exception& e) {
        std::cout << "FAILED " << e.what() << '\n';
        return 1;
    }
}
