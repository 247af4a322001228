// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/lib/ip_batch.h"

#include <cstdlib>
#include <poll.h>
#include <stdexcept>
#include <sys/wait.h>
#include <unistd.h>

#include "xfrm/server.h"

namespace esplane::tests {

bool run_ip(const std::string& batch, const std::string& preload, const std::string& socket,
            lab& gateway) {
    if (::access(preload.c_str(), R_OK) != 0) // ld.so would go on, and ip configure this machine
        throw std::runtime_error("no preload library " + preload);
    auto server = xfrm::server::open(gateway.control, socket, fastpath::now);
    if (!server) throw std::runtime_error(server.error().text);
    const pid_t child = ::fork();
    if (child == 0) {
        ::setenv("LD_PRELOAD", preload.c_str(), 1);
        ::setenv("ESPLANE_XFRM_SOCKET", socket.c_str(), 1);
        ::setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
        ::execlp("ip", "ip", "-batch", batch.c_str(), nullptr);
        ::_exit(127);
    }
    int status = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {
        pollfd wait{(*server)->descriptor(), POLLIN, 0};
        ::poll(&wait, 1, 10);
        (*server)->serve();
    }
    return status == 0;
}

} // namespace esplane::tests
