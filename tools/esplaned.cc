// SPDX-License-Identifier: Apache-2.0
//
// The daemon's command: daemon.h is where to go on.
//
// One thread for control, an epoll loop; one for packets.  Both end on SIGTERM, SIGINT and SIGHUP;
// the programs on the devices stay.
#include <exception>
#include <iostream>
#include <string>
#include <unistd.h>
#include <utility>

#include "tools/daemon.h"
#include "tools/options.h"
#include "tools/process.h"

namespace esplane::tools {

namespace {

constexpr int exit_failed = 1;
constexpr int exit_usage = 2;

constexpr const char* stays = "protection stays in place; `esplane release` removes it";

/// What to do about a start that failed.
std::string advice_on(const error& e, const daemon& d) {
    const bool refused = e.code == EPERM || e.code == EACCES;
    if (refused && ::geteuid() != 0)
        return std::string(": run esplaned as root") +
               (d.is_for_helper() ? ", or under `esplane xdp-helper`" : "");
    return d.has_guarded() ? std::string(" (") + stays + ")" : "";
}

int main_of(int argc, char** argv) {
    auto parsed = parse_daemon_options(argc, argv);
    if (!parsed) {
        log(parsed.error().text);
        return exit_usage;
    }
    if (const auto* answer = std::get_if<text_answer>(&*parsed)) {
        std::cout << answer->text;
        return 0;
    }
    if (!keep_memory_private()) log("core dumps cannot be turned off: one would hold keys");
    raise_descriptor_limit();
    daemon d(std::move(std::get<daemon_options>(*parsed)));
    if (auto started = d.start(); !started) {
        log(started.error().text + advice_on(started.error(), d));
        return exit_failed;
    }
    d.run();
    log(d.has_guarded() ? std::string("stopped: ") + stays : "stopped");
    return 0;
}

} // namespace

} // namespace esplane::tools

int main(int argc, char** argv) {
    try {
        return esplane::tools::main_of(argc, argv);
    } catch (const std::exception& e) {
        esplane::tools::log(e.what());
        return esplane::tools::exit_failed;
    }
}
