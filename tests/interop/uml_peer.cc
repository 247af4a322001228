// SPDX-License-Identifier: Apache-2.0
//
// A Linux kernel of its own as the neighbour of a network namespace, for a script to command.
//
//   uml_peer DEVICE          boots it, with what comes in by that device on its vec0; each line on
//                            stdin is a shell command there, answered by what it says and a line
//                            "status N".  The first answer is that of booting.  Ends with stdin.
//   uml_peer --encap-socket  in the guest: its kernel takes ESP out of UDP on port 4500 from now
//                            on, and policies do not hold for that port
//
// Status 77 (skipped) without a guest kernel.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <iostream>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/interop/lib/uml_guest.h"

namespace {

using namespace esplane::tests;

constexpr int skipped = 77;
constexpr std::chrono::seconds to_boot{60};
constexpr std::chrono::seconds to_answer{300};
constexpr std::uint16_t encap_port = 4500;

bool set(int fd, int level, int option, const void* value, std::size_t size) {
    return ::setsockopt(fd, level, option, value, static_cast<socklen_t>(size)) == 0;
}

/// What an IKE daemon asks for, for its own messages: else a transport policy for all between two
/// hosts drops them, and ESP in UDP with them.
bool bypass_policies(int fd, int family) {
    const bool v4 = family == AF_INET;
    xfrm_userpolicy_info policy{};
    policy.action = XFRM_POLICY_ALLOW;
    policy.sel.family = static_cast<std::uint16_t>(family);
    for (const std::uint8_t direction : {XFRM_POLICY_IN, XFRM_POLICY_OUT}) {
        policy.dir = direction;
        if (!set(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_XFRM_POLICY : IPV6_XFRM_POLICY,
                 &policy, sizeof policy))
            return false;
    }
    return true;
}

bool open_encap_socket(int family) {
    const int fd = ::socket(family, SOCK_DGRAM, 0);
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(encap_port);
    sockaddr_in four{};
    four.sin_family = AF_INET;
    four.sin_port = htons(encap_port);
    const bool v4 = family == AF_INET;
    const auto* any =
        v4 ? reinterpret_cast<const sockaddr*>(&four) : reinterpret_cast<const sockaddr*>(&six);
    constexpr int udp_encap = 100, esp_in_udp = 2, on = 1;
    return fd >= 0 && (v4 || set(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on)) &&
           ::bind(fd, any, v4 ? sizeof four : sizeof six) == 0 &&
           set(fd, IPPROTO_UDP, udp_encap, &esp_in_udp, sizeof esp_in_udp) &&
           bypass_policies(fd, family);
}

/// A child holds the sockets.
int hold_encap_sockets() {
    if (!open_encap_socket(AF_INET) || !open_encap_socket(AF_INET6)) {
        std::perror("UDP encapsulation socket");
        return EXIT_FAILURE;
    }
    if (::fork() != 0) return EXIT_SUCCESS;
    for (;;)
        ::pause();
}

/// Answers each command on the console with its status and "over".
constexpr const char* shell_text = "stty -echo\n"
                                   "echo 'status 0'; echo over\n"
                                   "while read -r line; do\n"
                                   "    eval \"$line\" </dev/null\n"
                                   "    echo \"status $?\"; echo over\n"
                                   "done\n";

void pass_on(uml_guest& guest, std::chrono::seconds patience) {
    const std::string said = guest.wait_for("over", patience);
    std::cout << said.substr(std::min(said.find_first_not_of('\n'), said.size())) << std::flush;
}

int command_guest(const std::string& device) {
    const auto kernel = uml_guest::find_kernel();
    if (!kernel) {
        std::printf("skipped: %s\n", kernel.error().text.c_str());
        return skipped;
    }
    scratch_directory scratch("esplane-peer");
    uml_guest guest(*kernel, scratch, 0, shell_text, {device});
    pass_on(guest, to_boot);
    for (std::string line; std::getline(std::cin, line);) {
        guest.tell(line);
        pass_on(guest, to_answer);
    }
    return EXIT_SUCCESS;
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("usage: uml_peer DEVICE | --encap-socket\n", stderr);
        return 2;
    }
    try {
        const std::string word = argv[1];
        return word == "--encap-socket" ? hold_encap_sockets() : command_guest(word);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "uml_peer: %s\n", e.what());
        return EXIT_FAILURE;
    }
}
