// SPDX-License-Identifier: Apache-2.0
#include "tools/trace_command.h"

#include <iostream>
#include <unistd.h>

#include "tools/control_socket.h"
#include "tools/trace_text.h"

namespace esplane::tools {

result<void> follow(const std::string& run_dir, const std::string& command, bool as_json) {
    auto client = control_client::connect(run_dir);
    if (!client) return tl::unexpected(client.error());
    if (auto begun = client->ask({{"command", command}}); !begun)
        return tl::unexpected(begun.error());
    while (std::cout) {
        const auto packet = client->next(STDOUT_FILENO);
        if (!packet) return tl::unexpected(packet.error());
        if (packet->empty()) break;
        if (as_json) {
            std::cout << *packet << std::flush;
            continue;
        }
        const auto parsed = nlohmann::ordered_json::parse(*packet);
        std::cout << (command == "trace" ? text_of_message(parsed) : text_of_event(parsed))
                  << std::flush;
    }
    return {};
}

} // namespace esplane::tools
