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

# Prints one line about the first missing feature and how to get it; nothing if all are there.
missing_kernel_feature() {
    local how="Debian's kernel has it: apt-get install linux-image-amd64 and boot it"
    unshare --net true 2>/dev/null ||
        { echo "the kernel or the container allows no network namespaces; $how"; return; }
    unshare --net ip link add name x0 type veth peer name x1 2>/dev/null ||
        { echo "the kernel has no veth devices (CONFIG_VETH); $how"; return; }
    unshare --net ip link add name x0 type bridge 2>/dev/null ||
        { echo "the kernel has no bridge devices (CONFIG_BRIDGE); $how"; return; }
    /usr/bin/python3 -c 'import socket; socket.socket(44, socket.SOCK_RAW, 0)' 2>/dev/null ||
        { echo "the kernel has no AF_XDP sockets (CONFIG_XDP_SOCKETS); $how"; return; }
    [[ -e /proc/sys/kernel/unprivileged_bpf_disabled ]] ||
        echo "the kernel has no bpf system call (CONFIG_BPF_SYSCALL); $how"
}
