// SPDX-License-Identifier: Apache-2.0
#include "tests/interop/guard_bed.h"

#include <cerrno>
#include <cstring>
#include <sys/mount.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

namespace esplane::fastpath {

namespace {

void append_ipv4(bytes& b, const shape& s) {
    wire::ipv4_header ip{};
    ip.version_ihl = 0x45;
    ip.total_length.set(static_cast<std::uint16_t>(sizeof ip + s.payload.size()));
    ip.fragment.set(s.fragment);
    ip.ttl = s.hop_limit;
    ip.protocol = s.protocol;
    ip.source = ipsec::address::parse(s.from)->as_v4();
    ip.destination = ipsec::address::parse(s.to)->as_v4();
    append(b, ip);
}

void append_ipv6(bytes& b, const shape& s) {
    wire::ipv6_header ip{};
    ip.version_class_flow.set(0x60000000);
    ip.payload_length.set(static_cast<std::uint16_t>(s.extension.size() + s.payload.size()));
    ip.next_header = s.extension.empty() ? s.protocol : s.extension[0];
    ip.hop_limit = s.hop_limit;
    ip.source = ipsec::address::parse(s.from)->bytes;
    ip.destination = ipsec::address::parse(s.to)->bytes;
    append(b, ip);
    if (s.extension.empty()) return;
    b.push_back(s.protocol);
    b.insert(b.end(), s.extension.begin() + 1, s.extension.end());
}

unique_fd ingress_program(int ifindex) {
    std::uint32_t id = 0;
    EXPECT_EQ(bpf_xdp_query_id(ifindex, 0, &id), 0);
    return unique_fd(bpf_prog_get_fd_by_id(id));
}

/// The guard made the qdisc, so its filter has handle 2.
unique_fd egress_program(int ifindex) {
    bpf_tc_hook hook;
    clear(hook);
    hook.ifindex = ifindex;
    hook.attach_point = BPF_TC_EGRESS;
    bpf_tc_opts filter;
    clear(filter);
    filter.handle = 2;
    filter.priority = 1;
    EXPECT_EQ(bpf_tc_query(&hook, &filter), 0);
    return unique_fd(bpf_prog_get_fd_by_id(filter.prog_id));
}

} // namespace

bytes frame(const shape& s) {
    const bool v6 = s.to.find(':') != std::string::npos;
    bytes b(s.mac.begin(), s.mac.end());
    b.insert(b.end(), {2, 0, 0, 0, 0, 2});
    append(b, wire::be16(v6 ? wire::ethertype_ipv6 : wire::ethertype_ipv4));
    v6 ? append_ipv6(b, s) : append_ipv4(b, s);
    b.insert(b.end(), s.payload.begin(), s.payload.end());
    return b;
}

bytes udp(std::uint16_t source, std::uint16_t destination, const bytes& payload) {
    bytes b;
    append(b, wire::be16(source));
    append(b, wire::be16(destination));
    append(b, wire::be16(static_cast<std::uint16_t>(8 + payload.size())));
    append(b, wire::be16(0));
    b.insert(b.end(), payload.begin(), payload.end());
    return b;
}

bool hide_run() {
    return ::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0 &&
           ::mount("tmpfs", "/run", "tmpfs", 0, "mode=0755") == 0;
}

void GuardPrograms::SetUp() {
    ASSERT_EQ(std::system("ip link add x0 type veth peer name x1 && ip link set x0 up"), 0);
    auto opened = guard::open("x0");
    ASSERT_TRUE(opened) << opened.error().text;
    guard_ = std::move(*opened);
    attach();
}

void GuardPrograms::attach() {
    ASSERT_TRUE(guard_->set_local_addresses(
        std::vector{*ipsec::address::parse("10.1.0.1"), *ipsec::address::parse("fd01::1")}));
    ASSERT_TRUE(guard_->set_encap_ports(std::vector{wire::be16(4500)}));
    ASSERT_TRUE(guard_->attach());
    ingress_ = ingress_program(guard_->ifindex());
    egress_ = egress_program(guard_->ifindex());
}

void GuardPrograms::TearDown() {
    guard_.reset();
    ASSERT_EQ(std::system("ip link del x0"), 0);
}

esplane_ingress_counter GuardPrograms::ingress_frame(const bytes& packet) {
    const auto before = guard_->counters().ingress;
    run(ingress_.get(), packet);
    const auto after = guard_->counters().ingress;
    for (int i = 0; i < esplane_ingress_counters; ++i)
        if (after[static_cast<std::size_t>(i)] != before[static_cast<std::size_t>(i)])
            return static_cast<esplane_ingress_counter>(i);
    return esplane_ingress_counters;
}

std::uint32_t GuardPrograms::run(int program, const bytes& packet) {
    bytes out(packet.size() + 256);
    bpf_test_run_opts options;
    clear(options);
    options.data_in = packet.data();
    options.data_size_in = static_cast<std::uint32_t>(packet.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<std::uint32_t>(out.size());
    options.repeat = 1;
    EXPECT_EQ(bpf_prog_test_run_opts(program, &options), 0) << std::strerror(errno);
    return options.retval;
}

} // namespace esplane::fastpath
