"""`python -m tests.mutants`: take safeguards away one at a time and see that the tests of each notice.

Exits with 0 only when every mutant was killed: each of its tests failed. A test that cannot be collected, or that runs
into its time limit, kills nothing.
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.catalogue import Mutant, mutants
from tests.mutants.trial import Outcome, tried
from tests.services import run, shared


def main() -> int:
    """Run the mutants that were asked for, several at a time, in a directory that the guard removes."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description="See which tests hold each safeguard.")
    parser.add_argument("only", nargs="*", help="areas, or area/name; every mutant when none is given")
    parser.add_argument("--at-once", type=int, default=(os.cpu_count() or 1) + 1, help="how many run beside each other")
    parser.add_argument("--json", type=Path, default=None, help="where to write what came of each")
    options = parser.parse_args()
    chosen = _chosen(mutants(), options.only)
    if not chosen:
        parser.error("no mutant has this area or name")
    guard = run.begin()
    try:
        shared.begin()
        with ThreadPoolExecutor(options.at_once) as pool:
            outcomes = list(pool.map(_shown, chosen))
    finally:
        left = 0 if guard is None else run.end(guard)
    if options.json is not None:
        options.json.write_text(json.dumps([_as_json(outcome) for outcome in outcomes], indent=2) + "\n")
    print(_table(outcomes))
    alive = [outcome for outcome in outcomes if outcome.mutant.tests and not outcome.killed]
    return int(bool(alive) or left > 0)


def _chosen(every: Sequence[Mutant], only: Sequence[str]) -> list[Mutant]:
    return [one for one in every if not only or one.area in only or f"{one.area}/{one.name}" in only]


def _shown(mutant: Mutant) -> Outcome:
    outcome = tried(mutant)
    if mutant.redundant is None:
        print(_line(outcome), flush=True)
    return outcome


def _line(outcome: Outcome) -> str:
    mutant = outcome.mutant
    verdict = "killed" if outcome.killed else "ALIVE "
    lines = [f"{verdict} {outcome.seconds:5.1f} s  {mutant.area}/{mutant.name}: {mutant.promise}"]
    if not outcome.killed:
        lines += (f"         passed all the same: {test}" for test in outcome.passed)
        lines += (f"         {line}" for line in (outcome.trouble or "").splitlines()[-15:])
    return "\n".join(lines)


def _table(outcomes: Sequence[Outcome]) -> str:
    every, killed, tests, redundant = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    for outcome in outcomes:
        area = outcome.mutant.area
        every[area] += 1
        killed[area] += outcome.killed
        redundant[area] += outcome.mutant.redundant is not None
        tests[area] += len(outcome.failed)
    rows = [(area, every[area], killed[area], redundant[area], tests[area]) for area in sorted(every)]
    rows.append(("all", every.total(), killed.total(), redundant.total(), tests.total()))
    head = f"{'area':16} {'mutants':>8} {'killed':>8} {'redundant':>10} {'tests':>8}"
    return "\n".join([head, *(f"{a:16} {m:8} {k:8} {r:10} {t:8}" for a, m, k, r, t in rows)])


def _as_json(outcome: Outcome) -> dict[str, object]:
    mutant = outcome.mutant
    return {
        "mutant": f"{mutant.area}/{mutant.name}",
        "promise": mutant.promise,
        "killed": outcome.killed,
        "redundant": mutant.redundant,
        "failed": outcome.failed,
        "passed": outcome.passed,
        "trouble": outcome.trouble,
        "seconds": round(outcome.seconds, 1),
    }


if __name__ == "__main__":
    sys.exit(main())
