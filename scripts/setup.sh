#!/bin/sh
# Installs what gnomon needs on Debian 12 or newer, from Debian's own packages, and only what is missing.
#   scripts/setup.sh         what building and running need
#   scripts/setup.sh test    also what `make test` needs
# Asks nothing. Needs root or sudo only if something is missing.
set -eu
cd "$(dirname "$0")/.."

# libdpdk-dev brings DPDK with all its drivers, clang and libclang read its headers for the bindings.
BUILD="libdpdk-dev pkg-config gcc libc6-dev clang libclang-dev ca-certificates"
# What the tests look at gnomon with: traffic, captures, network namespaces, system calls.
TEST="git python3 python3-venv iproute2 ethtool iputils-ping curl iperf3 nmap tcpdump dnsmasq-base bind9-dnsutils strace tshark nfdump
    prometheus"

fail() {
    echo "setup: $*" >&2
    exit 1
}

# The compiler that Cargo.toml asks for.
oldest_rust() {
    sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml
}

# True when the program $1 is there and its version is at least $2.
is_at_least() {
    have=$("$1" --version 2>/dev/null | sed -n 's/^[a-z]* \([0-9][0-9.]*\).*/\1/p')
    [ -n "$have" ] && [ "$(printf '%s\n%s\n' "$2" "$have" | sort -V | head -n 1)" = "$2" ]
}

has_rust() {
    is_at_least cargo "$(oldest_rust)" && is_at_least rustc "$(oldest_rust)"
}

is_installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing() {
    for package in $BUILD; do
        # A DPDK built by hand, found through PKG_CONFIG_PATH, does as well.
        if [ "$package" = libdpdk-dev ] && pkg-config --atleast-version 22.11 libdpdk 2>/dev/null; then continue; fi
        is_installed "$package" || echo "$package"
    done
    # Debian 12 and 13 have newer compilers beside their first one, for the sake of browsers: packages *-web.
    has_rust || echo "rustc-web cargo-web"
    [ "$1" = test ] || return 0
    for package in $TEST; do
        is_installed "$package" || echo "$package"
    done
    # Formatter and linter come from where the compiler comes from.
    if ! has_rust || is_installed cargo-web; then
        is_installed rustfmt-web || echo rustfmt-web
        is_installed rust-web-clippy || echo rust-web-clippy
    elif ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
        fail "cargo fmt or cargo clippy is missing beside your cargo; with rustup: rustup component add rustfmt clippy"
    fi
}

install() {
    command -v apt-get >/dev/null || fail "no apt-get here; install by hand what stands for: $*"
    root=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "not root and no sudo; as root run: apt-get install $*"
        root=sudo
    fi
    echo "setup: installing $*"
    $root env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    # shellcheck disable=SC2086 # $root is one word or none
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

packages=$(missing "${1:-build}")
# shellcheck disable=SC2086 # a list
set -- $packages
[ $# -eq 0 ] || install "$@"
has_rust || fail "cargo and rustc $(oldest_rust) or newer are needed. Debian 12 and 13 have them in their security updates
       (deb http://deb.debian.org/debian-security bookworm-security main); elsewhere install them your usual way."
