"""A test run that waits to be interrupted, with servers and a process of its own.

SAY=file python -m pytest -n 2 tests/services/interrupted.py
"""

import os
import subprocess
import threading
from pathlib import Path

from tests.services import run
from tests.services.postgres import Postgres
from tests.services.rabbitmq_node import Node


def test_that_never_ends(rabbitmq: Node, postgres: Postgres) -> None:
    with subprocess.Popen(["sleep", "3600"], start_new_session=True):
        # Renamed, so that a reader sees all of it.
        said = Path(os.environ["SAY"])
        said.with_suffix(".new").write_text(str(run.root()))
        said.with_suffix(".new").rename(said)
        threading.Event().wait()
