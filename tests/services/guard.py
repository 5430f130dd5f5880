"""Wait until a test run has ended, in whatever way, then end its processes and remove its directory.

    python guard.py DIRECTORY

Standard input is a pipe that the run holds open; the kernel closes it even when the run is killed by SIGKILL. A process
belongs to the run when its environment names the directory or it works inside it. The exit status is the number of
processes that had to be killed, 100 at most.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

# A process that forks while its parent is killed is found by the next look.
QUIET_LOOKS = 3
PAUSE_SECONDS = 0.05
# Servers that all workers share are stopped here and nowhere else, so they are no leak.
SHARED = "shared"
UNDO = "undo.jsonl"


def main(root: str) -> int:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    left = end_processes(root)
    undo(Path(root) / UNDO)
    shutil.rmtree(root, ignore_errors=True)
    return min(left, 100)


def end_processes(root: str) -> int:
    """Kill every process of the run until none is found, and return how many were no shared server."""
    left, quiet = set[int](), 0
    while quiet < QUIET_LOOKS:
        found = [process for process in psutil.process_iter() if belongs(process, root)]
        for process in found:
            try:
                if not is_shared(process, root) and process.status() != psutil.STATUS_ZOMBIE:
                    print(f"left by the tests: {process.pid} {' '.join(process.cmdline())[:200]}", file=sys.stderr)
                    left.add(process.pid)
                process.kill()
            except psutil.Error:
                continue
        quiet = 0 if found else quiet + 1
        time.sleep(PAUSE_SECONDS)
    return len(left)


def belongs(process: psutil.Process, root: str) -> bool:
    if process.pid == os.getpid():
        return False
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        # PostgreSQL writes over its environment, so the working directory counts too.
        return any(root in value for value in process.environ().values()) or is_inside(process.cwd(), root)
    except (psutil.Error, OSError):
        return False


def is_shared(process: psutil.Process, root: str) -> bool:
    shared = f"{root}/{SHARED}"
    return is_inside(process.cwd(), shared) or shared in process.environ().values()


def is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def undo(commands: Path) -> None:
    """Run the commands that the run noted; what they undo may be gone already."""
    if commands.exists():
        for line in commands.read_text().splitlines():
            subprocess.run(json.loads(line), capture_output=True, check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
