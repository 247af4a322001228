// SPDX-License-Identifier: Apache-2.0
#include "tools/run_dir.h"

#include <algorithm>
#include <fcntl.h>
#include <fstream>
#include <net/if.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <nlohmann/json.hpp>

namespace esplane::tools {

namespace {

using nlohmann::json;

std::string ports_path(const std::string& run_dir) {
    return run_dir + "/ports";
}

/// What is checked is what is used: no name is looked up twice.
result<unique_fd> open_directory(const std::string& run_dir) {
    unique_fd fd(::open(run_dir.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (fd.valid()) return fd;
    if (errno == ENOTDIR || errno == ELOOP)
        return fail(ENOTDIR, run_dir + ": not a directory: name another with --run-dir");
    return fail_errno(run_dir);
}

/// A directory that others may write to would let them put their own sockets in our place.
result<void> check_owner(int directory, const std::string& run_dir) {
    struct stat s {};
    if (::fstat(directory, &s) != 0) return fail_errno(run_dir);
    if (s.st_uid != ::geteuid())
        return fail(EPERM, run_dir + ": belongs to another user: name another with --run-dir");
    if ((s.st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return fail(EPERM, run_dir + ": others may write to it: chmod 700 it or name another "
                                     "with --run-dir");
    return {};
}

result<guarded_device> device_from(const json& j, const std::string& path) {
    const auto text = [&](const char* key) {
        const auto at = j.find(key);
        return at != j.end() && at->is_string() ? at->get<std::string>() : std::string();
    };
    const auto number = [&](const char* key) {
        const auto at = j.find(key);
        return at != j.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : 0;
    };
    const guarded_device d{text("name"),
                           text("kind"),
                           text("device"),
                           static_cast<int>(number("ifindex")),
                           number("network_namespace"),
                           static_cast<std::uint32_t>(number("if_id"))};
    if (d.device.empty() || d.ifindex <= 0)
        return fail(EINVAL, path + ": not a list of devices: was it changed by hand?");
    return d;
}

} // namespace

std::string xfrm_socket_path(const std::string& run_dir) {
    return run_dir + "/xfrm.sock";
}
std::string control_socket_path(const std::string& run_dir) {
    return run_dir + "/control.sock";
}

result<run_lock> run_lock::take(const std::string& run_dir, bool create) {
    if (create && ::mkdir(run_dir.c_str(), 0700) != 0 && errno != EEXIST)
        return fail_errno(run_dir);
    const auto directory = open_directory(run_dir);
    if (!directory) return tl::unexpected(directory.error());
    if (auto owner = check_owner(directory->get(), run_dir); !owner)
        return tl::unexpected(owner.error());
    unique_fd fd(
        ::openat(directory->get(), "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!fd.valid()) return fail_errno(run_dir + "/lock");
    if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return fail_errno(run_dir + "/lock");
        return fail(EBUSY, run_dir + ": another esplaned runs on this directory: stop it or name "
                                     "another with --run-dir");
    }
    return run_lock(std::move(fd));
}

std::uint64_t current_network_namespace() {
    struct stat s {};
    return ::stat("/proc/self/ns/net", &s) == 0 ? s.st_ino : 0;
}

result<std::vector<guarded_device>> read_guarded(const std::string& run_dir) {
    const std::string path = ports_path(run_dir);
    std::ifstream file(path);
    if (!file) {
        if (errno == ENOENT) return std::vector<guarded_device>{};
        return fail_errno(path);
    }
    const json list = json::parse(file, nullptr, false);
    if (!list.is_array())
        return fail(EINVAL, path + ": not a list of devices: was it changed by hand?");
    std::vector<guarded_device> devices;
    for (const json& entry : list) {
        auto device = device_from(entry, path);
        if (!device) return tl::unexpected(device.error());
        devices.push_back(std::move(*device));
    }
    return devices;
}

result<void> write_guarded(const std::string& run_dir, const std::vector<guarded_device>& devices) {
    const std::string path = ports_path(run_dir);
    if (devices.empty()) {
        if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(path);
        return {};
    }
    json list = json::array();
    for (const guarded_device& d : devices) {
        list.push_back({{"name", d.name},
                        {"kind", d.kind},
                        {"device", d.device},
                        {"ifindex", d.ifindex},
                        {"network_namespace", d.network_namespace}});
        if (d.if_id != 0) list.back()["if_id"] = d.if_id;
    }
    const std::string fresh = path + ".new";
    {
        std::ofstream file(fresh, std::ios::trunc);
        file << list.dump() << '\n' << std::flush;
        if (!file) return fail_errno(fresh);
    }
    if (::rename(fresh.c_str(), path.c_str()) != 0) return fail_errno(path);
    return {};
}

std::vector<guarded_device> merge_guarded(std::vector<guarded_device> recorded,
                                          const std::vector<guarded_device>& added) {
    const std::uint64_t here = current_network_namespace();
    std::erase_if(recorded, [&](const guarded_device& old) {
        char name[IF_NAMESIZE];
        if (old.network_namespace == here &&
            ::if_indextoname(static_cast<unsigned>(old.ifindex), name) == nullptr)
            return true;
        return std::any_of(added.begin(), added.end(), [&](const guarded_device& fresh) {
            return fresh.ifindex == old.ifindex && fresh.network_namespace == old.network_namespace;
        });
    });
    recorded.insert(recorded.end(), added.begin(), added.end());
    return recorded;
}

} // namespace esplane::tools
