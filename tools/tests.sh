#!/usr/bin/env bash
# Run all tests in three groups side by side, each with services of its own. Most of the time a test waits for a process,
# a lease or an outage, so one after another would take three times as long. Usage: tools/tests.sh PYTHON
set -uo pipefail

python=$1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
processes=()
names=()

group() { # group NAME PATH...: start to run some tests
    local name=$1
    shift
    "$python" -m pytest "$@" >"$logs/$name" 2>&1 </dev/null &
    processes+=($!)
    names+=("$name")
}

faults=(tests/chaos tests/exploration)
system=(tests/acceptance tests/contract tests/fuzz tests/integration/system tests/integration/agents)

group faults "${faults[@]}"
group system "${system[@]}"
# Whatever is in no other group, so that no test is left out.
group parts tests "${faults[@]/#/--ignore=}" "${system[@]/#/--ignore=}"

status=0
for index in "${!processes[@]}"; do
    wait "${processes[$index]}" || status=1
    echo "--- ${names[$index]}"
    cat "$logs/${names[$index]}"
done
exit $status
