// SPDX-License-Identifier: Apache-2.0
//
// What a guard and its port need privileges for: done by this process, or by a helper that has
// them and hands over descriptors.  With the descriptors, all else needs none: filling maps,
// binding sockets, handing frames up.
//
//   CAP_NET_RAW                     AF_XDP sockets
//   CAP_BPF, CAP_NET_ADMIN          loading and attaching the programs
//   CAP_SYS_ADMIN                   finding out whose programs are on a device
//   CAP_NET_ADMIN                   busy polling
//   owner of /run/esplane-locks     reserving devices
//
// Threads: control.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fastpath/xdp/attachment.h"
#include "fastpath/xdp/binding.h"
#include "lib/base/result.h"
#include "lib/base/unique_fd.h"

struct ingress_bpf;
struct egress_bpf;

namespace esplane::fastpath {

/// Maps and programs that a guard works with once they are loaded.
enum class guard_part : std::uint8_t {
    xsks,
    local_addresses,
    encap_ports,
    ingress_config,
    ingress_counters,
    egress_rules,
    mask_banks,
    egress_config,
    egress_counters,
    punt_program,
    cover_xsks, ///< of the programs under cover; `xsks` once more where there is no cover
};
inline constexpr std::size_t guard_part_count = 11;

struct guard_parts {
    int ifindex = 0;
    bool was_guarded = false;      ///< a program of an earlier daemon is on the device
    std::optional<xdp_mode> cover; ///< find_cover(): until attach() they do what they did
    std::array<unique_fd, guard_part_count> descriptors;

    [[nodiscard]] int operator[](guard_part p) const noexcept {
        return descriptors[static_cast<std::size_t>(p)].get();
    }
};

struct guard_attached {
    int ifindex = 0;
    xdp_mode mode = xdp_mode::native;
};

class privileged {
  public:
    virtual ~privileged() = default;

    /// Reserves a device against other daemons and loads its programs.  Nothing is attached yet.
    /// Errors: those of guard::open.
    [[nodiscard]] virtual result<guard_parts> prepare(const std::string& device) = 0;
    /// Attaches the programs of a prepared device, in the place of those of an earlier daemon; to
    /// the device that has its name now.
    /// Errors: ENODEV; EBUSY where a foreign program is there; what the kernel says otherwise.
    [[nodiscard]] virtual result<guard_attached> attach(const std::string& device,
                                                        xdp_wish wish) = 0;
    /// A fresh AF_XDP socket.  busy_poll_us   above 0: it polls its device for so long at a time
    /// Errors: EPERM; EOPNOTSUPP where the kernel has no busy polling.
    [[nodiscard]] virtual result<unique_fd> open_socket(unsigned busy_poll_us) = 0;
    /// Takes the programs off a device; refuses while a daemon has it.
    /// Errors: ENODEV, EBUSY; what the kernel says otherwise.
    [[nodiscard]] virtual result<attachments> release(const std::string& device) = 0;
};

/// This process does it.
class own_privileges final : public privileged {
  public:
    own_privileges();
    ~own_privileges() override;

    [[nodiscard]] result<guard_parts> prepare(const std::string& device) override;
    [[nodiscard]] result<guard_attached> attach(const std::string& device, xdp_wish wish) override;
    [[nodiscard]] result<unique_fd> open_socket(unsigned busy_poll_us) override;
    [[nodiscard]] result<attachments> release(const std::string& device) override;

    /// Loads the programs of so many devices before they are reserved, for prepare() of whichever
    /// instance to take: the kernel's verifier needs long, and another daemon may still be at work.
    /// What cannot be loaded prepare() will name.  That daemon's devices are reserved without
    /// looking for its sockets, which the kernel may yet be closing.
    static void load_ahead(std::size_t devices);

  private:
    struct prepared;
    static std::vector<std::unique_ptr<prepared>>& loaded_ahead();
    std::map<std::string, std::unique_ptr<prepared>> devices_;
};

} // namespace esplane::fastpath
