# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What a script cannot do without: it says so in one line and exits 77, which meson counts as
# skipped.

skip() {
    echo "skipped: $*"
    exit 77
}

need_root() {
    [[ $(id -u) == 0 ]] || skip "needs root (network namespaces, AF_XDP): run it with sudo"
}

# need_command COMMAND PACKAGE
need_command() {
    command -v "$1" >/dev/null || skip "needs $1: apt-get install $2"
}

# The kernel features the topology and the AF_XDP ports stand on.
need_kernel() {
    local reason
    reason=$(missing_kernel_feature)
    [[ -z $reason ]] || skip "$reason"
}

# strongSwan is laid over /usr.
need_overlay() {
    local reason
    reason=$(missing_overlay)
    [[ -z $reason ]] || skip "$reason"
}

DEBIAN_KERNEL="Debian's kernel has it: apt-get install linux-image-amd64 and boot it"

# Prints one line about the first missing feature and how to get it; nothing if all are there.
missing_kernel_feature() {
    local how=$DEBIAN_KERNEL
    unshare --net true 2>/dev/null ||
        { echo "the kernel or the container allows no network namespaces; $how"; return; }
    unshare --net ip link add name x0 type veth peer name x1 2>/dev/null ||
        { echo "the kernel has no veth devices (CONFIG_VETH); $how"; return; }
    unshare --net ip link add name x0 type bridge 2>/dev/null ||
        { echo "the kernel has no bridge devices (CONFIG_BRIDGE); $how"; return; }
    /usr/bin/python3 -c 'import socket; socket.socket(44, socket.SOCK_RAW, 0)' 2>/dev/null ||
        { echo "the kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS); $how"; return; }
    [[ -e /proc/sys/kernel/unprivileged_bpf_disabled ]] ||
        { echo "the kernel has no bpf system call (CONFIG_BPF_SYSCALL); $how"; return; }
    bpf_program_loads ||
        { echo "root may not load BPF programs here (CAP_BPF, CAP_NET_ADMIN): in a container," \
            "run it privileged"; return; }
    # shellcheck disable=SC2016  # for the inner shell
    unshare --net sh -c 'ip link add name x0 type veth peer name x1 &&
            tc qdisc add dev x0 clsact &&
            tc filter add dev x0 egress bpf bytecode "1,6 0 0 0"' >/dev/null 2>&1 ||
        echo "the kernel has no clsact or no BPF classifier" \
            "(CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_BPF); $how"
}

# Loads `return XDP_PASS` as an XDP program, and lets go of it.
bpf_program_loads() {
    /usr/bin/python3 -c '
import ctypes, struct, sys
instructions = ctypes.create_string_buffer(bytes.fromhex("b700000002000000" "9500000000000000"))
license = ctypes.create_string_buffer(b"GPL")
xdp, sys_bpf, prog_load = 6, 321, 5
attributes = struct.pack("=IIQQ", xdp, 2, ctypes.addressof(instructions),
                         ctypes.addressof(license)).ljust(120, b"\0")
sys.exit(ctypes.CDLL(None).syscall(sys_bpf, prog_load, attributes, 120) < 0)' 2>/dev/null
}

# The same for what only --ike needs.
missing_overlay() {
    unshare --mount mount -t overlay -o ro,lowerdir=/etc:/usr overlay /usr 2>/dev/null ||
        echo "the kernel or the container allows no overlay mounts (CONFIG_OVERLAY_FS):" \
            "modprobe overlay; $DEBIAN_KERNEL"
}
