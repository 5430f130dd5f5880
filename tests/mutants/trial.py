"""The trial of one mutant: its tests run on a copy of `src` with one change."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.catalogue import Mutant
from tests.mutants.change import REPOSITORY, changed_copy

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


def tried(mutant: Mutant) -> Outcome:
    """Run the tests of a mutant on a copy of `src` that shares every file but the one that is changed."""
    began = time.monotonic()
    mutant.check((REPOSITORY / mutant.file).read_text())
    if mutant.redundant is not None:
        return Outcome(mutant, (), (), None, 0.0)
    folder = Path(tempfile.mkdtemp(prefix="mutant-"))
    try:
        outcome = _run(mutant, folder, changed_copy(folder, [mutant.change]), began)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return outcome


def _run(mutant: Mutant, folder: Path, python_path: str, began: float) -> Outcome:
    report = folder / "report.xml"
    # The plugin of Schemathesis is a third of the time that pytest takes to start; no test here uses it.
    plugins = ("-p", "no:cacheprovider", "-p", "no:schemathesis")
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "--no-header", f"--junitxml={report}"]
    environment = {**os.environ, "PYTHONPATH": python_path}
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
    failed, passed = verdicts(report, mutant.tests) if done.returncode in (0, TESTS_FAILED) else ((), ())
    trouble = None if done.returncode in (0, TESTS_FAILED) else done.stdout[-2000:] + done.stderr[-2000:]
    return Outcome(mutant, failed, passed, trouble, time.monotonic() - began)


def verdicts(report: Path, tests: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
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
