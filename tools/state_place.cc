// SPDX-License-Identifier: Apache-2.0
#include "tools/state_place.h"

#include <algorithm>
#include <array>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <linux/magic.h>
#include <optional>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>
#include <utility>

#include <systemd/sd-daemon.h>

namespace esplane::tools {

namespace {

constexpr mode_t owner_alone = S_IRUSR | S_IWUSR;

std::size_t index_of(state_part p) {
    return static_cast<std::size_t>(p);
}

std::string directory_of(const std::string& path) {
    const auto slash = path.rfind('/');
    if (slash == std::string::npos) return ".";
    return slash == 0 ? "/" : path.substr(0, slash);
}

result<void> check_owner(int fd, const std::string& path) {
    struct stat st {};
    if (::fstat(fd, &st) != 0) return fail_errno(path);
    const bool mine = st.st_uid == ::geteuid() && (st.st_mode & (S_IRWXG | S_IRWXO)) == 0;
    if (!S_ISREG(st.st_mode)) return fail(EINVAL, path + ": not a file: name another with --state");
    if (!mine || st.st_nlink != 1)
        return fail(EPERM, path + ": must be this user's alone (mode 0600, one name): move it away "
                                  "or name another with --state");
    return {};
}

std::string mark_in(const std::string& run_dir) {
    return run_dir + "/state.name";
}

class named_files final : public state_place {
  public:
    named_files(std::string log, std::string live)
        : paths_{std::move(log), std::move(live)} {}

    result<unique_fd> find(state_part p) override {
        const std::string& path = paths_[index_of(p)];
        unique_fd fd(::open(path.c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK));
        if (!fd.valid() && errno == ENOENT) return unique_fd();
        if (!fd.valid()) return fail_errno(path);
        if (auto ours = check_owner(fd.get(), path); !ours) return tl::unexpected(ours.error());
        return fd;
    }
    result<unique_fd> create(state_part p) override {
        if (p == state_part::live) return nameless();
        const std::string path = fresh(p);
        ::unlink(path.c_str()); // of a daemon that did not come so far as to put it
        unique_fd fd(
            ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, owner_alone));
        if (!fd.valid()) return fail_errno(path);
        return fd;
    }
    result<void> put(state_part p, int fd) override {
        if (p == state_part::live)
            if (auto named = give_name(fd); !named) return named;
        if (::rename(fresh(p).c_str(), paths_[index_of(p)].c_str()) != 0)
            return fail_errno(paths_[index_of(p)]);
        return {};
    }
    void drop(state_part p) override {
        ::unlink(paths_[index_of(p)].c_str());
        ::unlink(fresh(p).c_str());
    }
    std::string name() const override { return paths_[index_of(state_part::log)]; }
    bool on_disk() const override { return !is_in_memory(directory_of(name())); }

  private:
    [[nodiscard]] std::string fresh(state_part p) const { return paths_[index_of(p)] + ".new"; }
    /// Live numbers are made while another daemon is at work, and maybe a third one starts: until
    /// they are put nobody else can mean them.
    [[nodiscard]] result<unique_fd> nameless() const {
        const std::string in = directory_of(paths_[index_of(state_part::live)]);
        unique_fd fd(::open(in.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, owner_alone));
        if (!fd.valid()) return fail_errno(in);
        return fd;
    }
    [[nodiscard]] result<void> give_name(int fd) const {
        const std::string path = fresh(state_part::live);
        const std::string self = "/proc/self/fd/" + std::to_string(fd);
        ::unlink(path.c_str());
        if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) != 0)
            return fail_errno(path);
        return {};
    }

    std::array<std::string, 2> paths_;
};

constexpr std::array<const char*, 2> kept_names{"esplane-log", "esplane-live"};

