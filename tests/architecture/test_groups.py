"""Tests that share a server run in one worker."""

import subprocess
import sys
from pathlib import Path

TESTS = """
import os
import pytest

@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(8))
def test_it(number, worker_id):
    with open({said!r}, "a") as said:
        said.write(worker_id + "\\n")
"""


def test_the_tests_of_an_xdist_group_run_in_one_worker(tmp_path: Path) -> None:
    said = tmp_path / "said"
    for name in "ab":
        (tmp_path / f"test_{name}.py").write_text(TESTS.format(said=str(said)))

    command = (sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider")
    subprocess.run([*command, "--rootdir", tmp_path, tmp_path], cwd=tmp_path, check=True, capture_output=True)

    workers = said.read_text().split()
    assert len(workers) == 16
    assert len(set(workers)) == 1
