// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/gcm.h"

#include <atomic>

#include <cpuid.h>

namespace esplane::crypto::gcm {
namespace {

/// Of the process: keys are shared by all engines.
std::atomic<bool> wanted = false;

struct registers {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

registers cpuid(unsigned leaf) noexcept {
    registers r;
    (void)__get_cpuid_count(leaf, 0, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

constexpr bool has(unsigned value, unsigned bits) noexcept {
    return (value & bits) == bits;
}

/// Says whether the operating system saves the mask and the 512-bit registers: it must have set
/// XCR0's bits of SSE, AVX, opmask, the upper halves and the upper sixteen.
bool saves_registers() noexcept {
    if (!has(cpuid(1).ecx, bit_OSXSAVE)) return false;
    unsigned low = 0;
    unsigned high = 0;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return has(low, 0xe6);
}

bool detect() noexcept {
    const registers features = cpuid(7);
    return saves_registers() &&
           has(features.ebx, bit_BMI2 | bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL) &&
           has(features.ecx, bit_AVX512VBMI | bit_VAES | bit_VPCLMULQDQ);
}

} // namespace

bool supported() noexcept {
    static const bool is = detect();
    return is;
}

bool library_keys_wanted() noexcept {
    return !supported() || wanted.load(std::memory_order_relaxed);
}

void want_library_keys() noexcept {
    wanted.store(true, std::memory_order_relaxed);
}

} // namespace esplane::crypto::gcm
