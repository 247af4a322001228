// SPDX-License-Identifier: Apache-2.0
//
// For loops that look at memory which another CPU is about to change.  C and C++.
#pragma once

/// Lets the CPU's other thread go on for a moment.
static inline void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}
