// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/bpf.h"

#include <cstdarg>

#include <bpf/libbpf.h>
#include <xdp/libxdp.h>

namespace esplane::fastpath {
namespace {

int say_nothing(libbpf_print_level, const char*, va_list) {
    return 0;
}
int say_nothing(libxdp_print_level, const char*, va_list) {
    return 0;
}

} // namespace

void silence_bpf_libraries() noexcept {
    libbpf_set_print(say_nothing);
    libxdp_set_print(say_nothing);
}

tl::unexpected<error> fail_bpf(int code, const std::string& what) {
    errno = code < 0 ? -code : code;
    return fail_errno(what);
}

} // namespace esplane::fastpath