/// By the clock, where that does not go back: whoever does not know the numbers of the one before
/// finds the latest all the same.
std::uint64_t now_ns() {
    timespec t{};
    ::clock_gettime(CLOCK_REALTIME, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(t.tv_nsec);
}

/// The name says which is the latest: a file is in the store before the one it replaces is taken
/// out.
class kept_files final : public state_place {
  public:
    explicit kept_files(const std::string& token) {
        if (std::sscanf(token.c_str(), "%" SCNu64 " %" SCNu64, &numbers_[0], &numbers_[1]) == 2)
            return;
        char** names = nullptr;
        const int n = ::sd_listen_fds_with_names(1, &names);
        for (int i = 0; i < n; ++i)
            adopt(unique_fd(SD_LISTEN_FDS_START + i), names[i]);
        for (int i = 0; i < n; ++i)
            std::free(names[i]);
        std::free(names);
    }

    result<unique_fd> find(state_part p) override { return std::move(found_[index_of(p)]); }
    result<unique_fd> create(state_part p) override {
        unique_fd fd(::memfd_create(kept_names[index_of(p)], MFD_CLOEXEC));
        if (!fd.valid()) return fail_errno("--state memory");
        ::fchmod(fd.get(), owner_alone);
        return fd;
    }
    result<void> put(state_part p, int fd) override {
        std::uint64_t& number = numbers_[index_of(p)];
        const std::uint64_t next = std::max(number + 1, now_ns());
        const std::string store = "FDSTORE=1\nFDNAME=" + stored_name(p, next);
        if (::sd_pid_notify_with_fds(0, 0, store.c_str(), &fd, 1) <= 0)
            return fail(EIO, "--state memory: the service manager does not take the file");
        if (const std::uint64_t before = std::exchange(number, next); before != 0)
            remove(p, before);
        return {};
    }
    void drop(state_part p) override {
        if (numbers_[index_of(p)] != 0) remove(p, numbers_[index_of(p)]);
    }
    std::string token() const override {
        return std::to_string(numbers_[0]) + " " + std::to_string(numbers_[1]);
    }
    std::string name() const override { return "state of the service manager's"; }
    bool on_disk() const override { return false; }

  private:
    static std::string stored_name(state_part p, std::uint64_t number) {
        return std::string(kept_names[index_of(p)]) + "." + std::to_string(number);
    }
    static void remove(state_part p, std::uint64_t number) {
        ::sd_notify(0, ("FDSTOREREMOVE=1\nFDNAME=" + stored_name(p, number)).c_str());
    }
    void adopt(unique_fd fd, const std::string& name) {
        ::fcntl(fd.get(), F_SETFD, FD_CLOEXEC);
        for (std::size_t i = 0; i < kept_names.size(); ++i) {
            const std::string start = std::string(kept_names[i]) + ".";
            if (name.compare(0, start.size(), start) != 0) continue;
            const std::uint64_t number = std::strtoull(name.c_str() + start.size(), nullptr, 10);
            const auto part = static_cast<state_part>(i);
            if (number <= numbers_[i]) return remove(part, number);
            if (numbers_[i] != 0) remove(part, numbers_[i]);
            numbers_[i] = number;
            found_[i] = std::move(fd);
            return;
        }
    }

    std::array<unique_fd, 2> found_;
    std::array<std::uint64_t, 2> numbers_{}; ///< of what the store holds; 0: nothing
};

class handed_files final : public state_place {
  public:
    handed_files(unique_fd log, unique_fd live, std::unique_ptr<state_place> beneath)
        : handed_{std::move(log), std::move(live)}
        , beneath_(std::move(beneath)) {}

    result<unique_fd> find(state_part p) override { return std::move(handed_[index_of(p)]); }
    result<unique_fd> create(state_part p) override { return beneath_->create(p); }
    result<void> put(state_part p, int fd) override { return beneath_->put(p, fd); }
    void drop(state_part p) override { beneath_->drop(p); }
    std::string name() const override { return beneath_->name(); }
    bool on_disk() const override { return beneath_->on_disk(); }
    sync_function sync() const override { return beneath_->sync(); }
    std::string token() const override { return beneath_->token(); }

  private:
    std::array<unique_fd, 2> handed_;
    std::unique_ptr<state_place> beneath_;
};

} // namespace

sync_function state_place::sync() const {
    return ::fdatasync;
}

bool is_in_memory(const std::string& directory) {
    struct statfs s {};
    return ::statfs(directory.c_str(), &s) == 0 &&
           (s.f_type == TMPFS_MAGIC || s.f_type == RAMFS_MAGIC);
}

result<std::unique_ptr<state_place>> named_place(const std::string& run_dir,
                                                 const std::string& log_path) {
    const std::string log = log_path.empty() ? run_dir + "/state" : log_path;
    if (is_in_memory(run_dir)) return std::make_unique<named_files>(log, run_dir + "/live");
    if (is_in_memory(directory_of(log))) return std::make_unique<named_files>(log, log + ".live");
    return fail(ENODEV, "--state: " + run_dir +
                            " is not in memory: name a --run-dir on a tmpfs, "
                            "as /run is, or give --state off");
}

result<void> mark_state(const std::string& run_dir, const state_name& name) {
    const std::string path = mark_in(run_dir);
    ::unlink(path.c_str());
    const unique_fd fd(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, owner_alone));
    if (!fd.valid() || ::write(fd.get(), name.data(), name.size()) != std::ssize(name))
        return fail_errno(path);
    return {};
}

bool is_marked(const std::string& run_dir, const state_name& name) {
    state_name found;
    const unique_fd fd(::open(mark_in(run_dir).c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC));
    return fd.valid() && ::read(fd.get(), found.data(), found.size()) == std::ssize(found) &&
           found == name;
}

void forget_state(const std::string& run_dir) {
    ::unlink(mark_in(run_dir).c_str());
    named_files files(run_dir + "/state", run_dir + "/live");
    for (const state_part p : {state_part::log, state_part::live})
        files.drop(p);
}

result<std::unique_ptr<state_place>> kept_place(const std::string& token) {
    if (std::getenv("NOTIFY_SOCKET") == nullptr)
        return fail(ENOTSUP, "--state memory: no service manager to keep it (NOTIFY_SOCKET): start "
                             "esplaned as a service with FileDescriptorStoreMax=8, or leave "
                             "--state out");
    return std::make_unique<kept_files>(token);
}

std::unique_ptr<state_place> handed_place(unique_fd log, unique_fd live,
                                          std::unique_ptr<state_place> beneath) {
    return std::make_unique<handed_files>(std::move(log), std::move(live), std::move(beneath));
}

} // namespace esplane::tools
