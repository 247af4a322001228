// SPDX-License-Identifier: Apache-2.0
#include "fastpath/reservation.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

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

/// Bytes that the machine can give, as it says; as many as there can be where it does not.
std::size_t available() {
    std::ifstream all("/proc/meminfo");
    std::string name;
    std::size_t kib = 0;
    while (all >> name >> kib) {
        if (name == "MemAvailable:") return kib << 10;
        all.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    return std::numeric_limits<std::size_t>::max();
}

std::string in_mib(std::size_t bytes) {
    return std::to_string(bytes >> 20) + " MiB";
}

} // namespace

// The kernel promises more than it has and ends who touches it: so it is asked first what there is.
// What an engine that was given up had is there still.
result<void> reserve_memory(std::size_t pairs, lasting_memory& sas) {
    const std::size_t each = crypto::largest_schedule() + policy_bytes + tables_of_pair * cells;
    const std::size_t wanted = pairs * each + partly_filled;
    const std::size_t more = wanted - std::min(wanted, huge_memory::now().unused);
    const std::size_t heap = pairs * heap_bytes;
    const std::size_t needed = pairs * (sizeof(sa_in) + sizeof(sa_out)) + more + heap;
    if (const std::size_t there = available(); needed > there)
        return fail(ENOMEM, "takes " + in_mib(needed) + " and the machine has " + in_mib(there));
    sas.reserve(lasting_kind::inbound, sizeof(sa_in), pairs);
    sas.reserve(lasting_kind::outbound, sizeof(sa_out), pairs);
    if (!huge_memory::reserve(more) || !reserve_heap(heap))
        return fail(ENOMEM, "the machine has not the " + in_mib(needed) + " that it takes");
    return {};
}

} // namespace esplane::fastpath
