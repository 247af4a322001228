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

# shellcheck source=tools/dev/configure.sh
source "$TOP/tools/dev/configure.sh"

# record VERDICT NAME [REASON]: one line of results.
record() {
    printf '%s\t%s\t%s\n' "$1" "$2" "${3:-}" >>"$RESULTS"
}

# build_in DIRECTORY NAME OPTION...: configures and builds all, or $TARGETS.
build_in() {
    if built "$1" "${@:3}"; then
        record pass "$2"
    else
        record fail "$2" "see $PROGRESS_LOG"
        return 1
    fi
}

# build_joined_in DIRECTORY NAME OPTION...: as build_in, several files of a room compiled as one,
# which takes a third of the time; one by one where two of them call different things by one name.
build_joined_in() {
    if built "$1" "${@:3}" -Dunity=on -Dunity_size=4 -Dcpp_args=-Wno-shadow; then
        record pass "$2"
    else
        build_in "$@" -Dunity=off -Dcpp_args=
    fi
}

built() {
    local directory=$1 strict=false
    [[ ${CI:-} != true ]] || strict=true
    step "configuring ${directory#"$TOP"/}" \
        meson_setup "$directory" "$TOP" -Dwerror=$strict "${@:2}" &&
        step "building ${directory#"$TOP"/}" ninja -C "$directory" ${TARGETS:+"$TARGETS"}
}

# tests_in BUILD PREFIX OPTION...: runs `meson test`, and adds its cases to the results.
tests_in() {
    local reports=$WORK/gtest$2 status=0
    rm -rf "$reports" "$1/meson-logs/testlog.json"
    GTEST_OUTPUT=xml:$reports/ in_group \
        meson test -C "$1" --no-rebuild --print-errorlogs --timeout-multiplier 3 "${@:3}" || status=$?
    "$TALLY" meson "$1" "$reports" "$status" "$2" >>"$RESULTS" ||
        record fail "${2}meson test" "tools/dev/tally.py could not count"
}

# command_in NAME COMMAND...: runs it, and adds its cases to the results.
command_in() {
    local name=$1 status=0 log=$WORK/$1.log
    shift
    step "$name" tee_to "$log" "$@" || status=$?
    "$TALLY" output "$name" "$status" <"$log" >>"$RESULTS" ||
        record fail "$name" "tools/dev/tally.py could not count"
}

tee_to() {
    "${@:2}" 2>&1 | tee "$1"
}
