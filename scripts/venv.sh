#!/bin/sh
# Make a virtual environment: PYTHON=python3 sh scripts/venv.sh FOLDER
set -eu

python=${PYTHON:-python3}
folder=$1

if ! command -v "$python" >/dev/null 2>&1; then
    echo "There is no $python here: install Python 3.10 or newer, or name one with make PYTHON=..." >&2
    exit 1
fi

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    echo "$python is Python $version, but 3.10 or newer is needed: name one with make PYTHON=..." >&2
    exit 1
fi

# Debian has these two in a package of their own.
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    sh "$(dirname "$0")/apt-install.sh" "python$version-venv"
fi

"$python" -m venv --clear "$folder"
