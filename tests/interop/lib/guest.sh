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
