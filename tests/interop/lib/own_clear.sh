# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What g1 itself must neither send nor be sent in clear, all the while:
#
#   g1 10.1.0.1 ---- clear UDP, an `out` policy protects it ----> h2, past [ capture ]
#   h1 ---- clear UDP, an `in` policy protects it ----> 10.1.0.1 g1
#
# What g1 sends shows in the capture (wire.py), what reaches its stack is counted here.

OWN_CLEAR_RATE=5000
OWN_CLEAR_PORT=7777

# own_clear_policy: the `in` policy, beside those of tunnels_up.
own_clear_policy() {
    echo "xfrm policy update src 10.1.0.0/24 dst 10.1.0.1/32 proto udp dport $OWN_CLEAR_PORT" \
        "dir in priority 1000" \
        "tmpl src 192.168.77.2 dst 192.168.77.1 proto esp reqid 4 mode tunnel" | ip_xfrm g1
}

# own_clear_start SECONDS: both, for so long.
own_clear_start() {
    local count=$((OWN_CLEAR_RATE * $1))
    ip netns exec g1 "$LIB/numbered.py" receive 10.1.0.1 --count "$count" \
        --port "$OWN_CLEAR_PORT" --first-within "$1" >"$SANDBOX/own_clear.json" 2>/dev/null &
    OWN_CLEAR_PID=$!
    await 20 bound g1 "$OWN_CLEAR_PORT"
    own_clear_send h1 10.1.0.1 "$count"
    own_clear_send g1 10.2.0.10 "$count" --from 10.1.0.1
}

# own_clear_send NODE ADDRESS COUNT [OPTION...]
own_clear_send() {
    ip netns exec "$1" "$LIB/numbered.py" send "$2" --count "$3" --rate "$OWN_CLEAR_RATE" \
        --port "$OWN_CLEAR_PORT" "${@:4}" &
}

# own_clear_none: when the time is over; nothing has reached g1's stack.
own_clear_none() {
    wait "$OWN_CLEAR_PID" || true
    cat "$SANDBOX/own_clear.json"
    [[ $(json_sum received <"$SANDBOX/own_clear.json") == 0 ]]
}
