// SPDX-License-Identifier: Apache-2.0
#include "fastpath/reservation.h"

#include "fastpath/sa.h"
#include "lib/base/heap.h"
#include "lib/crypto/schedule.h"

namespace esplane::fastpath {

namespace {

/// Cells of a table's array and of the one it takes the place of, when it has just grown; and how
/// many tables there are with an entry of each SA or policy.
constexpr std::size_t cells = (4 + 2) * sizeof(std::uint64_t);
constexpr std::size_t tables_of_pair = 10;

/// A policy as run, and its part of a page of the policy table and of a template's list.
constexpr std::size_t policy_bytes = 512;

/// What control and the backend keep of an SA and of a policy of an ordinary size: measured, and
/// rounded up.
constexpr std::size_t heap_bytes = 2048;

/// Of slabs and tables, however few there are.
constexpr std::size_t partly_filled = 16 * huge_memory::page;

} // namespace

result<void> reserve_memory(std::size_t pairs, lasting_memory& sas) {
    sas.reserve(lasting_kind::inbound, sizeof(sa_in), pairs);
    sas.reserve(lasting_kind::outbound, sizeof(sa_out), pairs);
    const std::size_t each = crypto::largest_schedule() + policy_bytes + tables_of_pair * cells;
    if (!huge_memory::reserve(pairs * each + partly_filled) || !reserve_heap(pairs * heap_bytes))
        return fail(ENOMEM, "the machine has not enough memory");
    return {};
}

} // namespace esplane::fastpath
