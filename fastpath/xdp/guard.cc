// SPDX-License-Identifier: Apache-2.0
#include "fastpath/xdp/guard.h"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <iterator>
#include <numeric>

#include <net/if.h>
#include <sys/random.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "fastpath/xdp/device.h"

namespace esplane::fastpath {
namespace {

constexpr std::uint32_t only_entry = 0;

esplane_address map_key(const ipsec::address& a) {
    esplane_address key{};
    if (a.fam == ipsec::family::ipv4) {
        key.word[2] = wire::be32(0xffff).network();
        key.word[3] = a.as_v4().network();
    } else {
        std::memcpy(key.word, a.bytes.data(), sizeof key.word);
    }
    return key;
}

std::uint16_t map_key(wire::be16 port) {
    return port.network();
}

/// The kernel refills its store of map entries behind its users' backs: many entries at once may
/// find it empty for a moment.
int update_patiently(int fd, const void* key, const void* value) {
    constexpr timespec moment{0, 1'000'000};
    int e = bpf_map_update_elem(fd, key, value, BPF_ANY);
    for (int tries = 0; e == -ENOMEM && tries < 200; ++tries) {
        ::nanosleep(&moment, nullptr);
        e = bpf_map_update_elem(fd, key, value, BPF_ANY);
    }
    return e;
}

/// Makes the hash map `fd` hold `wanted`, of which it holds `current`: adds, then removes.
template <typename T>
result<void> make_equal(int fd, std::set<T>& current, std::set<T> wanted, const std::string& what) {
    const std::uint8_t yes = 1;
    for (const T& x : wanted) {
        if (current.contains(x)) continue;
        const auto key = map_key(x);
        if (const int e = update_patiently(fd, &key, &yes); e != 0) return fail_bpf(e, what);
        current.insert(x);
    }
    for (auto at = current.begin(); at != current.end();) {
        if (wanted.contains(*at)) {
            ++at;
            continue;
        }
        const auto key = map_key(*at);
        if (const int e = bpf_map_delete_elem(fd, &key); e != 0) return fail_bpf(e, what);
        at = current.erase(at);
    }
    return {};
}

template <std::size_t N>
void sum_over_cpus(int fd, std::array<std::uint64_t, N>& into) {
    const int cpus = libbpf_num_possible_cpus();
    if (cpus <= 0) return;
    std::vector<std::uint64_t> values(static_cast<std::size_t>(cpus));
    for (std::uint32_t i = 0; i < N; ++i)
        if (bpf_map_lookup_elem(fd, &i, values.data()) == 0)
            into[i] = std::accumulate(values.begin(), values.end(), std::uint64_t{0});
}

/// A random unicast address of the locally administered kind.
wire::mac_address random_mac() {
    wire::mac_address mac{};
    (void)::getrandom(mac.data(), mac.size(), 0);
    mac[0] = static_cast<std::uint8_t>((mac[0] & 0xfc) | 0x02);
    return mac;
}

} // namespace

std::uint64_t guard_counters::denied() const noexcept {
    return egress[esplane_denied_forwarded] + egress[esplane_denied_policy] +
           egress[esplane_denied_unparsed] + egress[esplane_denied_all] +
           egress[esplane_denied_changing];
}

result<std::unique_ptr<guard>> guard::open(const std::string& device,
                                           std::shared_ptr<privileged> means) {
    if (!means) means = std::make_shared<own_privileges>();
    auto parts = means->prepare(device);
    if (!parts) return tl::unexpected(std::move(parts.error()));
    std::unique_ptr<guard> g(new guard(device, std::move(means), std::move(*parts)));
    if (auto begun = g->begin(); !begun) return tl::unexpected(std::move(begun.error()));
    return g;
}

guard::guard(std::string device, std::shared_ptr<privileged> means, guard_parts parts)
    : device_(std::move(device))
    , means_(std::move(means))
    , parts_(std::move(parts))
    , mode_(parts_.cover.value_or(xdp_mode::native))
    , punt_source_(random_mac()) {}

guard::~guard() = default;

/// What an earlier daemon kept in must not come out because nobody has said yet what it was.
result<void> guard::begin() {
    if (!was_guarded()) return {};
    if (auto done = deny_all(); !done) return done;
    return set_take_local(true);
}

result<void> guard::attach(xdp_wish wish) {
    const auto done = means_->attach(device_, wish);
    if (!done) return tl::unexpected(done.error());
    const bool another = done->ifindex != parts_.ifindex;
    parts_.ifindex = done->ifindex;
    mode_ = done->mode;
    if (auto r = configure_ingress(); !r) return r;
    if (!another) return {};
    arrange_rules();
    return follow({});
}

result<void> guard::set_local_addresses(std::span<const ipsec::address> addresses) {
    return make_equal(parts_[guard_part::local_addresses], local_addresses_,
                      std::set(addresses.begin(), addresses.end()),
                      device_ + ": telling the XDP program the machine's addresses");
}

result<void> guard::set_encap_ports(std::span<const wire::be16> ports) {
    return make_equal(parts_[guard_part::encap_ports], encap_ports_,
                      std::set(ports.begin(), ports.end()),
                      device_ + ": telling the XDP program the encapsulation ports");
}

result<void> guard::set_take_local(bool take) {
    take_local_ = take;
    return configure_ingress();
}

result<void> guard::configure_ingress() {
    esplane_ingress_config config{};
    config.take_local = take_local_;
    config.recognise_punted = mode_ == xdp_mode::generic;
    std::memcpy(config.punted_source, punt_source_.data(), punt_source_.size());
    if (const int e =
            bpf_map_update_elem(parts_[guard_part::ingress_config], &only_entry, &config, BPF_ANY);
        e != 0)
        return fail_bpf(e, device_ + ": configuring the XDP program");
    return {};
}

result<void> guard::configure_egress(bool deny_all) {
    denies_all_ = deny_all;
    const esplane_egress_config config{deny_all, generation_};
    if (const int e =
            bpf_map_update_elem(parts_[guard_part::egress_config], &only_entry, &config, BPF_ANY);
        e != 0)
        return fail_bpf(e, device_ + ": configuring the egress filter");
    return {};
}

result<void> guard::deny_all() {
    told_to_deny_ = true;
    maps_follow_ = false;
    return configure_egress(true);
}

result<void> guard::obey_policies() {
    told_to_deny_ = false;
    return follow({});
}

result<void> guard::set_out_policies(std::span<const egress_rule> rules) {
    policies_.clear();
    for (const egress_rule& r : rules)
        policies_.emplace(r.rank(), r);
    arrange_rules();
    return obey_policies();
}

result<void> guard::add_out_policy(const egress_rule& r) {
    policies_.emplace(r.rank(), r);
    return follow(rules_.insert(r));
}

result<void> guard::remove_out_policy(const egress_rule& r) {
    const auto [first, last] = policies_.equal_range(r.rank());
    const auto at =
        std::find_if(first, last, [&](const auto& one) { return one.second.sel == r.sel; });
    if (at == last) return {};
    policies_.erase(at);
    return follow(rules_.erase(r));
}

result<void> guard::set_vlan_devices(std::span<const egress_device> devices) {
    if (std::equal(devices.begin(), devices.end(), vlan_devices_.begin(), vlan_devices_.end()))
        return {};
    vlan_devices_.assign(devices.begin(), devices.end());
    arrange_rules();
    return follow({});
}

/// For the devices there are now; the maps are to be written whole.
void guard::arrange_rules() {
    std::vector<egress_device> devices{{ifindex(), {}}};
    devices.insert(devices.end(), vlan_devices_.begin(), vlan_devices_.end());
    rules_ = egress_rule_space(std::move(devices));
    for (const auto& [rank, r] : policies_)
        (void)rules_.insert(r);
    maps_follow_ = false;
}

/// Brings the maps to what rules_ says, of which `change` is the last step.
result<void> guard::follow(const egress_change& change) {
    if (told_to_deny_) return {};
    if (const auto room = rules_.fits(); !room) {
        if (denies_all_ && !maps_follow_) return {}; // and that was told
        return close_on(room.error());
    }
    const auto done = maps_follow_ ? apply(change) : install();
    if (!done) return close_on(done.error());
    return {};
}

result<void> guard::close_on(const error& why) {
    maps_follow_ = false;
    (void)configure_egress(true);
    return fail(why.code,
                device_ + ": " + why.text + "; until then all IP from this machine is dropped");
}

/// A mask is there before its rules and goes after them.
result<void> guard::apply(const egress_change& change) {
    if (change.masks_before)
        if (auto r = write_masks(); !r) return r;
    for (const egress_entry& e : change.puts) {
        esplane_rule_key key = e.key;
        key.generation = rules_number_;
        if (const int code = update_patiently(parts_[guard_part::egress_rules], &key, &e.rule);
            code != 0)
            return fail_bpf(code, "filling in an egress rule");
    }
    for (esplane_rule_key key : change.drops) {
        key.generation = rules_number_;
        if (const int code = bpf_map_delete_elem(parts_[guard_part::egress_rules], &key); code != 0)
            return fail_bpf(code, "taking out an egress rule");
    }
    return change.masks_after ? write_masks() : result<void>();
}

/// 1. The rules, beside those in force.
/// 2. The masks, in the bank that is not in use, and its number: from here on the new are in force.
/// 3. The old rules go.
result<void> guard::install() {
    rules_.renumber();
    const std::uint32_t next = rules_number_ + 1;
    if (auto r = write_rules(next); !r) {
        remove_rules_but(rules_number_);
        return r;
    }
    rules_number_ = next;
    if (auto r = write_masks(); !r) return r;
    remove_rules_but(rules_number_);
    maps_follow_ = true;
    return {};
}

/// A packet that the masks before were used for is not let out by them once the number is another.
result<void> guard::write_masks() {
    const std::uint32_t next = generation_ + 1;
    const std::uint32_t bank = next & 1;
    esplane_mask_bank masks = rules_.masks();
    masks.rules = rules_number_;
    if (const int e = bpf_map_update_elem(parts_[guard_part::mask_banks], &bank, &masks, BPF_ANY);
        e != 0)
        return fail_bpf(e, "filling the masks of the egress rules");
    generation_ = next;
    return configure_egress(false);
}

result<void> guard::write_rules(std::uint32_t rules) {
    std::vector<esplane_rule_key> keys;
    std::vector<esplane_rule> values;
    for (const egress_entry& e : rules_.entries()) {
        keys.push_back(e.key);
        keys.back().generation = rules;
        values.push_back(e.rule);
    }
    auto count = static_cast<std::uint32_t>(keys.size());
    const int e = bpf_map_update_batch(parts_[guard_part::egress_rules], keys.data(), values.data(),
                                       &count, nullptr);
    if (e == 0) return {};
    return fail_bpf(e, "filling in " + std::to_string(keys.size()) + " egress rules");
}

/// Those of other generations go.
void guard::remove_rules_but(std::uint32_t rules) {
    const int fd = parts_[guard_part::egress_rules];
    std::vector<esplane_rule_key> gone;
    esplane_rule_key key{};
    for (const void* from = nullptr; bpf_map_get_next_key(fd, from, &key) == 0; from = &key)
        if (key.generation != rules) gone.push_back(key);
    auto count = static_cast<std::uint32_t>(gone.size());
    if (count != 0) (void)bpf_map_delete_batch(fd, gone.data(), &count, nullptr);
}

/// Until attach() the programs of the daemon before give it packets too; in generic mode they would
/// take them again when they are handed up.
result<void> guard::hold(std::uint32_t queue, int socket) {
    for (const guard_part map : {guard_part::xsks, guard_part::cover_xsks}) {
        if (map == guard_part::cover_xsks && mode_ == xdp_mode::generic) continue;
        if (const int e = bpf_map_update_elem(parts_[map], &queue, &socket, BPF_ANY); e != 0)
            return fail_bpf(e,
                            device_ + ": giving queue " + std::to_string(queue) + " to its socket");
    }
    return {};
}

guard_counters guard::counters() const {
    guard_counters c;
    sum_over_cpus(parts_[guard_part::ingress_counters], c.ingress);
    sum_over_cpus(parts_[guard_part::egress_counters], c.egress);
    return c;
}

result<attachments> guard::release(const std::string& device) {
    return own_privileges().release(device);
}

std::vector<std::string> guard::guarded_devices() {
    silence_bpf_libraries();
    std::vector<std::string> found;
    struct if_nameindex* const all = ::if_nameindex();
    for (auto* i = all; i != nullptr && i->if_index != 0; ++i) {
        const attachments a = find_attachments(static_cast<int>(i->if_index));
        if (a.ingress || a.egress) found.emplace_back(i->if_name);
    }
    if (all != nullptr) ::if_freenameindex(all);
    return found;
}

} // namespace esplane::fastpath
