// SPDX-License-Identifier: Apache-2.0
//
// What a daemon answers on its control socket.
//
//   {"command": "status"}                     one object
//   {"command": "ports"}                      {"ports": [...]}
//   {"command": "drops"}                      {"packets": {...}, "drops": [...]}
//   {"command": "workers"}                    {"workers": [...]}
//   {"command": "filter"}                     {"rules": [...]}
//   {"command": "sysctl", "name": N, "value": V}
//                                             {"sysctls": {name: number, ...}}; V sets N
//   {"command": "sa", "cursor": N}            {"sas": [...], "next": N or null}
//   {"command": "policy", "cursor": N}        {"policies": [...], "next": N or null}
//
// "trace" and "monitor" are streams: tools/trace.h.  Without a cursor a walk begins.  What is not
// understood gets {"error": "..."}.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "tools/engine.h"
#include "tools/port_watch.h"
#include "tools/state_file.h"
#include "tools/worker_care.h"

namespace esplane::tools {

struct daemon_facts {
    std::string run_dir;
    std::uint64_t started_ns = 0;         ///< CLOCK_MONOTONIC
    const worker_care* workers = nullptr; ///< nullptr: nobody looks after them
    const port_watch* ports = nullptr;    ///< the same
    const state_file* state = nullptr;    ///< nullptr: none is kept
};

[[nodiscard]] nlohmann::json answer(engine& e, const daemon_facts& facts,
                                    const nlohmann::json& request);

} // namespace esplane::tools
