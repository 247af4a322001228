// SPDX-License-Identifier: Apache-2.0
//
// intel-ipsec-mb's manager as esplane makes it: in memory of our own, which is wiped, and only on
// a processor that it can trust.
//
// Threads: a manager belongs to one thread, except for key expansion, which leaves it untouched.
#pragma once

#include <cstddef>
#include <memory>

#include <intel-ipsec-mb.h>

#include "lib/base/result.h"

namespace esplane::crypto {

struct manager_deleter {
    void operator()(IMB_MGR* manager) const noexcept;
};
using manager = std::unique_ptr<IMB_MGR, manager_deleter>;

/// A manager for the best instructions that this processor has.
///
/// Errors: ENOTSUP where AES-NI is missing or the library's self test failed; ENOMEM.
[[nodiscard]] result<manager> make_manager();

/// A manager that hashes with SHA-NI, a packet or two at a time, instead of filling many lanes;
/// empty where the processor has no SHA-NI.  Errors: as make_manager().
[[nodiscard]] result<manager> make_sha_ni_manager();

} // namespace esplane::crypto
