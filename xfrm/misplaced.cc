// SPDX-License-Identifier: Apache-2.0
#include "xfrm/misplaced.h"

#include <span>
#include <vector>

namespace esplane::xfrm {
namespace {

constexpr std::uint16_t of_dumps[] = {XFRMA_PROTO, XFRMA_ADDRESS_FILTER};
constexpr std::uint16_t of_sas[] = {
    XFRMA_ALG_AUTH,
    XFRMA_ALG_CRYPT,
    XFRMA_LTIME_VAL,
    XFRMA_REPLAY_VAL,
    XFRMA_REPLAY_THRESH,
    XFRMA_ETIMER_THRESH,
    XFRMA_COADDR,
    XFRMA_LASTUSED,
    XFRMA_ALG_AEAD,
    XFRMA_ALG_AUTH_TRUNC,
    XFRMA_TFCPAD,
    XFRMA_REPLAY_ESN_VAL,
    XFRMA_SA_EXTRA_FLAGS,
    XFRMA_SET_MARK,
    XFRMA_SET_MARK_MASK,
    XFRMA_MTIMER_THRESH,
    xfrma_nat_keepalive_interval,
};
constexpr std::uint16_t of_policies[] = {XFRMA_TMPL, XFRMA_POLICY_TYPE};
constexpr std::uint16_t of_migration[] = {XFRMA_MIGRATE, XFRMA_KMADDRESS};

using types = std::span<const std::uint16_t>;

std::vector<types> strangers_of(std::uint16_t message) {
    switch (message) {
    case XFRM_MSG_NEWSA:
    case XFRM_MSG_UPDSA:
    case XFRM_MSG_DELSA:
    case XFRM_MSG_GETSA:
    case XFRM_MSG_ALLOCSPI:
    case XFRM_MSG_EXPIRE:
    case XFRM_MSG_NEWAE:
    case XFRM_MSG_GETAE:
        return {of_dumps, of_policies, of_migration};
    case XFRM_MSG_NEWPOLICY:
    case XFRM_MSG_UPDPOLICY:
    case XFRM_MSG_DELPOLICY:
    case XFRM_MSG_GETPOLICY:
    case XFRM_MSG_POLEXPIRE:
    case XFRM_MSG_FLUSHPOLICY:
    case XFRM_MSG_ACQUIRE:
        return {of_dumps, of_sas, of_migration};
    case XFRM_MSG_MIGRATE:
        return {of_dumps, of_sas};
    default:
        return {of_dumps};
    }
}

} // namespace

std::optional<std::uint16_t> misplaced(const attributes& a, std::uint16_t message) {
    for (const types& strangers : strangers_of(message))
        for (const std::uint16_t type : strangers)
            if (a.has(type)) return type;
    return std::nullopt;
}

} // namespace esplane::xfrm
