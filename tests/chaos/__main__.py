"""`python -m tests.chaos --seed 1 --minutes 3 --json FILE`: make a run and say what it showed.

Exits with 0 only when no promise was broken and every fault could be made.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos import report
from tests.chaos.run import run
from tests.services.run import guarded


def _main(outside: str) -> bool:
    """Make the run and return whether it showed anything wrong; what is kept is moved to the directory `outside`."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Break everything and see what holds.")
    parser.add_argument("--seed", type=int, default=None, help="decides the faults and the load; random when not given")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long faults are made")
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures")
    parser.add_argument("--keep", action="store_true", help="keep logs and state also when everything held")
    options = parser.parse_args()
    seed = secrets.randbelow(10_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="chiffon-chaos-"))
    finished = asyncio.run(run(seed, options.minutes * 60, folder, say=lambda text: print(text, flush=True)))
    if options.json is not None:
        options.json.write_text(json.dumps(finished.figures, indent=2) + "\n")
    print(report.table(finished.figures))
    broken = bool(finished.found or finished.figures["faults_that_failed"])
    if finished.found:
        print(report.stories(finished.evidence, finished.found))
    if broken or options.keep:
        print(f"Logs and state are kept in {shutil.move(folder, outside)}")
    return broken


if __name__ == "__main__":
    sys.exit(guarded(_main))
