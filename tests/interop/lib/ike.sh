# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Stock strongSwan on the gateways: charon under `esplane run`, so that it programs esplaned.
#
# Stands on gateway.sh and unpacked.sh.

STRONGSWAN_PACKAGES=(libstrongswan libstrongswan-standard-plugins strongswan-libcharon
    strongswan-charon strongswan-swanctl libcharon-extra-plugins)
# What of them was added last, to tell whether a directory has all.
STRONGSWAN_LATEST=usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so
STRONGSWAN_PLUGINS="random nonce openssl sha1 sha2 hmac kdf gcm kernel-netlink socket-default vici"

# strongswan_fetch DIRECTORY: unpacks Debian's strongSwan there, once, whole or not at all.
strongswan_fetch() {
    unpacked_fetch "$1" "$STRONGSWAN_LATEST" "${STRONGSWAN_PACKAGES[@]}"
}

# strongswan_mount DIRECTORY: in a sandbox, puts what strongswan_fetch unpacked below /usr.
strongswan_mount() {
    unpacked_mount "$1"
}

# charon_start NODE: NODE is g1 or g2.
charon_start() {
    local directory=$SANDBOX/charon-$1 number=${1#g}
    mkdir -p "$directory"
    charon_settings "$directory" "$STRONGSWAN_PLUGINS" "install_routes = no" \
        >"$directory/strongswan.conf"
    charon_connection "$number" "$((3 - number))" >"$directory/swanctl.conf"
    charon_launch "$1" "$ESPLANE" --run-dir "$(run_dir "$1")" run --
}

# charon_launch NODE [COMMAND...]: by COMMAND if there is one, with what is in the node's directory.
# charon keeps its pid file in /run: each has its own.
declare -A CHARON_PID
charon_launch() {
    local directory=$SANDBOX/charon-$1
    rm -f "$directory/vici" # of an earlier one
    STRONGSWAN_CONF=$directory/strongswan.conf \
        ip netns exec "$1" unshare --mount sh -c '
            mount -t tmpfs tmpfs /run
            exec "$@"' charon \
        "${@:2}" /usr/lib/ipsec/charon >"$directory/output" 2>&1 &
    CHARON_PID[$1]=$!
    if ! await 10 test -S "$directory/vici" ||
        ! swanctl_of "$1" --load-all >"$directory/load" 2>&1; then
        echo "charon of $1 did not start:"
        tail -n 20 "$directory/output" "$directory/charon.log" "$directory/load"
        return 1
    fi
}

# charon_settings DIRECTORY PLUGINS SETTING: strongswan.conf, its sockets and log in DIRECTORY.
charon_settings() {
    cat <<END
charon {
    load = $2
    $3
    plugins {
        vici {
            socket = unix://$1/vici
        }
    }
    filelog {
        log {
            path = $1/charon.log
            default = 1
            flush_line = yes
        }
    }
}
swanctl {
    load = random
}
END
}

# charon_connection HERE THERE: the numbers of the two gateways.
charon_connection() {
    cat <<END
connections {
    site {
        version = 2
        local_addrs = 192.168.77.$1
        remote_addrs = 192.168.77.$2
        proposals = aes128-sha256-x25519
        local {
            auth = psk
            id = g$1
        }
        remote {
            auth = psk
            id = g$2
        }
        children {
            net {
                local_ts = 10.$1.0.0/24
                remote_ts = 10.$2.0.0/24
                esp_proposals = aes128gcm16-x25519
            }
            net6 {
                local_ts = fd0$1::/64
                remote_ts = fd0$2::/64
                esp_proposals = aes128gcm16-x25519
            }
        }
    }
}
secrets {
    ike-sites {
        secret = "$(cat "$SANDBOX/psk")"
    }
}
END
}

# Both charons, and a secret between them that exists nowhere else.
charons_start() {
    random_hex 16 >"$SANDBOX/psk"
    charon_start g1
    charon_start g2
}

# swanctl_of NODE ARGUMENT...
swanctl_of() {
    local directory=$SANDBOX/charon-$1
    STRONGSWAN_CONF=$directory/strongswan.conf SWANCTL_DIR=$directory \
        swanctl "${@:2}" --uri "unix://$directory/vici"
}

charons_stop() {
    local node
    for node in g1 g2; do
        kill "${CHARON_PID[$node]}"
        wait "${CHARON_PID[$node]}" || true
    done
}
