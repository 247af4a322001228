# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Configures a build directory, a new one or one that is there already: what was chosen for it
# before does not stay by chance.

# What users run.  Without AF_XDP there would be no esplaned, and nothing would say so.
# shellcheck disable=SC2034  # for whoever sources this
RELEASE=(--buildtype=release -Daf_xdp=enabled)

# meson_setup DIRECTORY SOURCE OPTION...
meson_setup() {
    local again=()
    [[ ! -f $1/build.ninja ]] || again=(--reconfigure)
    meson setup "${again[@]}" "$@"
}
