// SPDX-License-Identifier: Apache-2.0
//
// Memory for SAs and policies that are still to come: a gateway that knows how many there will be
// takes in the last as fast as the first.
//
// Memory that is touched for the first time is most of what a new SA and its policy cost (see
// huge_memory.h).  What is put aside is for the objects that workers read, for all tables, and for
// what control keeps on the heap.  Nothing is refused beyond it: then memory comes as it would
// have.
// Threads: control's, which is the process's first, before there are others.
#pragma once

#include <cstddef>

#include "fastpath/lasting.h"
#include "lib/base/result.h"

namespace esplane::fastpath {

/// Puts memory aside for so many SAs, each with a policy; of what is unused no more.
///
/// sas   where SAs will be made
/// Errors: ENOMEM, before anything is taken where the machine says that it has less.
[[nodiscard]] result<void> reserve_memory(std::size_t pairs, lasting_memory& sas);

} // namespace esplane::fastpath
