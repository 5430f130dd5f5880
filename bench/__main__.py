"""Measure Chiffon beside what a user would pick instead, on the same servers, in one run: `make bench`."""

import argparse
import asyncio
import json
import resource
import signal
import tempfile
from dataclasses import replace
from pathlib import Path

from bench import ratios
from bench.contenders import CHIFFON, PEERS
from bench.plot import plot
from bench.report import Reading, Tables, as_json, figures, markdown
from bench.run import Chosen, run
from bench.scenarios import SCENARIOS, limits, throughput
from bench.services import machine, services
from bench.sizes import QUICK, Sizes

NOTES = {peer.name: peer.lacks for peer in PEERS}
IN_POSTGRESQL = [peer.name for peer in PEERS if peer.in_postgresql]


async def measure(chosen: Chosen, folder: Path) -> tuple[dict[str, str], list[Reading]]:
    """Return what the figures depend on, and everything that was read; each reading is printed as it is made."""
    readings = []
    measuring = asyncio.current_task()
    assert measuring is not None
    # What was started is stopped, also when somebody stops this.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, measuring.cancel)
    async with services() as used:
        about = await machine(used)
        async for reading in run(used, chosen, folder):
            readings.append(reading)
            print(f"{reading.table}: {reading.name}: {reading.value:.4g} {reading.unit}", flush=True)
    return about, readings


def text(tables: Tables) -> str:
    """Return all tables as Markdown. What the machine can do is compared with Chiffon's throughput."""
    parts = []
    for title, rows in tables.items():
        with_base = tables.get(throughput.TABLE, {}) if title == limits.TABLE else rows
        notes = NOTES if title == throughput.TABLE else {}
        parts.append(markdown(title, rows, base=with_base.get(CHIFFON.name), notes=notes))
    return "\n".join(parts)


def main() -> None:
    full = Sizes()
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=SCENARIOS, help="only this scenario; may be repeated")
    parser.add_argument(
        "--peer", action="append", choices=[peer.name for peer in PEERS], help="only this peer; likewise"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, measures nothing")
    for name, meaning in full.options().items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, help=meaning)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--plot", type=Path, help="write a picture of them (PNG) to this file")
    given = parser.parse_args()
    sizes = QUICK if given.quick else full
    sizes = replace(sizes, **{name: value for name in full.options() if (value := getattr(given, name)) is not None})
    peers = tuple(peer for peer in PEERS if not given.peer or peer.name in given.peer)
    chosen = Chosen(tuple(given.only or SCENARIOS), (CHIFFON, *peers), sizes)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # thousands of WebSockets, also in what is started
    folder = Path(tempfile.mkdtemp(prefix="chiffon-bench-"))
    folder.chmod(0o711)  # PostgreSQL runs as a user of its own when this is root
    print(f"The programs' logs are in {folder}.", flush=True)
    about, readings = asyncio.run(measure(chosen, folder))
    tables = figures(readings)
    print("\n" + "\n".join(f"- {name}: {value}" for name, value in about.items()) + "\n")
    print(text(tables))
    compared = ratios.ratios(tables, in_postgresql=IN_POSTGRESQL)
    if compared:
        print(ratios.markdown(compared))
        print(f"PostgreSQL keeps both tasks and results of: {', '.join(IN_POSTGRESQL)}.")
    if given.json:
        content = {"machine": about, "sizes": sizes.as_json(), "tables": as_json(tables)}
        content |= {"ratios": ratios.as_json(compared), "tasks and results in PostgreSQL": IN_POSTGRESQL}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if given.plot and tables:
        drawn = {**tables, ratios.TITLE: ratios.as_rows(compared)} if compared else tables
        plot(drawn, given.plot)


if __name__ == "__main__":
    main()
