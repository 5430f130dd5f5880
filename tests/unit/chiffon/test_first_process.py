"""Process 1 of a container collects orphans, hands signals on and ends as its command does."""

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.eventually import eventually

# A subreaper is to its descendants what process 1 is to all. It says that it is ready, and ends when it is told to.
PROGRAM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
getpid, os.getpid = os.getpid, lambda: 1
from chiffon.first_process import become_init
become_init()
def end(number, frame):
    if sys.argv[1] == "kill":
        os.kill(getpid(), signal.SIGKILL)
    sys.exit(7)
signal.signal(signal.SIGTERM, end)
if os.fork() == 0:
    if os.fork() == 0:
        print(getpid(), flush=True)
        sys.stdin.read()
    os._exit(0)
os.wait()
while True:
    signal.pause()
"""


@pytest.mark.parametrize(("way", "code"), [("exit", 7), ("kill", 137)])
async def test_orphans_are_collected_signals_handed_on_and_the_exit_code_kept(way: str, code: int) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, way),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    orphan = int(await process.stdout.readline())
    await eventually(lambda: psutil.Process(orphan).ppid() == process.pid)

    process.stdin.close()

    await eventually(partial(_is_unknown, orphan))
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == code


def _is_unknown(pid: int) -> bool:
    """A zombie is still known: its parent has not collected it."""
    return not psutil.pid_exists(pid)
