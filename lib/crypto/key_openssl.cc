// SPDX-License-Identifier: Apache-2.0
#include "lib/crypto/engine.h"
#include "lib/crypto/openssl/schedule.h"

namespace esplane::crypto {

std::size_t largest_schedule() noexcept {
    return 0;
}

result<std::shared_ptr<const key>> key::make(const ipsec::algorithms& a) {
    const auto expanded = openssl::expand(a);
    if (!expanded) return tl::unexpected(expanded.error());
    return std::shared_ptr<const key>(new key(*expanded));
}

key::~key() {
    delete static_cast<openssl::schedule*>(schedule_);
}

ipsec::suite key::run() const noexcept {
    return schedule_->run;
}

} // namespace esplane::crypto
