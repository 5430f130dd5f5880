"""A picture of the figures, drawn by matplotlib in the peers' environment, so that Chiffon's own needs none."""

import json
import subprocess
from pathlib import Path

from bench.programs import BENCH, PEERS_PYTHON
from bench.report import Tables, as_json


def plot(tables: Tables, path: Path) -> None:
    """Draw every table as bars, with the range of the rounds; writes a PNG."""
    command = [str(PEERS_PYTHON), "-m", "bench.peers.draw", str(path.absolute())]
    subprocess.run(command, input=json.dumps(as_json(tables)), text=True, check=True, cwd=BENCH.parent)
