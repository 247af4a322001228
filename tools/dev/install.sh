# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Installs Debian packages, those that are missing only.

# packages_of GROUP...: the packages of these groups in the list beside this file.
packages_of() {
    awk -v groups=" $* " '
        /^#/ { next }
        /:$/ { wanted = index(groups, " " substr($0, 1, length - 1) " ") > 0; next }
        wanted' "$(dirname "${BASH_SOURCE[0]}")/packages" | xargs
}

# missing_of PACKAGE...: those that are not installed.
missing_of() {
    local package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            echo "$package"
    done
}

# install_missing PACKAGE...: apt's talk goes to stdout.  Installs nothing where nothing is missing.
install_missing() {
    local missing
    mapfile -t missing < <(missing_of "$@")
    [[ ${#missing[@]} -gt 0 ]] || return 0
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get install -y --no-install-recommends "${missing[@]}")
    "${apt[@]}" </dev/null || { apt-get update </dev/null && "${apt[@]}" </dev/null; }
}
