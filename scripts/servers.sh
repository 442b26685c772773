#!/bin/sh
# Install those of the servers the tests start which are missing, and openssl, which makes a certificate for one.
set -eu

has() {
    command -v "$1" >/dev/null 2>&1
}

has_postgresql() {
    # Debian keeps the server's programs out of PATH.
    for initdb in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$initdb" ] && return
    done
    has initdb
}

set --
has openssl || set -- "$@" openssl
has memcached || set -- "$@" memcached
has redis-server || set -- "$@" redis-server
has_postgresql || set -- "$@" postgresql
has mariadbd || set -- "$@" mariadb-server

[ $# -eq 0 ] || sh "$(dirname "$0")/apt-install.sh" "$@"
