// SPDX-License-Identifier: Apache-2.0
//
// Rules and routes of our own in the kernel: they lead the machine's traffic into its TUN device.
//
// They carry a protocol number of their own, by which they are known again after a restart and left
// alone by others; those of others are never touched.  What is there already is not written again.
//
// A route into a device has an `unreachable` one behind it, of worse metric: when the device goes
// down or away, the kernel drops the route in silence, and what it led to stays blocked.
// Threads: control.  Network namespace: the one of the thread that calls open().
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "lib/base/result.h"
#include "lib/ipsec/address.h"
#include "xfrm/route_socket.h"

namespace esplane::xfrm {

/// A rule of `ip rule`.
struct host_rule {
    enum class verdict : std::uint8_t {
        lookup,  ///< in the table `to`
        jump,    ///< on to the rules of priority `to`
        landing, ///< nothing: where jumps lead
    };
    ipsec::family family = ipsec::family::ipv4;
    std::uint32_t priority = 0;
    verdict what = verdict::lookup;
    std::uint32_t to = 0;
    std::uint32_t mark = 0;
    std::uint32_t mask = 0;        ///< 0: whatever the mark
    bool unless = false;           ///< it is for what does not match
    bool of_machine = false;       ///< for what the machine itself sends, and answers to it
    std::uint8_t protocol = 0;     ///< IP protocol; 0 = any
    std::uint16_t source_port = 0; ///< 0 = any

    friend bool operator==(const host_rule&, const host_rule&) = default;
};

/// Destinations.
struct host_prefix {
    ipsec::address address;
    std::uint8_t length = 0;

    [[nodiscard]] bool holds(const ipsec::address& a) const noexcept {
        return a.fam == address.fam &&
               ipsec::prefix_equal(a.bytes.data(), address.bytes.data(), length);
    }
    /// "10.2.0.0/16"
    [[nodiscard]] std::string to_string() const;

    friend bool operator==(const host_prefix&, const host_prefix&) = default;
    friend auto operator<=>(const host_prefix&, const host_prefix&) = default;
};

struct host_route {
    enum class way : std::uint8_t {
        device, ///< by `ifindex`, blocked when that is gone
        past,   ///< by `ifindex`, and by whatever other rules say when that is gone
        around, ///< whatever other rules say ("throw")
        nowhere ///< unreachable
    };
    way what = way::device;
    int ifindex = 0;
    ipsec::address gateway; ///< unspecified = on the link
    ipsec::address source;  ///< what the machine calls itself; unspecified = the kernel chooses
    std::uint32_t mtu = 0;  ///< 0 = the device's
    std::uint32_t mss = 0;  ///< what TCP announces; 0 = by the MTU

    friend bool operator==(const host_route&, const host_route&) = default;
};

class host_routes {
  public:
    /// Of our rules and routes, in the field that says who made them.
    static constexpr std::uint8_t protocol = 0xe5;

    /// table   of the routes; not one of the kernel's own.  Errors: those of socket(2).
    [[nodiscard]] static result<host_routes> open(std::uint32_t table);

    /// Makes `wanted` all rules of ours from priority `first` to `last`.  On the way there is no
    /// moment without those that stay.
    ///
    /// Errors: EAFNOSUPPORT, EOPNOTSUPP where the kernel has not the family; EPERM.
    [[nodiscard]] result<void> set_rules(ipsec::family family, std::uint32_t first,
                                         std::uint32_t last, const std::vector<host_rule>& wanted);

    /// Reads what the table has of ours: left by an earlier process, or gone with a device.
    [[nodiscard]] result<void> read();
    /// What it had when read, and what became of it since.
    [[nodiscard]] const std::map<host_prefix, host_route>& there() const noexcept { return there_; }

    /// From now on the way to `where`.  Errors: EINVAL for a source that is no address of the
    /// machine; ENETDOWN, ENODEV.  What was there then stays, and a `device` stays blocked.
    [[nodiscard]] result<void> put(const host_prefix& where, const host_route& route);
    /// Nothing is there then: whatever other rules say.
    [[nodiscard]] result<void> remove(const host_prefix& where);

    /// How the kernel sends to `destination` what carries `mark`.  Errors: ENETUNREACH.
    [[nodiscard]] result<host_route> way_to(const ipsec::address& destination, std::uint32_t mark);

  private:
    explicit host_routes(route_socket socket, std::uint32_t table)
        : socket_(std::move(socket))
        , table_(table) {}

    template <typename Take>
    [[nodiscard]] result<void> ask(int type, unsigned flags, std::span<const std::byte> body,
                                   const std::string& what, Take take);
    [[nodiscard]] result<void> tell(int type, unsigned flags, std::span<const std::byte> body,
                                    const std::string& what);
    [[nodiscard]] result<std::vector<host_rule>> rules(ipsec::family family, std::uint32_t first,
                                                       std::uint32_t last);
    [[nodiscard]] result<void> read(ipsec::family family);
    [[nodiscard]] result<void> block(const host_prefix& where);
    [[nodiscard]] result<void> withdraw(const host_prefix& where, bool barrier);

    route_socket socket_;
    std::uint32_t table_;
    std::map<host_prefix, host_route> there_;
    std::set<host_prefix> blocked_; ///< those with an unreachable route behind
};

} // namespace esplane::xfrm
