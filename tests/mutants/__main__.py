"""`python -m tests.mutants`: take safeguards away one at a time and see that the tests of each notice.

Exits with 0 only when every mutant was killed: each of its tests failed. A test that cannot be collected, or that runs
into its time limit, kills nothing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.catalogue import REPOSITORY, Mutant, mutants
from tests.services import run, shared

LIMIT_SECONDS = 300
TESTS_FAILED = 1
TIME_LIMIT = "from pytest-timeout"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a mutant: the tests that failed, those that passed all the same, and what else went wrong."""

    mutant: Mutant
    failed: tuple[str, ...]
    passed: tuple[str, ...]
    trouble: str | None
    seconds: float

    @property
    def killed(self) -> bool:
        return self.trouble is None and bool(self.failed) and not self.passed


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
            outcomes = list(pool.map(_try, chosen))
    finally:
        left = 0 if guard is None else run.end(guard)
    if options.json is not None:
        options.json.write_text(json.dumps([_as_json(outcome) for outcome in outcomes], indent=2) + "\n")
    print(_table(outcomes))
    alive = [outcome for outcome in outcomes if outcome.mutant.tests and not outcome.killed]
    return int(bool(alive) or left > 0)


def _chosen(every: Sequence[Mutant], only: Sequence[str]) -> list[Mutant]:
    return [one for one in every if not only or one.area in only or f"{one.area}/{one.name}" in only]


def _try(mutant: Mutant) -> Outcome:
    """Run the tests of a mutant on a copy of `src` that shares every file but the one that is changed."""
    began = time.monotonic()
    if mutant.redundant is not None:
        mutant.apply((REPOSITORY / mutant.file).read_text())
        return Outcome(mutant, (), (), None, 0.0)
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        shutil.copytree(REPOSITORY / "src", folder / "src", copy_function=os.link)
        changed = folder / mutant.file
        source = changed.read_text()
        # A new file: the link would change the original.
        changed.unlink()
        changed.write_text(mutant.apply(source))
        outcome = _run(mutant, folder, began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(_line(outcome), flush=True)
    return outcome


def _run(mutant: Mutant, folder: Path, began: float) -> Outcome:
    report = folder / "report.xml"
    # The plugin of Schemathesis is a third of the time that pytest takes to start; no test here uses it.
    plugins = ("-p", "no:cacheprovider", "-p", "no:schemathesis")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--no-header", f"--junitxml={report}"]
    # The installed package is the unchanged one; what stands here comes before it, in child processes as well.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder / "src"), str(REPOSITORY)))}
    try:
        done = subprocess.run(
            [*command, *mutant.tests],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome(mutant, (), (), f"its tests took more than {LIMIT_SECONDS} s", time.monotonic() - began)
    failed, passed = _verdicts(report, mutant.tests) if done.returncode in (0, TESTS_FAILED) else ((), ())
    trouble = None if done.returncode in (0, TESTS_FAILED) else done.stdout[-2000:] + done.stderr[-2000:]
    return Outcome(mutant, failed, passed, trouble, time.monotonic() - began)


def _verdicts(report: Path, tests: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which tests failed and which passed; a parametrized one failed when one of its cases did."""
    failed = set[str]()
    for case in ET.parse(report).getroot().iter("testcase"):
        failure = case.find("failure")
        if failure is not None and TIME_LIMIT not in (failure.get("message") or ""):
            failed.add((case.get("name") or "").partition("[")[0])
    names = {test: test.rpartition("::")[2].partition("[")[0] for test in tests}
    return (
        tuple(test for test, name in names.items() if name in failed),
        tuple(test for test, name in names.items() if name not in failed),
    )


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
