"""A mutant is killed only when each of its tests fails for it, and for no other reason than a promise that broke."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutants.catalogue import Mutant, NotAMutant
from tests.mutants.trial import Outcome, tried, verdicts

NOTICES = "tests/unit/common/test_retry.py::test_the_last_attempt_is_not_repeated"
DOES_NOT = "tests/unit/common/test_retry.py::test_jitter_stays_between_nothing_and_the_full_wait"
MUTANT = Mutant(
    area="tried",
    name="one-attempt-more",
    promise="The last attempt is not repeated.",
    file="src/common/retry.py",
    old="attempt >= max_attempts",
    new="attempt > max_attempts",
    tests=(NOTICES, DOES_NOT),
)
REPORT = """<testsuites><testsuite>
<testcase name="test_a[1]"/><testcase name="test_a[2]"><failure message="assert 1 == 2"/></testcase>
<testcase name="test_b"/>
<testcase name="test_c"><failure message="Failed: Timeout (&gt;120.0s) from pytest-timeout."/></testcase>
<testcase name="test_d"><error message="a fixture failed"/></testcase>
</testsuite></testsuites>"""


def test_a_mutant_that_one_of_its_tests_does_not_notice_is_alive() -> None:
    outcome = tried(MUTANT)

    assert (outcome.failed, outcome.passed, outcome.trouble) == ((NOTICES,), (DOES_NOT,), None)
    assert not outcome.killed
    assert tried(replace(MUTANT, tests=(NOTICES,))).killed


def test_a_mutant_that_python_cannot_read_is_not_killed() -> None:
    outcome = tried(replace(MUTANT, new="attempt >", tests=(NOTICES,)))

    assert outcome.trouble is not None
    assert not outcome.killed


def test_a_mutant_whose_text_is_not_in_its_file_is_refused() -> None:
    with pytest.raises(NotAMutant, match="occurs 0 times"):
        tried(replace(MUTANT, old="no such text"))


def test_a_time_limit_and_a_broken_fixture_kill_nothing(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    tests = [f"tests/some.py::{name}" for name in ("test_a", "test_b", "test_c", "test_d")]

    failed, passed = verdicts(report, tests)

    assert failed == ("tests/some.py::test_a",)
    assert passed == ("tests/some.py::test_b", "tests/some.py::test_c", "tests/some.py::test_d")
    assert not Outcome(MUTANT, failed, passed, None, 1.0).killed
