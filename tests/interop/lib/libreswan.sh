# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Stock libreswan: pluto under `esplane run`, so that it programs esplaned.
#
# Stands on gateway.sh and unpacked.sh.

LIBRESWAN_PACKAGES=(libreswan libldns3 libunbound8 libevent-core-2.1-7 libevent-pthreads-2.1-7
    libnss3 libnspr4 libnss3-tools libcurl3-nss libldap-2.5-0 libcap-ng0 libaudit1 libselinux1)
LIBRESWAN_LATEST=usr/libexec/ipsec/pluto
PLUTO_WORDS=/usr/libexec/ipsec

# libreswan_fetch DIRECTORY
libreswan_fetch() {
    unpacked_fetch "$1" "$LIBRESWAN_LATEST" "${LIBRESWAN_PACKAGES[@]}"
}

# pluto_start NODE: with ipsec.conf and ipsec.secrets of its directory, $SANDBOX/pluto-NODE.
declare -A PLUTO_PID
pluto_start() {
    local directory=$SANDBOX/pluto-$1
    mkdir -p "$directory/nss"
    certutil -N -d "sql:$directory/nss" --empty-password || return
    # Its child addconn and its scripts look for the configuration and the control socket there.
    ip netns exec "$1" unshare --mount sh -c '
        mount -t tmpfs tmpfs /run
        mkdir -p /run/pluto
        exec "$@"' pluto \
        "$ESPLANE" --run-dir "$(run_dir "$1")" run -- \
        "$PLUTO_WORDS/pluto" --nofork --stderrlog --leak-detective \
        --config "$directory/ipsec.conf" --secretsfile "$directory/ipsec.secrets" \
        --nssdir "$directory/nss" --rundir "$directory" >"$directory/pluto.log" 2>&1 &
    PLUTO_PID[$1]=$!
    if ! await 20 whack "$1" --status; then
        echo "pluto of $1 did not start:"
        tail -n 20 "$directory/pluto.log"
        return 1
    fi
}

# whack NODE ARGUMENT...
whack() {
    in_ns "$1" "$PLUTO_WORDS/whack" --rundir "$SANDBOX/pluto-$1" "${@:2}"
}

# pluto_add NODE CONNECTION: of its ipsec.conf.
pluto_add() {
    local directory=$SANDBOX/pluto-$1
    in_ns "$1" "$PLUTO_WORDS/addconn" --config "$directory/ipsec.conf" \
        --ctlsocket "$directory/pluto.ctl" "$2"
}

# pluto_stop NODE
pluto_stop() {
    local pid=${PLUTO_PID[$1]}
    unset "PLUTO_PID[$1]"
    whack "$1" --shutdown
    wait "$pid"
}
