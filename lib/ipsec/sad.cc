// SPDX-License-Identifier: Apache-2.0
#include "lib/ipsec/sad.h"

#include <string_view>
#include <type_traits>

namespace esplane::ipsec {

std::size_t sad::id_hash::operator()(const sa_id& id) const noexcept {
    static_assert(sizeof(sa_id) == sizeof(address) + sizeof(wire::be32) + 1,
                  "padding must not be hashed");
    return std::hash<std::string_view>()({reinterpret_cast<const char*>(&id), sizeof id});
}

sad::entry* sad::find(const sa_id& id) {
    const auto at = by_id_.find(id);
    return at == by_id_.end() ? nullptr : &at->second;
}

sad::entry* sad::find_serial(std::uint64_t serial) {
    const auto at = by_serial_.find(serial);
    return at == by_serial_.end() ? nullptr : at->second;
}

sad::entry* sad::newest_from(std::uint64_t serial) {
    const auto after = by_serial_.upper_bound(serial);
    return after == by_serial_.begin() ? nullptr : std::prev(after)->second;
}

sad::entry& sad::insert(sa s) {
    const sa_id id = s.id;
    entry& e = by_id_[id];
    e.what = std::move(s);
    e.serial = ++last_serial_;
    by_serial_.emplace_hint(by_serial_.end(), e.serial, &e);
    return e;
}

sa sad::take(entry& e) {
    sa what = std::move(e.what);
    by_serial_.erase(e.serial);
    by_id_.erase(what.id);
    return what;
}

} // namespace esplane::ipsec
