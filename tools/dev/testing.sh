# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# What tools/check and dev/deep share: a build, its tests, and the file of results that
# dev/tally.py adds up.
#
#   CHECK_BUILD   the build directory; everything stays below it

TOP=$(dirname "$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")")
CHECK_BUILD=$TOP/build
WORK=$CHECK_BUILD/check
TALLY=$TOP/tools/dev/tally.py

# record VERDICT NAME [REASON]: one line of results.
record() {
    printf '%s\t%s\t%s\n' "$1" "$2" "${3:-}" >>"$RESULTS"
}

# configure DIRECTORY OPTION...
configure() {
    local again=() strict=false
    [[ ! -f $1/build.ninja ]] || again=(--reconfigure)
    [[ ${CI:-} != true ]] || strict=true
    step "configuring ${1#"$TOP"/}" \
        meson setup "${again[@]}" "$1" "$TOP" -Dwerror=$strict "${@:2}"
}

# build_in DIRECTORY NAME
build_in() {
    step "building ${1#"$TOP"/}" ninja -C "$1" && record pass "$2" && return
    record fail "$2" "see $PROGRESS_LOG"
    return 1
}

# tests_in BUILD PREFIX OPTION...: runs `meson test`, and adds its cases to the results.
tests_in() {
    local reports=$WORK/gtest$2
    rm -rf "$reports"
    GTEST_OUTPUT=xml:$reports/ in_group \
        meson test -C "$1" --no-rebuild --print-errorlogs --timeout-multiplier 3 "${@:3}" || true
    "$TALLY" meson "$1" "$reports" "$2" >>"$RESULTS"
}

# command_in NAME COMMAND...: runs it, and adds its cases to the results.
command_in() {
    local name=$1 status=0 log=$WORK/$1.log
    shift
    step "$name" tee_to "$log" "$@" || status=$?
    "$TALLY" output "$name" "$status" <"$log" >>"$RESULTS"
}

tee_to() {
    "${@:2}" 2>&1 | tee "$1"
}
