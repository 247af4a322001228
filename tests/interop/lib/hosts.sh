# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Pairs of hosts that protect what they say to each other: no gateways, no networks behind.
#
#   NAME1                                NAME2
#   lo   10.1.0.1 ~~~~~ protected ~~~~~~ 10.2.0.1 lo
#        10.1.1.1 ~~~~~ protected ~~~~~~ 10.2.1.1
#   eth0 192.0.2.1 -------- wire ------- 192.0.2.2 eth0
#
# Several pairs may stand side by side, with the same addresses.  Stands on gateway.sh and ike.sh.

# pair_up NAME
pair_up() {
    local node
    for node in "$1"1 "$1"2; do
        ip netns add "$node"
        ip -n "$node" link set lo up
        ip -n "$node" addr add "10.${node: -1}.0.1/32" dev lo
        ip -n "$node" addr add "10.${node: -1}.1.1/32" dev lo
    done
    wire "$1"1 eth0 "$1"2 eth0
    ip -n "$1"1 addr add 192.0.2.1/24 dev eth0
    ip -n "$1"2 addr add 192.0.2.2/24 dev eth0
}

# host_esplane_start NODE [PORT]: esplane for what the host itself sends; ESP leaves by PORT, which
# is sockets by default.
host_esplane_start() {
    # shellcheck disable=SC2034  # gateway.sh reads it
    ESPLANED_PORTS[$1]="--port host=tun:ipsec0,role=host --port net=${2:-socket:4500},role=secure"
    esplaned_start "$1"
}

# host_tunnels_up NAME: AES-128-GCM between the pair, 10.x.0.1 with ESP in UDP, 10.x.1.1 without.
host_tunnels_up() {
    local states
    states=$(
        echo "$(state 192.0.2.1 192.0.2.2 0x2000 1) encap espinudp 4500 4500 0.0.0.0"
        echo "$(state 192.0.2.2 192.0.2.1 0x2001 1) encap espinudp 4500 4500 0.0.0.0"
        state 192.0.2.1 192.0.2.2 0x2002 2
        state 192.0.2.2 192.0.2.1 0x2003 2
    )
    {
        echo "$states"
        policies 10.1.0.1/32 10.2.0.1/32 192.0.2.1 192.0.2.2 1
        policies 10.1.1.1/32 10.2.1.1/32 192.0.2.1 192.0.2.2 2
    } | ip_xfrm "$1"1
    {
        echo "$states"
        policies 10.2.0.1/32 10.1.0.1/32 192.0.2.2 192.0.2.1 1
        policies 10.2.1.1/32 10.1.1.1/32 192.0.2.2 192.0.2.1 2
    } | ip_xfrm "$1"2
}

# host_charon_start NODE BACKEND: stock charon with UDP encapsulation; BACKEND: esplane, which runs
# on NODE, or libipsec, which is kernel-libipsec.
host_charon_start() {
    local directory=$SANDBOX/charon-$1 number=${1: -1} under=()
    mkdir -p "$directory"
    [[ $2 != esplane ]] || under=("$ESPLANE" --run-dir "$(run_dir "$1")" run --)
    host_charon_settings "$directory" "$2" >"$directory/strongswan.conf"
    host_charon_connection "$number" "$((3 - number))" >"$directory/swanctl.conf"
    charon_launch "$1" "${under[@]}"
}

# host_charon_settings DIRECTORY BACKEND: esplane's routes are no ways to a peer for charon; routes
# are kernel-libipsec's work with that one, and esplane's with the other.
host_charon_settings() {
    local plugins=$STRONGSWAN_PLUGINS
    [[ $2 != libipsec ]] || plugins=${plugins/kernel-netlink/kernel-libipsec kernel-netlink}
    charon_settings "$1" "$plugins" "ignore_routing_tables = 219"
}

# host_charon_connection HERE THERE
host_charon_connection() {
    cat <<END
connections {
    pair {
        version = 2
        local_addrs = 192.0.2.$1
        remote_addrs = 192.0.2.$2
        encap = yes
        proposals = aes128-sha256-x25519
        local {
            auth = psk
            id = host$1
        }
        remote {
            auth = psk
            id = host$2
        }
        children {
            host {
                local_ts = 10.$1.0.1/32
                remote_ts = 10.$2.0.1/32
                esp_proposals = aes128gcm16
            }
        }
    }
}
secrets {
    ike-pair {
        secret = "$(cat "$SANDBOX/psk")"
    }
}
END
}

# host_charons_start NAME BACKEND: both, and the tunnel.
host_charons_start() {
    [[ -s $SANDBOX/psk ]] || random_hex 16 >"$SANDBOX/psk"
    host_charon_start "$1"1 "$2" && host_charon_start "$1"2 "$2" &&
        swanctl_of "$1"1 --initiate --child host
}
