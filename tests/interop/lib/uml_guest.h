// SPDX-License-Identifier: Apache-2.0
//
// A Linux kernel in user space (user-mode Linux) with the machine's own files underneath, for tests
// that need a real peer: no root, no namespace, no device.
//
//   this process --- socketpair --- vec0 of the guest
//                --- socketpair --- vec1 ...
//   a device --- AF_PACKET ------ the next vec of the guest
//                --- pipes -------- console
//
// Frames on a socketpair are whole Ethernet frames, one a datagram.  The guest ends with this
// object, and with this process however that ends.
// Threads: one.
#pragma once

#include <chrono>
#include <string>
#include <sys/types.h>
#include <vector>

#include "lib/base/result.h"

namespace esplane::tests {

/// A descriptor that closes itself.
class owned_fd {
  public:
    owned_fd() = default;
    explicit owned_fd(int fd)
        : fd_(fd) {}
    owned_fd(owned_fd&& other) noexcept
        : fd_(other.release()) {}
    owned_fd& operator=(owned_fd&& other) noexcept;
    ~owned_fd();
    [[nodiscard]] int get() const noexcept { return fd_; }

  private:
    int release() noexcept;
    int fd_ = -1;
};

/// A directory under $TMPDIR that goes with its owner.
class scratch_directory {
  public:
    explicit scratch_directory(const std::string& prefix);
    ~scratch_directory();
    scratch_directory(const scratch_directory&) = delete;
    scratch_directory& operator=(const scratch_directory&) = delete;
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    /// Writes a file in it; returns the file's path.
    std::string write(const std::string& name, const std::string& content, unsigned mode = 0644);

  private:
    std::string path_;
};

class uml_guest {
  public:
    /// $ESPLANE_UML_KERNEL, else Debian's user-mode-linux.  Errors: ENOENT, with what is missing
    /// and how to get it.
    [[nodiscard]] static result<std::string> find_kernel();

    /// Boots.  The guest runs the shell commands of `script` as root, after /proc, /sys, /dev and
    /// /run are mounted, modules load and links vec0, vec1, ... exist; when the script ends the
    /// guest does.
    ///
    /// scratch   outlives the guest
    /// devices   of this process's namespace: what comes in by them is the guest's, as vecs after
    ///           those of the links; takes CAP_NET_RAW
    /// options   more words of its kernel's command line
    /// Throws std::runtime_error.
    uml_guest(const std::string& kernel, scratch_directory& scratch, unsigned links,
              const std::string& script, const std::vector<std::string>& devices = {},
              const std::vector<std::string>& options = {});
    ~uml_guest();
    uml_guest(const uml_guest&) = delete;
    uml_guest& operator=(const uml_guest&) = delete;

    /// Non-blocking datagram socket: the other end of link `i`.
    [[nodiscard]] int link(unsigned i) const { return links_.at(i).get(); }

    /// Reads the console up to a line equal to `line`; returns what came before it since the last
    /// call.  Throws std::runtime_error with the console's end where the line does not come.
    std::string wait_for(const std::string& line, std::chrono::seconds timeout);
    /// A line on the guest's console input.
    void tell(const std::string& line);

  private:
    void start(const std::string& kernel, scratch_directory& scratch, const std::string& init,
               const std::vector<std::string>& devices, const std::vector<std::string>& options);

    std::vector<owned_fd> links_;
    std::vector<owned_fd> guest_links_; ///< until the guest has them
    owned_fd console_in_;
    owned_fd console_out_;
    std::string console_;
    pid_t pid_ = -1;
};

} // namespace esplane::tests
