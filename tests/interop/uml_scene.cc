// SPDX-License-Identifier: Apache-2.0
//
// Runs a scene inside a guest kernel of its own (user-mode Linux), for what the host's kernel may
// lack: VLANs, VRFs.  No root is needed outside; inside the scene is root.
//
//   uml_scene SCRIPT [WORD]      status: the scene's; 77 (skipped) without a guest kernel
//
// ESPLANE_BUILD names the build directory, ESPLANE_UML_KERNEL the kernel (see lib/uml_guest.h).
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include "tests/interop/lib/uml_guest.h"

namespace {

using namespace esplane::tests;

constexpr int skipped = 77;
constexpr std::chrono::seconds timeout{240};

/// The guest's console tells the status where it cannot return one.
std::string commands(const std::string& scene) {
    const char* build = std::getenv("ESPLANE_BUILD");
    return "mkdir /run/scene && mount -t tmpfs tmpfs /run/scene\n"
           "export SANDBOX=/run/scene HOME=/run\n" +
           std::string(build == nullptr ? ""
                                        : "export ESPLANE_BUILD='" + std::string(build) + "'\n") +
           "bash " + scene + "\necho \"status $?\"\necho 'scene over'\n";
}

int run(const std::string& scene) {
    const auto kernel = uml_guest::find_kernel();
    if (!kernel) {
        std::printf("skipped: %s\n", kernel.error().text.c_str());
        return skipped;
    }
    scratch_directory scratch("esplane-scene");
    uml_guest guest(*kernel, scratch, 0, commands(scene));
    const std::string said = guest.wait_for("scene over", timeout);
    std::fputs(said.c_str(), stdout);
    const std::size_t at = said.rfind("status ");
    return at == std::string::npos ? EXIT_FAILURE : std::atoi(said.c_str() + at + 7);
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 2 && argc != 3) {
        std::fputs("usage: uml_scene SCRIPT [WORD]\n", stderr);
        return 2;
    }
    try {
        const std::string script = std::filesystem::canonical(argv[1]);
        return run("'" + script + "' " + (argc == 3 ? argv[2] : ""));
    } catch (const std::exception& e) {
        std::fprintf(stderr, "uml_scene: %s\n", e.what());
        return EXIT_FAILURE;
    }
}
