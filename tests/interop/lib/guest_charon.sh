# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# A gateway with esplane, and a guest kernel with its own IPsec and a stock charon as the peer.
#
#   h1 --- lan g1 wan ===== ESP ===== vec0 guest
#   10.1.0.10    192.168.77.1     192.168.77.2    10.2.0.1
#    fd01::10      fd77::1          fd77::2        fd02::1
#
# Stands on scene.sh and guest.sh.

guest_bed_up() {
    local node
    for node in h1 g1; do
        ip netns add "$node"
        ip -n "$node" link set lo up
    done
    wire h1 eth0 g1 lan
    address h1 eth0 10.1.0.10/24 fd01::10/64
    address g1 lan 10.1.0.1/24 fd01::1/64
    route h1 default 10.1.0.1 fd01::1
    random_hex 16 >"$SANDBOX/psk"
    check "a guest kernel is the neighbour" guest_start g1
    address g1 wan 192.168.77.1/24 fd77::1/64
    gateway g1 10.2.0.0/24 192.168.77.2 fd02::/64 fd77::2
    check "the guest has addresses" guest_configured
    esplaned_start g1
}

# site_connection HERE THERE ID PEER_ID [LINE...]: swanctl.conf with the children from stdin; LINEs
# are added to the connection.
site_connection() {
    cat <<END
connections {
    site {
        version = 2
        local_addrs = 192.168.77.$1
        remote_addrs = 192.168.77.$2
        proposals = aes128-sha256-x25519
        local {
            auth = psk
            id = $3
        }
        remote {
            auth = psk
            id = $4
        }
        children {
$(cat)
        }
$(printf '%s\n' "${@:5}")
    }
}
secrets {
    ike-site {
        secret = "$(cat "$SANDBOX/psk")"
    }
}
END
}

# child NAME LOCAL REMOTE [LINE...]
child() {
    printf '%s\n' "$1 {" "local_ts = $2" "remote_ts = $3" "esp_proposals = aes128gcm16-x25519" \
        "${@:4}" "}"
}

# guest_charon_start PEER_ID [LINE...]: its children from stdin.
guest_charon_start() {
    charon_settings /run "$STRONGSWAN_PLUGINS" "install_routes = no" >"$SANDBOX/guest.conf"
    site_connection 2 1 guest "$@" >"$SANDBOX/swanctl.conf"
    guest "rm -f /run/vici /run/charon.pid;" \
        "STRONGSWAN_CONF=$SANDBOX/guest.conf /usr/lib/ipsec/charon >/run/charon.output 2>&1 &"
    await 10 guest test -S /run/vici
    guest_swanctl --load-all
}

# guest_swanctl ARGUMENT...
guest_swanctl() {
    guest "STRONGSWAN_CONF=$SANDBOX/guest.conf SWANCTL_DIR=$SANDBOX swanctl $*" \
        --uri unix:///run/vici
}

both_reach() {
    reachable h1 10.2.0.1 && guest ping -q -c 3 -i 0.05 -W 2 -I 10.2.0.1 10.1.0.10
}

# rekeyed COMMAND...: and the SPIs are others then.
rekeyed() {
    local before
    before=$(spis)
    "$@" && await 10 spis_other_than "$before"
}

# taken_down COMMAND...: and no SA is left at either end.
taken_down() {
    "$@" && await 10 no_sa_left
}

no_sa_left() {
    [[ $(esplane g1 sa --json | json_length sas) == 0 ]] && [[ -z $(guest ip xfrm state) ]]
}
