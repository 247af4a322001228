# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What every scene of two gateways starts from, and how a test says what it saw.
#
#   ESPLANE_BUILD   the build directory; default: build/ of this checkout

SCENE_LIB=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
export ESPLANE_BUILD=${ESPLANE_BUILD:-$(readlink -f "$SCENE_LIB/../../../build")}
for part in need sandbox topology gateway traffic unpacked ike; do
    # shellcheck disable=SC1090  # the files beside this one
    source "$SCENE_LIB/$part.sh"
done

# scene_enter "$0" "$@": skips where something is missing, else goes on in a sandbox.
scene_enter() {
    if [[ -z ${SANDBOX:-} ]]; then
        need_scene
    fi
    sandbox_enter "$@"
}

need_scene() {
    need_root
    need_command ip iproute2
    need_command tcpdump tcpdump
    need_command ping iputils-ping
    need_command iperf3 iperf3
    need_kernel
    need_esplane
}

# check SENTENCE COMMAND...: says whether the sentence is true.  What COMMAND says is shown only
# if it is false.
CHECKS_FAILED=0
CHECK_OUTPUT=${SANDBOX:-${TMPDIR:-/tmp}}/check.$$
check() {
    local sentence=$1
    shift
    if "$@" >"$CHECK_OUTPUT" 2>&1; then
        echo "ok      $sentence"
    else
        echo "FAILED  $sentence"
        tail -n 40 "$CHECK_OUTPUT" | sed 's/^/        /'
        CHECKS_FAILED=$((CHECKS_FAILED + 1))
    fi
}

# finish: the test's exit status; with the daemons' last words if something failed.
finish() {
    if [[ $CHECKS_FAILED != 0 && -n ${SANDBOX:-} ]]; then
        tail -n 10 "$SANDBOX"/*.log "$SANDBOX"/charon-*/charon.log 2>/dev/null || true
    fi
    exit $((CHECKS_FAILED > 0))
}
