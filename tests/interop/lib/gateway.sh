# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# esplaned on the gateways of topology.sh, and stock `ip xfrm` to program it.
#
# Stands on topology.sh; ESPLANE_BUILD names the build directory.

ESPLANED=$ESPLANE_BUILD/tools/esplaned
ESPLANE=$ESPLANE_BUILD/tools/esplane

need_esplane() {
    [[ -x $ESPLANED && -x $ESPLANE ]] ||
        skip "needs esplaned and esplane in $ESPLANE_BUILD/tools: ninja -C $ESPLANE_BUILD"
}

need_dpdk() {
    local said
    said=$("$ESPLANED" --port a=dpdk:net_null0 --workers 0 2>&1) || true
    [[ $said != *"no port kind"* ]] ||
        skip "this build has no DPDK ports: apt-get install libdpdk-dev"
}

run_dir() {
    echo "$SANDBOX/$1"
}

# esplaned_start NODE: in the background, until it says that it is ready.  ESPLANED_OPTIONS: more
# for its command line; ESPLANED_PORTS[NODE]: other ports than AF_XDP on lan and wan;
# ESPLANED_STATE: where its SAs and policies survive it, "off" where a scene does not say.
declare -A ESPLANED_PID ESPLANED_PORTS
esplaned_start() {
    local log=$SANDBOX/$1.log
    local ports=${ESPLANED_PORTS[$1]:---port lan=xdp:lan,role=plain --port wan=xdp:wan,role=secure}
    # shellcheck disable=SC2086  # words
    ip netns exec "$1" "$ESPLANED" --run-dir "$(run_dir "$1")" --state "${ESPLANED_STATE:-off}" \
        ${ESPLANED_OPTIONS:-} \
        $ports >"$log" 2>&1 &
    ESPLANED_PID[$1]=$!
    await 30 esplaned_decided "$1" || true
    if ! esplane "$1" status >/dev/null 2>&1; then
        echo "esplaned of $1 did not become ready:"
        tail -n 20 "$log"
        return 1
    fi
}

# It answers, or it is gone.
esplaned_decided() {
    esplane "$1" status || ! kill -0 "${ESPLANED_PID[$1]}"
}

# esplaned_stop NODE [SIGNAL]: returns esplaned's status.
esplaned_stop() {
    local pid=${ESPLANED_PID[$1]}
    kill "-${2:-TERM}" "$pid"
    unset "ESPLANED_PID[$1]"
    wait "$pid"
}

# esplane NODE ARGUMENT...
esplane() {
    in_ns "$1" "$ESPLANE" --run-dir "$(run_dir "$1")" "${@:2}"
}

# ip_xfrm NODE: stock iproute2 against that node's esplaned, commands from stdin, one a line.
ip_xfrm() {
    esplane "$1" run -- ip -batch -
}

# ports_up: all of both gateways.
ports_up() {
    [[ $(esplane g1 ports --json; esplane g2 ports --json) != *'"up": false'* ]]
}

# drops_of NODE REASON
drops_of() {
    esplane "$1" drops --json | /usr/bin/python3 -c '
import json, sys
drops = json.load(sys.stdin)["drops"]
print(sum(d["packets"] for d in drops if d["reason"] == sys.argv[1]))' "$2"
}

# port_is NODE PORT up|down
port_is() {
    esplane "$1" ports --json | /usr/bin/python3 -c '
import json, sys
port, state = sys.argv[1:]
up = {p["name"]: p["up"] for p in json.load(sys.stdin)["ports"]}
sys.exit(up[port] != (state == "up"))' "$2" "$3"
}

random_hex() {
    od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'
}

# tunnels_up SPI: both families, both directions, AES-128-GCM with ESN under fresh keys, on both
# gateways.  SPIs are SPI, +1, +2 and +3.  Called again it replaces SAs and policies;
# a policy is there all the time, so nothing passes in clear between.
tunnels_up() {
    local spi=$(($1)) states
    states=$(
        echo "xfrm state flush"
        state 192.168.77.1 192.168.77.2 "$spi" 4
        state 192.168.77.2 192.168.77.1 "$((spi + 1))" 4
        state fd77::1 fd77::2 "$((spi + 2))" 6
        state fd77::2 fd77::1 "$((spi + 3))" 6
    )
    {
        echo "$states"
        policies 10.1.0.0/24 10.2.0.0/24 192.168.77.1 192.168.77.2 4
        policies fd01::/64 fd02::/64 fd77::1 fd77::2 6
    } | ip_xfrm g1
    {
        echo "$states"
        policies 10.2.0.0/24 10.1.0.0/24 192.168.77.2 192.168.77.1 4
        policies fd02::/64 fd01::/64 fd77::2 fd77::1 6
    } | ip_xfrm g2
}

