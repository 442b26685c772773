#!/bin/sh
# Install Debian packages, asking nothing and starting no services: sh scripts/apt-install.sh PACKAGE...
set -eu

policy=/usr/sbin/policy-rc.d

if ! command -v apt-get >/dev/null 2>&1; then
    echo "There is no apt-get here: please install what Debian calls $*, then try again." >&2
    exit 1
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null 2>&1; then
    as_root() { sudo "$@"; }
else
    echo "Please run as root, then try again: apt-get install $*" >&2
    exit 1
fi

echo "Installing $*" >&2

# With this file in place, Debian starts no service it installs.
if [ ! -e "$policy" ]; then
    trap 'as_root rm -f "$policy"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
fi

# The lists may be missing or old; one repository out of reach need not matter.
as_root apt-get update -qq || true
as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=120 "$@" >&2
