#!/bin/sh
# Make .venv and install what a lock file names, then this project itself, into it.
#
#   tools/environment.sh requirements.txt
#   tools/environment.sh bench/requirements.txt bench/.venv     another environment, without this project
#
# Needs a Python of 3.11 or later with pip. Debian splits the venv module: without python3-venv the environment is made
# without a pip of its own and the outer pip (22.3 or later) installs into it.
set -eu
lock=$1
cd "$(dirname "$0")/.."
venv=${2:-.venv}

refuse() {
    printf 'chiffon: %s\n' "$@" >&2
    exit 69
}

find_python() {
    for name in ${PYTHON:-python3.11 python3.12 python3.13 python3 python}; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
}

python=$(find_python)
[ -n "$python" ] || refuse "Python 3.11 or later is needed and ${PYTHON:-none on PATH} is not." \
    "On Debian 12: apt-get install python3 python3-venv python3-pip. Or name one: make PYTHON=/path/to/python3.11"

if ! "$venv/bin/python" -c '' >/dev/null 2>&1; then
    rm -rf "$venv"
    echo "Making $venv with $("$python" --version)"
    if "$python" -c 'import ensurepip' >/dev/null 2>&1; then
        "$python" -m venv "$venv"
    elif "$python" -c 'import venv' >/dev/null 2>&1 && "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --without-pip "$venv"
    else
        refuse "$python has neither the whole venv module nor pip." \
            "On Debian 12: apt-get install python3-venv python3-pip"
    fi
fi

install() {
    if "$venv/bin/python" -c 'import pip' >/dev/null 2>&1; then
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    else
        "$python" -m pip --python "$venv/bin/python" install --quiet --disable-pip-version-check "$@"
    fi
}

echo "Installing $lock"
install --require-hashes --requirement "$lock"
[ "$venv" != .venv ] || install --no-deps --no-build-isolation --editable .
