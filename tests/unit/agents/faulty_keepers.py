"""A guardian and keepers in which something is broken, or missing, as a test says."""

import pytest

from agents.processes import keepers

PROGRAM = """
import sys; sys.path.append(sys.argv[1])
import os, signal
from agents.processes import guardian, keeper, program, table
{fault}
guardian.main()
"""


def break_keepers(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Have the next guardian run these lines of Python before it begins."""
    *python, _, place = keepers.COMMAND
    monkeypatch.setattr("agents.processes.keepers.COMMAND", (*python, PROGRAM.format(fault=fault), place))
