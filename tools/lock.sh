#!/usr/bin/env bash
# Regenerate requirements.txt and requirements-dev.txt from pyproject.toml, and bench/requirements.txt from
# bench/requirements.in: every package pinned, every file hashed.
#
#   tools/lock.sh PYTHON      PYTHON has pip-tools; `make lock` makes one
#
# Only the ordinary package index is asked: a local index or wheel folder in pip's settings would put hashes in the lock
# that other machines never see.
set -euo pipefail
python=$1
cd "$(dirname "$0")/.."

unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_NO_INDEX PIP_CONSTRAINT PIP_REQUIREMENT
export PIP_CONFIG_FILE=/dev/null

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Extras stay in the lock: pip before 23.3 takes `name[extra]` for another package than `name==version`, picks the newest
# release for it, and then refuses that release, because it has no hash here.
compile() {
    "$python" -m piptools compile --quiet --no-config --generate-hashes --no-strip-extras --allow-unsafe \
        --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@"
}

# The build backend and what it needs for an editable install belong to the lock: the project is installed without
# build isolation, so that nothing unpinned is ever downloaded.
compile --all-build-deps --output-file "$work/runtime.txt" pyproject.toml

"$python" - >"$work/dev.in" <<'PYTHON'
import tomllib
from pathlib import Path

print("\n".join(tomllib.loads(Path("pyproject.toml").read_text())["dependency-groups"]["dev"]))
PYTHON
compile --output-file "$work/dev.txt" "$work/runtime.txt" "$work/dev.in"

compile --output-file "$work/bench.txt" bench/requirements.in

{
    echo "# What runs Chiffon, and what builds it. Made by \`make lock\` from pyproject.toml; do not edit."
    cat "$work/runtime.txt"
} >requirements.txt
{
    echo "# requirements.txt and the tools of the dev group. Made by \`make lock\` from pyproject.toml; do not edit."
    cat "$work/dev.txt"
} >requirements-dev.txt
{
    echo "# The environment of \`make bench\`. Made by \`make lock\` from bench/requirements.in; do not edit."
    cat "$work/bench.txt"
} >bench/requirements.txt
