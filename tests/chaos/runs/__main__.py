"""`python -m tests.chaos.runs --seed 1 --kills 200 --json FILE`: kill processes in the middle of repairs.

Exits with 0 only when every repair was verified, rolled back, or failed before anything was touched.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.runs import report
from tests.chaos.runs.plan import make_plan
from tests.chaos.runs.run import Finished, open_docker, run
from tests.chaos.world import open_services
from tests.services.run import guarded

MOST_WORLDS = 100


def _main(outside: str) -> bool:
    """Make the kills and return whether they showed anything wrong; what is kept is moved to `outside`."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.runs", description="Kill processes in repairs.")
    parser.add_argument(
        "--seed", type=int, default=None, help="decides the repairs and the kills; random when not given"
    )
    parser.add_argument("--kills", type=int, default=200, help="how many processes are killed")
    parser.add_argument("--json", type=Path, default=None, help="where to write the figures")
    parser.add_argument("--keep", action="store_true", help="keep logs and state also when everything held")
    options = parser.parse_args()
    seed = secrets.randbelow(10_000) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="chiffon-chaos-"))
    is_kept = True
    try:
        finished = asyncio.run(_run(seed, options.kills, folder))
        is_kept = bool(finished.found) or options.keep
    finally:
        if is_kept:
            print(f"Logs and state are kept in {shutil.move(folder, outside)}")
    result = report.figures(seed, finished.carried, finished.found)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(report.table(result))
    return bool(finished.found)


async def _run(seed: int, kills: int, folder: Path) -> Finished:
    folder.chmod(0o755)
    async with open_services(hosts=MOST_WORLDS) as services, open_docker() as daemon:
        return await run(make_plan(seed), kills, folder, services, daemon, say=lambda text: print(text, flush=True))


if __name__ == "__main__":
    sys.exit(guarded(_main))
