# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Two hosts, two gateways, and a bridge in the middle of the wire to capture on: an AF_XDP sender
# is invisible to a capture on its own device.
#
#   h1 eth0 ------ lan g1 wan ------ to-g1 [mid: bridge] to-g2 ------ wan g2 lan ------ eth0 h2
#   10.1.0.10  10.1.0.1 192.168.77.1                        192.168.77.2 10.2.0.1  10.2.0.10
#   fd01::10     fd01::1    fd77::1                            fd77::2    fd02::1   fd02::10
#
# All MTUs are 1500; all devices have two queues, as AF_XDP wants as many rx as the peer has tx.
# To be used in a sandbox (sandbox.sh), which takes everything down.

NODES=(h1 g1 mid g2 h2)

topology_up() {
    local node
    for node in "${NODES[@]}"; do
        ip netns add "$node"
        in_ns "$node" sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad'
        ip -n "$node" link set lo up
    done
    wire h1 eth0 g1 lan
    wire g1 wan mid to-g1
    wire g2 wan mid to-g2
    wire h2 eth0 g2 lan
    bridge_up

    address h1 eth0 10.1.0.10/24 fd01::10/64
    address g1 lan 10.1.0.1/24 fd01::1/64
    address g1 wan 192.168.77.1/24 fd77::1/64
    address g2 wan 192.168.77.2/24 fd77::2/64
    address g2 lan 10.2.0.1/24 fd02::1/64
    address h2 eth0 10.2.0.10/24 fd02::10/64

    route h1 default 10.1.0.1 fd01::1
    route h2 default 10.2.0.1 fd02::1
    gateway g1 10.2.0.0/24 192.168.77.2 fd02::/64 fd77::2
    gateway g2 10.1.0.0/24 192.168.77.1 fd01::/64 fd77::1
}

topology_drawing() {
    cat <<'END'
    h1 ------- g1 ===== [ bridge ] ===== g2 ------- h2
 10.1.0.10   esplaned    capture      esplaned   10.2.0.10
  fd01::10   192.168.77.1     192.168.77.2       fd02::10
             fd77::1               fd77::2
END
}

# in_ns NODE COMMAND...
in_ns() {
    local node=$1
    shift
    ip netns exec "$node" "$@"
}

# wire NODE DEVICE NODE DEVICE
wire() {
    local queues=(numtxqueues 2 numrxqueues 2)
    ip link add name "$2" netns "$1" mtu 1500 "${queues[@]}" \
        type veth peer name "$4" netns "$3" mtu 1500 "${queues[@]}"
    ip -n "$1" link set "$2" up
    ip -n "$3" link set "$4" up
}

# The bridge has no addresses, and says nothing by itself.
bridge_up() {
    in_ns mid sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'
    ip -n mid link add name br0 type bridge mcast_snooping 0
    ip -n mid link set to-g1 master br0
    ip -n mid link set to-g2 master br0
    ip -n mid link set br0 up
}

# address NODE DEVICE IPV4 IPV6
address() {
    ip -n "$1" addr add "$3" dev "$2"
    ip -n "$1" addr add "$4" dev "$2" nodad
}

# route NODE default IPV4 IPV6
route() {
    ip -n "$1" route add default via "$3"
    ip -n "$1" -6 route add default via "$4"
}

# gateway NODE NET4 VIA4 NET6 VIA6
gateway() {
    in_ns "$1" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward
                      echo 1 > /proc/sys/net/ipv6/conf/all/forwarding'
    ip -n "$1" route add "$2" via "$3"
    ip -n "$1" -6 route add "$4" via "$5"
}

# programs NODE: the devices and queueing disciplines of NODE that hold an XDP or a tc program, a
# line each; fails where it cannot look.
programs() {
    local links disciplines
    links=$(ip -n "$1" -d link show) && disciplines=$(tc -n "$1" qdisc show) || return 1
    [[ -n $links && -n $disciplines ]] || return 1
    grep -E 'xdp|clsact' <<<"$links"$'\n'"$disciplines" || true
}

has_programs() {
    local found
    found=$(programs "$1") && [[ $found == *xdp* && $found == *clsact* ]]
}

has_no_programs() {
    local found
    found=$(programs "$1") || return
    [[ -z $found ]] || {
        echo "$found"
        return 1
    }
}

# not_answered NODE PING-ARGUMENT...: ping sends and gets no answer; fails too where it cannot send.
not_answered() {
    local said status=0
    said=$(in_ns "$1" ping -q "${@:2}" 2>&1) || status=$?
    echo "$said"
    [[ $status == 1 && $said == *" 0 received"* ]]
}

# await SECONDS COMMAND...: runs COMMAND until it succeeds, at most that long.
await() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# capture_start FILE [DEVICE [NODE]]: every frame on the wire between the gateways, its first 128
# bytes; at the bridge's end to g1, or at DEVICE.
# AppArmor lets tcpdump write to files that end in .pcap.
capture_start() {
    : >"$SANDBOX/tcpdump.log" # of the capture before: it would answer at once
    ip netns exec "${3:-mid}" tcpdump -i "${2:-to-g1}" -n -s 128 -B 131072 -Z root -w "$1" 2>"$SANDBOX/tcpdump.log" &
    CAPTURE_PID=$!
    CAPTURE_FILE=$1
    await 10 grep -q 'listening on' "$SANDBOX/tcpdump.log"
}

# Waits until tcpdump has written what it saw, then ends it.
capture_stop() {
    local before=-1 now
    now=$(stat -c %s "$CAPTURE_FILE")
    while [[ $now != "$before" ]]; do
        sleep 1
        before=$now
        now=$(stat -c %s "$CAPTURE_FILE")
    done
    kill -INT "$CAPTURE_PID"
    wait "$CAPTURE_PID" || true
}
