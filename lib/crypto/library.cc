// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/library.h"

#include <cstdlib>
#include <cstring>

#include "lib/base/secret.h"

namespace esplane::crypto {
namespace {

constexpr std::size_t line = 64;

constexpr std::size_t whole_lines(std::size_t size) noexcept {
    return (size + line - 1) / line * line;
}

/// The library falls back to C code without AES-NI, in time that depends on the key.
constexpr std::uint64_t needed = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ | IMB_FEATURE_SSE4_2;

result<void> trust(const IMB_MGR& made) {
    if ((made.features & needed) != needed || (made.features & IMB_FEATURE_AESNI_EMU) != 0)
        return fail(ENOTSUP, "the processor lacks AES-NI, PCLMULQDQ or SSE4.2: esplane needs them; "
                             "in a virtual machine, let the hypervisor pass them on");
    if ((made.features & IMB_FEATURE_SELF_TEST) != 0 &&
        (made.features & IMB_FEATURE_SELF_TEST_PASS) == 0)
        return fail(ENOTSUP, "intel-ipsec-mb failed its self test: reinstall libipsec-mb1, or "
                             "distrust this processor");
    return {};
}

/// Zeroed; nullptr where there is no memory.
void* allocate_lines(std::size_t size) noexcept {
    void* memory = std::aligned_alloc(line, whole_lines(size));
    if (memory != nullptr) std::memset(memory, 0, whole_lines(size));
    return memory;
}

void free_lines(void* memory, std::size_t size) noexcept {
    if (memory == nullptr) return;
    wipe(memory, whole_lines(size));
    std::free(memory);
}

result<manager> made_with(void (*initialise)(IMB_MGR*)) {
    void* memory = allocate_lines(imb_get_mb_mgr_size());
    if (memory == nullptr) return fail(ENOMEM);
    manager made(imb_set_pointers_mb_mgr(memory, 0, 1));
    initialise(made.get());
    if (auto trusted = trust(*made); !trusted) return tl::unexpected(trusted.error());
    return made;
}

} // namespace

void manager_deleter::operator()(IMB_MGR* made) const noexcept {
    free_lines(made, imb_get_mb_mgr_size());
}

result<manager> make_manager() {
    return made_with([](IMB_MGR* fresh) { init_mb_mgr_auto(fresh, nullptr); });
}

result<manager> make_sha_ni_manager() {
    auto made = made_with(init_mb_mgr_sse);
    if (made && ((*made)->features & IMB_FEATURE_SHANI) == 0) return manager();
    return made;
}

} // namespace esplane::crypto
