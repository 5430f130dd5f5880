"""A test run leaves nothing behind, however it ends."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from tests.eventually import eventually
from tests.services import run
from tests.services.guard import belongs

RUN = (sys.executable, "-m", "pytest", "-n", "1", "-p", "no:cacheprovider", "tests/services/interrupted.py")
SERVERS = {"beam.smp", "epmd", "postgres", "sleep"}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_an_interrupted_test_run_leaves_no_process_no_server_and_no_directory(
    how: signal.Signals, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", run.VARIABLE))}
    with (tmp_path / "output").open("wb") as output:
        pytest_run = await asyncio.create_subprocess_exec(
            *RUN, env={**environment, "SAY": str(said)}, stdout=output, stderr=output, start_new_session=True
        )
    await eventually(lambda: said.exists() or pytest_run.returncode is not None, timeout=90)
    assert pytest_run.returncode is None, (tmp_path / "output").read_text()
    root = Path(said.read_text())
    assert {process.name() for process in _processes_of(root)} >= SERVERS

    pytest_run.send_signal(how)
    await pytest_run.wait()

    await eventually(lambda: not root.exists() and not _processes_of(root), timeout=60)


def _processes_of(root: Path) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if belongs(process, str(root))]
