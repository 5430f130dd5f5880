"""Python imports this at its start when its folder is on PYTHONPATH: it counts the calls of Chiffon's functions.

SIGUSR1 begins to count and SIGUSR2 writes what was counted to `BENCH_WALKED/<pid>.json`.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

SOURCE = str(Path(__file__).parents[2] / "src")
FOLDER = Path(os.environ["BENCH_WALKED"])


class Walk:
    """The functions that were called, and how often control went from one file to another by a call."""

    def __init__(self) -> None:
        self.is_on = False
        self.clear()

    def clear(self) -> None:
        self.calls = self.moves = 0
        self.functions = Counter[tuple[str, str]]()
        self.last = ""

    def note(self, frame: FrameType, event: str, _: object) -> None:
        if not self.is_on or event != "call" or not frame.f_code.co_filename.startswith(SOURCE):
            return
        file = frame.f_code.co_filename
        self.calls += 1
        self.moves += file != self.last
        self.last = file
        self.functions[file[len(SOURCE) + 1 :], frame.f_code.co_qualname] += 1

    def begin(self, *_: object) -> None:
        self.clear()
        self.is_on = True

    def end(self, *_: object) -> None:
        self.is_on = False
        said = {
            "calls": self.calls,
            "moves": self.moves,
            "functions": [[*name, count] for name, count in self.functions.items()],
        }
        written = FOLDER / f"{os.getpid()}.new"
        written.write_text(json.dumps(said))
        written.rename(written.with_suffix(".json"))


walk = Walk()
signal.signal(signal.SIGUSR1, walk.begin)
signal.signal(signal.SIGUSR2, walk.end)
threading.setprofile(walk.note)
sys.setprofile(walk.note)
