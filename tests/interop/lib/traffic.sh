# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Traffic between the hosts of topology.sh.

LIB=$(dirname "${BASH_SOURCE[0]}")

# host_address NODE FAMILY
host_address() {
    case $1$2 in
    h14) echo 10.1.0.10 ;;
    h24) echo 10.2.0.10 ;;
    h16) echo fd01::10 ;;
    h26) echo fd02::10 ;;
    esac
}

# reachable FROM ADDRESS [OPTION...]: three pings, all answered.
reachable() {
    in_ns "$1" ping -q -c 3 -i 0.2 -W 2 "${@:3}" "$2"
}

# Both ways, both families, also with frames that fill the MTU.
all_reachable() {
    local from to family
    for from in h1 h2; do
        [[ $from == h1 ]] && to=h2 || to=h1
        for family in 4 6; do
            reachable "$from" "$(host_address "$to" "$family")" || return 1
        done
    done
}

# By their addresses on the wire between them.
gateways_reach_each_other() {
    reachable g1 192.168.77.2 && reachable g1 fd77::2
}

# unreachable FROM ADDRESS [OPTION...]: not one of three pings is answered.
unreachable() {
    not_answered "$1" -c 3 -i 0.2 -W 1 "${@:3}" "$2"
}

# numbered_start FROM TO FAMILY COUNT [RATE]: numbered packets from host to host at 2,000/s, or RATE,
# in the background.  numbered_wait FROM TO FAMILY ends with 0 if each came exactly once, and prints what
# came.
declare -A NUMBERED_PID
numbered_start() {
    local flow=$1-$2-$3 to port=700$3
    to=$(host_address "$2" "$3")
    ip netns exec "$2" "$LIB/numbered.py" receive "$to" --count "$4" --port "$port" \
        >"$SANDBOX/$flow.json" 2>/dev/null &
    NUMBERED_PID[$flow]=$!
    await 20 bound "$2" "$port"
    ip netns exec "$1" "$LIB/numbered.py" send "$to" --count "$4" --rate "${5:-2000}" --port "$port" &
}

numbered_wait() {
    local flow=$1-$2-$3 status=0
    wait "${NUMBERED_PID[$flow]}" || status=$?
    cat "$SANDBOX/$flow.json"
    return "$status"
}

# throughput ADDRESS: three seconds of TCP from h1 to h2; iperf3's JSON.
throughput() {
    ip netns exec h2 iperf3 --server --one-off >/dev/null 2>&1 &
    local server=$!
    await 5 listening h2 5201
    in_ns h1 timeout 20 iperf3 --client "$1" --time 3 --connect-timeout 5000 --json || {
        kill "$server"
        return 1
    }
    wait "$server"
}

# listening NODE PORT (TCP), bound NODE PORT (UDP): somebody waits for packets there.
listening() {
    in_ns "$1" ss -Htln "sport = :$2" | grep -q .
}

bound() {
    in_ns "$1" ss -Huln "sport = :$2" | grep -q .
}
