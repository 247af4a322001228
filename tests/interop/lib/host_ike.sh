# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Gateways whose esplane has no NIC of its own, each with a stock charon that is given any
# connections.
#
#         charon <-------------- IKE --------------> charon
#            |                                          |
#   h1 ---- g1 - ipsec0 - esplane - sockets === ESP === g2 ---- h2
#
# Stands on gateway.sh, ike.sh and hosts.sh.

STRONGSWAN_PLUGINS="pem pkcs1 x509 pubkey $STRONGSWAN_PLUGINS"
declare -A CONNECTIONS

# host_charon NODE BACKEND: BACKEND is esplane, which runs on NODE, or libipsec: kernel-libipsec.
# CONNECTIONS[NODE]: its swanctl.conf, but for the secret.
host_charon() {
    local directory=$SANDBOX/charon-$1 under=()
    mkdir -p "$directory"
    [[ $2 != esplane ]] || under=("$ESPLANE" --run-dir "$(run_dir "$1")" run --)
    host_charon_settings "$directory" "$2" >"$directory/strongswan.conf"
    [[ -s $SANDBOX/psk ]] || random_hex 16 >"$SANDBOX/psk"
    cat >"$directory/swanctl.conf" <<END
connections {
${CONNECTIONS[$1]}
}
secrets {
    ike-all {
        secret = "$(cat "$SANDBOX/psk")"
    }
}
END
    charon_launch "$1" "${under[@]}"
}

# host_charon_stop NODE
host_charon_stop() {
    local pid=${CHARON_PID[$1]}
    unset "CHARON_PID[$1]"
    kill "$pid"
    wait "$pid"
}

# connection NAME HERE THERE LINE...: its child of the same name has the lines from stdin; LINEs are
# added to the connection, and override.
connection() {
    cat <<END
$1 {
    version = 2
    local_addrs = 192.168.77.$2
    remote_addrs = 192.168.77.$3
    proposals = aes128-sha256-x25519
    local {
        auth = psk
        id = $1-$2
    }
    remote {
        auth = psk
        id = $1-$3
    }
    children {
        $1 {
            esp_proposals = aes128gcm16
$(cat)
        }
    }
$(printf '%s\n' "${@:4}")
}
END
}

# between LOCAL REMOTE LINE...: a child of these networks.
between() {
    printf '%s\n' "local_ts = $1" "remote_ts = $2" "${@:3}"
}

# initiated NAME: from g1.
initiated() {
    swanctl_of g1 --initiate --child "$1" --timeout 10
}

# terminated NAME: and no SA is left at either end.
terminated() {
    swanctl_of g1 --terminate --ike "$1" --timeout 10 && await 5 no_sas
}

no_sas() {
    [[ $(sa_count g1) == 0 && $(sa_count g2) == 0 ]]
}

# sa_count NODE: 0 where no esplane runs.
sa_count() {
    [[ -n ${ESPLANED_PID[$1]:-} ]] || {
        echo 0
        return
    }
    esplane "$1" sa --json | json_length sas
}

# sa_modes NODE: mode and encapsulation of its SAs, each kind once.
sa_modes() {
    esplane "$1" sa --json | /usr/bin/python3 -c '
import json, sys
for kind in sorted({(sa["mode"], bool(sa["encapsulation"])) for sa in json.load(sys.stdin)["sas"]}):
    print(kind[0], "udp" if kind[1] else "raw")'
}
