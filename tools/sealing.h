// SPDX-License-Identifier: Apache-2.0
//
// Seals the state file's records: AES-256-GCM, by a key of the operator's.
//
// Each session of the log has a key of its own (HMAC-SHA256 of the operator's key over what the
// session says, its random salt included), and a record's nonce is its number in the session: no
// two records share key and nonce, however often a daemon starts.
#pragma once

#include <memory>
#include <string>

#include "lib/base/result.h"
#include "lib/base/secret.h"
#include "lib/control/journal.h"

namespace esplane::tools {

/// 32 bytes, or 64 hexadecimal digits, from a file of this user's alone.
/// Errors: EACCES (others may read it), EINVAL, what open and read give; one line each.
[[nodiscard]] result<secret> read_state_key(const std::string& path);

/// The key's file: `path`, or where that is empty the credential esplane.state-key of the service
/// manager's; empty where there is neither.
[[nodiscard]] std::string state_key_path(const std::string& path);

[[nodiscard]] std::unique_ptr<control::journal_seal>
make_seal(const secret& key, const control::journal_session& session);

} // namespace esplane::tools
