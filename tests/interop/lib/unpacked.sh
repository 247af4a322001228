# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Debian's packages, unpacked and not installed: installing an IKE daemon starts it, and excludes
# others.  A sandbox sees them as if they were installed.

# unpacked_fetch DIRECTORY LATEST PACKAGE...: unpacks the packages there, once, whole or not at all.
# LATEST is the file below DIRECTORY that tells whether all are there.
unpacked_fetch() (
    [[ ! -e $1/$2 ]] || exit 0
    mkdir -p "$(dirname "$1")"
    fresh=$(mktemp -d "$1.XXXXXX") || exit
    trap 'rm -rf "$fresh"' EXIT
    trap 'exit 130' INT TERM HUP
    packages_unpack "$fresh" "${@:3}" && [[ -e $fresh/root/$2 ]] || exit
    rm -rf "$1"
    mv -T "$fresh/root" "$1"
)

# packages_unpack DIRECTORY PACKAGE...: into DIRECTORY/root.
packages_unpack() {
    local deb download=(apt-get download -o APT::Sandbox::User=root "${@:2}")
    mkdir "$1/debs" "$1/root" || return
    (cd "$1/debs" && { "${download[@]}" || { apt-get update && "${download[@]}"; }; }) || return
    for deb in "$1"/debs/*.deb; do
        dpkg -x "$deb" "$1/root" || return
    done
}

# unpacked_mount DIRECTORY...: in a sandbox, puts what is unpacked there below /usr.
unpacked_mount() {
    local layers
    layers=$(printf '%s/usr:' "$@")
    mount -t overlay -o "ro,lowerdir=$layers/usr" overlay /usr
}