# state SRC DST SPI REQID: one line of `ip xfrm`.
state() {
    echo "xfrm state add src $1 dst $2 proto esp spi $3 reqid $4 mode tunnel" \
        "replay-window 128 flag esn aead rfc4106(gcm(aes)) 0x$(random_hex 20) 128"
}

# policies NET PEER_NET GATEWAY PEER_GATEWAY REQID: what a gateway sends to the peer's network, and
# lets in from there.
policies() {
    policy out "$1" "$2" "$3" "$4" "$5"
    policy in "$2" "$1" "$4" "$3" "$5"
    policy fwd "$2" "$1" "$4" "$3" "$5"
}

# policy DIRECTION FROM TO OUTER_FROM OUTER_TO REQID: one line of `ip xfrm`.
policy() {
    echo "xfrm policy update src $2 dst $3 dir $1 priority 1000" \
        "tmpl src $4 dst $5 proto esp reqid $6 mode tunnel"
}

# if_id_states SPI IF_ID: SAs from g1 to g2 and, SPI + 1, back, for tunnels by route.
if_id_states() {
    echo "$(state 192.168.77.1 192.168.77.2 "$1" "$2") if_id $2"
    echo "$(state 192.168.77.2 192.168.77.1 "$(($1 + 1))" "$2") if_id $2"
}

# if_id_policies NET PEER_NET GATEWAY PEER_GATEWAY IF_ID
if_id_policies() {
    policies "$@" | sed "s/ tmpl/ if_id $5 tmpl/"
}

# route_tunnel_up SPI IF_ID: IPv4 between the hosts by an interface ipsec0 of g1; g2 has the same SAs
# and policies without if_id.
route_tunnel_up() {
    local states
    states=$(if_id_states "$1" "$2")
    {
        echo "xfrm policy flush"
        echo "xfrm state flush"
        echo "$states"
        if_id_policies 10.1.0.0/24 10.2.0.0/24 192.168.77.1 192.168.77.2 "$2"
    } | ip_xfrm g1
    {
        echo "xfrm state flush"
        echo "${states//if_id $2/}"
        policies 10.2.0.0/24 10.1.0.0/24 192.168.77.2 192.168.77.1 "$2"
    } | ip_xfrm g2
    esplane g1 interface add ipsec0 if_id "$2"
    ip -n g1 route replace 10.2.0.0/24 dev ipsec0
}

# sas_used NODE: how many of its SAs have carried something.
sas_used() {
    esplane "$1" sa --json | /usr/bin/python3 -c '
import json, sys
print(sum(sa["packets"] > 0 for sa in json.load(sys.stdin)["sas"]))'
}

# sas_of NODE: what its SAs are, without what they have carried.
sas_of() {
    esplane "$1" sa --json | /usr/bin/python3 -c '
import json, sys
for sa in json.load(sys.stdin)["sas"]:
    print(sa["spi"], sa["if_id"], sa["add_time"])'
}

# json_sum KEY: the sum of the numbers KEY, at whatever depth of the JSON on stdin.
# json_length KEY: how many elements KEY of the object on stdin has.
json_sum() {
    /usr/bin/python3 -c '
import json, sys
numbers = []
def note(pairs):
    numbers.extend(value for key, value in pairs if key == sys.argv[1])
json.load(sys.stdin, object_pairs_hook=note)
print(sum(numbers))' "$1"
}

json_length() {
    /usr/bin/python3 -c 'import json, sys; print(len(json.load(sys.stdin)[sys.argv[1]]))' "$1"
}

# spis: of the SAs of g1.  spis_other_than BEFORE: those are others now.
spis() {
    esplane g1 sa --json | grep -o '"spi": *[^,}]*'
}

spis_other_than() {
    local now
    now=$(spis) && echo "$now" && [[ $now != "$1" ]]
}
