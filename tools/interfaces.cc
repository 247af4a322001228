// SPDX-License-Identifier: Apache-2.0
#include "tools/interfaces.h"

#include <algorithm>
#include <charconv>

#include "tools/report.h"
#include "tools/run_dir.h"

namespace esplane::tools {

using nlohmann::json;

namespace {

constexpr const char* kind = "tun";

bool is_ours(const guarded_device& d) {
    return d.kind == kind && d.if_id != 0 && d.network_namespace == current_network_namespace();
}

/// A name, or the number where the device is gone.
std::string name_of(int ifindex) {
    const auto state = fastpath::state_of_tun(ifindex);
    return state ? state->name : "device " + std::to_string(ifindex);
}

std::string with_if_id(const std::string& name, std::uint32_t if_id) {
    return "interface " + name + " (if_id " + std::to_string(if_id) + ")";
}

std::uint64_t number_in(const json& request, const char* key, std::uint64_t otherwise) {
    const auto at = request.find(key);
    return at != request.end() && at->is_number_unsigned() ? at->get<std::uint64_t>() : otherwise;
}

std::string text_in(const json& request, const char* key) {
    const auto at = request.find(key);
    return at != request.end() && at->is_string() ? at->get<std::string>() : std::string();
}

json reply_of(const result<void>& done) {
    return done ? json::object() : json{{"error", done.error().text}};
}

/// Decimal, or hexadecimal with 0x in front.
result<std::uint32_t> parse_number(const std::string& what, const std::string& text) {
    const bool hex = text.starts_with("0x");
    const char* const first = text.data() + (hex ? 2 : 0);
    const char* const last = text.data() + text.size();
    std::uint32_t value = 0;
    const auto [end, failure] = std::from_chars(first, last, value, hex ? 16 : 10);
    if (failure != std::errc() || end != last)
        return fail(EINVAL, what + " " + text + ": must be a number below 4294967296");
    return value;
}

} // namespace

interfaces::interfaces(fastpath::tun_port& port, std::string run_dir, std::function<void()> changed,
                       log l)
    : port_(port)
    , run_dir_(std::move(run_dir))
    , changed_(std::move(changed))
    , log_(std::move(l)) {}

result<void> interfaces::adopt() {
    const auto recorded = read_guarded(run_dir_);
    if (!recorded) return tl::unexpected(recorded.error());
    for (const guarded_device& d : *recorded) {
        if (!is_ours(d)) continue;
        auto device = fastpath::tun::adopt(d.ifindex);
        const auto added =
            device ? port_.add(std::move(*device), d.if_id) : tl::unexpected(device.error());
        if (added) {
            devices_[d.if_id] = d.ifindex;
            continue;
        }
        left_.push_back(d);
        log_(with_if_id(d.device, d.if_id) + " is not taken up again: " + added.error().text);
    }
    if (!devices_.empty()) changed_();
    return {};
}

result<void> interfaces::check_if_id(std::uint32_t if_id) const {
    if (if_id == 0) return fail(EINVAL, "if_id 0 stands for no interface: use 1 to 4294967295");
    if (const auto taken = devices_.find(if_id); taken != devices_.end())
        return fail(EEXIST, "if_id " + std::to_string(if_id) + " is that of " +
                                name_of(taken->second) + ": use another");
    for (const guarded_device& d : left_)
        if (d.if_id == if_id && fastpath::state_of_tun(d.ifindex))
            return fail(EEXIST, "if_id " + std::to_string(if_id) + " is that of " + d.device +
                                    ", which could not be taken up: use another, or delete it "
                                    "(ip link del)");
    return {};
}

/// The record before the routes that the device will have: whatever happens from then on, the next
/// daemon and `esplane release` find it.
result<void> interfaces::add(const std::string& name, std::uint32_t if_id, std::uint32_t mtu) {
    if (auto free = check_if_id(if_id); !free) return free;
    if (mtu < fastpath::tun::smallest_mtu || mtu > fastpath::tun_port::largest_mtu)
        return fail(EINVAL, "mtu " + std::to_string(mtu) + ": must be " +
                                std::to_string(fastpath::tun::smallest_mtu) + " to " +
                                std::to_string(fastpath::tun_port::largest_mtu));
    auto device = fastpath::tun::make(name, mtu);
    if (!device) return tl::unexpected(device.error());
    devices_[if_id] = device->ifindex();
    auto done = record();
    if (done) done = port_.add(std::move(*device), if_id);
    if (!done) {
        (void)fastpath::tun::remove(devices_[if_id]);
        devices_.erase(if_id);
        (void)record();
        return done;
    }
    changed_();
    return {};
}

result<void> interfaces::remove(const std::string& name) {
    const auto found = std::find_if(devices_.begin(), devices_.end(),
                                    [&](const auto& one) { return name_of(one.second) == name; });
    if (found == devices_.end())
        return fail(ENOENT, name + ": no interface of that name: see `esplane interface list`");
    forget(found->first);
    changed_();
    return record();
}

void interfaces::forget(std::uint32_t if_id) {
    port_.remove(if_id);
    devices_.erase(if_id);
}

void interfaces::tend() {
    std::vector<std::uint32_t> gone;
    for (const auto& [if_id, ifindex] : devices_)
        if (!fastpath::state_of_tun(ifindex)) gone.push_back(if_id);
    if (gone.empty()) return;
    for (const std::uint32_t if_id : gone) {
        log_(with_if_id(name_of(devices_[if_id]), if_id) + " was deleted, its routes with it");
        forget(if_id);
    }
    changed_();
    if (auto done = record(); !done) log_(done.error().text);
}

/// Ours anew, where they are there still; those of other namespaces and the guarded devices stay.
result<void> interfaces::record() const {
    auto recorded = read_guarded(run_dir_);
    if (!recorded) return tl::unexpected(recorded.error());
    std::erase_if(*recorded, is_ours);
    for (const auto& [if_id, ifindex] : devices_) {
        const std::string name = name_of(ifindex);
        recorded->push_back({name, kind, name, ifindex, current_network_namespace(), if_id});
    }
    for (const guarded_device& d : left_)
        if (fastpath::state_of_tun(d.ifindex)) recorded->push_back(d);
    return write_guarded(run_dir_, *recorded);
}

std::vector<fastpath::tunnel_binding> interfaces::bindings() const {
    std::vector<fastpath::tunnel_binding> all;
    for (const auto& [if_id, ifindex] : devices_)
        all.push_back({ifindex, if_id});
    return all;
}

json interfaces::report(std::uint32_t from) const {
    json list = json::array();
    json follows = nullptr;
    for (auto at = devices_.lower_bound(from); at != devices_.end(); ++at) {
        if (list.size() == page_size) {
            follows = at->first;
            break;
        }
        const auto state = fastpath::state_of_tun(at->second);
        list.push_back({{"name", name_of(at->second)},
                        {"if_id", at->first},
                        {"ifindex", at->second},
                        {"mtu", state ? json(state->mtu) : json()},
                        {"up", state && state->up}});
    }
    return {{"interfaces", std::move(list)}, {"next", std::move(follows)}};
}

bool interfaces::knows(const json& request) {
    return text_in(request, "command").starts_with("interface");
}

json interfaces::answer(const json& request) {
    constexpr std::uint64_t most = 0xffffffff;
    const std::string command = text_in(request, "command");
    if (command == "interfaces")
        return report(static_cast<std::uint32_t>(std::min(number_in(request, "cursor", 0), most)));
    const std::string name = text_in(request, "name");
    if (command == "interface_del") return reply_of(remove(name));
    if (command != "interface_add") return {{"error", "unknown command \"" + command + '"'}};
    const std::uint64_t if_id = number_in(request, "if_id", 0);
    const std::uint64_t mtu = number_in(request, "mtu", default_mtu);
    if (if_id > most || mtu > most) return {{"error", "if_id and mtu: must be below 4294967296"}};
    return reply_of(add(name, static_cast<std::uint32_t>(if_id), static_cast<std::uint32_t>(mtu)));
}

result<json> parse_interface_request(const std::string& action,
                                     const std::vector<std::string>& words) {
    const bool adds = action == "add";
    const std::string usage = adds ? "interface add NAME if_id N [mtu M]" : "interface del NAME";
    if (words.empty() || (!adds && words.size() != 1) || words.size() % 2 != 1)
        return fail(EINVAL, "say: esplane " + usage);
    json request = {{"command", "interface_" + action}, {"name", words.front()}};
    for (std::size_t i = 1; i < words.size(); i += 2) {
        if (words[i] != "if_id" && words[i] != "mtu")
            return fail(EINVAL, "\"" + words[i] + "\" is not known here: say: esplane " + usage);
        const auto value = parse_number(words[i], words[i + 1]);
        if (!value) return tl::unexpected(value.error());
        request[words[i]] = *value;
    }
    if (adds && !request.contains("if_id"))
        return fail(EINVAL, "an interface needs an if_id: say: esplane " + usage);
    return request;
}

} // namespace esplane::tools
