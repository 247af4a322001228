// SPDX-License-Identifier: Apache-2.0
//
// Clients under the shim beside the same clients of the kernel: bench/control_bed measures, here it
// is judged.
//
// The kernel's rate depends on the policies: where their addresses are hashed, or in its trees, it
// takes some 20 us a line of `ip -batch`, half of that the socket.  Policies of one pair of hosts
// that differ by port are a list that every new one is compared with.  The target was set where
// the kernel did 7,200 policies a second on the way to 100,000: of the workloads tried, 100 peers
// of 1,000 ports each is the one of about that rate, and so the one that is judged by it.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <sys/socket.h>
#include <vector>

#include "bench/control.h"
#include "bench/script.h"
#include "lib/base/unique_fd.h"
#include "xfrm/message.h"
#include <linux/netlink.h>

namespace esplane::bench {
namespace {

nlohmann::json measured() {
    return json_of("ESPLANE_BUILD=" ESPLANE_BUILD_DIR " timeout 300 " ESPLANE_SOURCE_DIR
                   "/bench/control_bed");
}

/// What is asked for, and what is shown beside it and may not fall far behind.
struct workload {
    const char* name; ///< bench/control_bed's
    const char* row;
    double at_least;
};
constexpr workload workloads[] = {
    {"ports", "policy_batch", 2},
    {"hosts", "policy_batch_hosts", 0.3},
    {"sites", "policy_batch_sites", 0.3},
    {"hub", "policy_batch_hub", 0.3},
};

figure_row policy_row(const workload& w, const nlohmann::json& seen) {
    const nlohmann::json seconds = seen["policies_s"].value(w.name, nlohmann::json::object());
    const double ours = seconds.value("esplane", 1e9);
    const double kernel = seconds.value("kernel", 0.0);
    const double count = seen.value("policies", 0.0);
    return {w.row,      kernel / ours,
            "x",        figure_row::bound::at_least,
            w.at_least, text("%.0f policies/s, the kernel %.0f", count / ours, count / kernel)};
}

} // namespace

figure_rows measure_shim() {
    const nlohmann::json seen = measured();
    figure_rows rows;
    constexpr const char* why = "bench/control_bed failed or needs root; run it alone";
    for (const workload& w : workloads)
        rows.push_back(seen.is_object() ? policy_row(w, seen) : not_measured(w.row, why));
    if (!seen.is_object()) {
        rows.push_back(not_measured("round_trip", why));
        return rows;
    }
    const double trip = seen["round_trip_ns"].value("esplane", 1e9);
    const double kernel_trip = seen["round_trip_ns"].value("kernel", 1.0);
    rows.push_back({"round_trip", trip / kernel_trip, "x", figure_row::bound::at_most, 10,
                    text("%.1f us, the kernel %.1f", trip / 1000, kernel_trip / 1000)});
    return rows;
}

int ask_round_trips(int count) {
    const unique_fd s(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_XFRM));
    sockaddr_nl kernel{};
    kernel.nl_family = AF_NETLINK;
    xfrm::datagram request;
    xfrm::message_writer w(request, XFRM_MSG_GETSPDINFO, NLM_F_REQUEST, 1, 0);
    w.fixed(std::uint32_t{0});
    w.finish();
    std::array<char, 4096> answer;
    std::vector<double> took;
    for (int i = 0; i < count; ++i) {
        const auto start = std::chrono::steady_clock::now();
        if (::sendto(s.get(), request.data(), request.size(), 0,
                     reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel) < 0 ||
            ::recv(s.get(), answer.data(), answer.size(), 0) <= 0)
            return EXIT_FAILURE;
        took.push_back(
            std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - start)
                .count());
    }
    std::nth_element(took.begin(), took.begin() + count / 2, took.end());
    std::printf("%.0f\n", took[static_cast<std::size_t>(count) / 2]);
    return EXIT_SUCCESS;
}

} // namespace esplane::bench
