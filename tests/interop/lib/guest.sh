# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A guest kernel beside a node, commanded by uml_peer.
#
#   NODE wan ------ eth0 [peer: no address] ------ vec0 guest
#
# Stands on topology.sh.

UML_PEER=$ESPLANE_BUILD/tests/interop/uml_peer

need_guest_kernel() {
    [[ -x $UML_PEER ]] || skip "needs $UML_PEER: ninja -C $ESPLANE_BUILD tests/interop/uml_peer"
    [[ -x ${ESPLANE_UML_KERNEL:-/usr/bin/linux.uml} ]] ||
        skip "no guest kernel: apt-get install user-mode-linux, or name one in ESPLANE_UML_KERNEL"
    need_command ethtool ethtool
}

# guest_start NODE: until it takes commands, on descriptors 8 and 9, which subshells have too.
guest_start() {
    ip netns add peer
    in_ns peer sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'
    wire "$1" wan peer eth0
    # The guest takes packets of the MTU, as from a NIC; those to the node are merged, as by one.
    in_ns "$1" ethtool -K wan tx-udp-segmentation off tso off gso off gro on
    in_ns peer ethtool -K eth0 tso off
    mkfifo "$SANDBOX/to-guest" "$SANDBOX/from-guest"
    ip netns exec peer "$UML_PEER" eth0 <"$SANDBOX/to-guest" >"$SANDBOX/from-guest" \
        2>"$SANDBOX/uml_peer.log" &
    exec 9>"$SANDBOX/to-guest" 8<"$SANDBOX/from-guest"
    guest_answer 60
}

# guest COMMAND...: as a shell in the guest reads it; its output and status.
guest() {
    echo "$*" >&9
    guest_answer 120
}

# guest_answer SECONDS
guest_answer() {
    local line
    while IFS= read -r -t "$1" -u 8 line; do
        [[ $line =~ ^status\ ([0-9]+)$ ]] && return "${BASH_REMATCH[1]}"
        echo "$line"
    done
    echo "the guest says nothing"
    tail -n 5 "$SANDBOX/uml_peer.log"
    return 1
}

# guest_configured: 10.2.0.1 and fd02::1 in the guest, which has 10.1.0.0/24 and fd01::/64 behind its
# neighbour, 192.168.77.1 and fd77::1.
guest_configured() {
    cat >"$SANDBOX/guest.batch" <<END
link set lo up
link set vec0 up
addr add 192.168.77.2/24 dev vec0
addr add fd77::2/64 dev vec0 nodad
addr add 10.2.0.1/32 dev lo
addr add fd02::1/128 dev lo nodad
route add 10.1.0.0/24 via 192.168.77.1 src 10.2.0.1
route add fd01::/64 via fd77::1 src fd02::1
END
    guest ip -batch "$SANDBOX/guest.batch"
}

guest_refused_nothing() {
    guest awk "'\$2 != 0 { print; bad = 1 } END { exit bad }'" /proc/net/xfrm_stat
}
