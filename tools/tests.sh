#!/usr/bin/env bash
# Run all tests in three groups side by side, each with services of its own. Most of the time a test waits for a process,
# a lease or an outage, so one after another would take three times as long. Usage: tools/tests.sh PYTHON
#
# A test that failed while the others took the processors is tried once more, alone. Both outcomes are shown; what fails
# again has failed.
set -uo pipefail

python=$1
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
processes=()
names=()

run() { # run NAME PATH...
    local name=$1
    shift
    # What takes longest is shown, so that it is seen when it grows.
    "$python" -m pytest -o cache_dir="$logs/cache-$name" --durations=15 "$@" </dev/null
}

group() { # group NAME PATH...: start to run some tests
    run "$@" >"$logs/$1" 2>&1 &
    processes+=($!)
    names+=("$1")
}

faults=(tests/chaos tests/exploration tests/contract tests/integration/agents)
system=(tests/fuzz tests/integration/system)

group faults "${faults[@]}"
group system "${system[@]}"
# Whatever is in no other group, so that no test is left out.
group parts tests "${faults[@]/#/--ignore=}" "${system[@]/#/--ignore=}"

again=()
for index in "${!processes[@]}"; do
    wait "${processes[$index]}" || again+=("${names[$index]}")
    echo "--- ${names[$index]}"
    cat "$logs/${names[$index]}"
done

status=0
for name in "${again[@]}"; do
    echo "--- $name, what failed, alone"
    case $name in
        faults) run "$name" --last-failed "${faults[@]}" || status=1 ;;
        system) run "$name" --last-failed "${system[@]}" || status=1 ;;
        parts) run "$name" --last-failed tests "${faults[@]/#/--ignore=}" "${system[@]/#/--ignore=}" || status=1 ;;
    esac
done
exit $status
