"""Repair a service in a process that is killed at a point of its work.

    python -m tests.unit.agents.repairs.killed

Reads lines of JSON, `{"folder", "parameters", "at"}`, and forks for each a process that repairs, or, with `"settles"`,
puts in order what another has left. `at` is `null` or one of

    ["write", N, "before" | "after"]   the Nth time that the state of the repair is written
    ["file", N]                        before the Nth change of a file in the workspace
    ["call", N, "before" | "inside" | "after"]   at the Nth call of docker or compose

It answers each with a line: how often each of these came, and whether it was killed.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.repairs import deploying, files, http_probe
from agents.repairs.state import Unit
from agents.repairs.store import Store
from common import http_client
from tests.unit.agents.executing import Output
from tests.unit.agents.repairs.quick import QuickKeepers
from tests.unit.agents.repairs.workshop import Told, Workshop, carry_out

# What is imported late is here before the fork.
LATE = (http_probe, http_client)


class Points:
    """Counts the points at which the process can be killed, and kills it at one of them."""

    def __init__(self, at: list[Any] | None, counted: Path) -> None:
        self._at = at
        self._counted = counted
        self._counts = {"write": 0, "file": 0}

    def pass_by(self, kind: str, act: Callable[[], None]) -> None:
        number = self._counts[kind]
        self._counts[kind] += 1
        self._counted.write_text(json.dumps(self._counts))
        match self._at:
            case [str(at), int(wanted), *when] if at == kind and wanted == number:
                if when == ["after"]:
                    act()
                os.kill(os.getpid(), signal.SIGKILL)
            case _:
                act()


def watch(points: Points) -> None:
    write_state, write_file, remove_file = Store.write, files.write, files.remove

    def written(store: Store, unit: Unit) -> None:
        points.pass_by("write", lambda: write_state(store, unit))

    def changed(top: Path, path: str, *what: Any) -> None:
        if top.name.endswith(".worktree"):
            write_file(top, path, *what)
        else:
            points.pass_by("file", lambda: write_file(top, path, *what))

    def removed(top: Path, path: str) -> None:
        if top.name.endswith(".worktree"):
            remove_file(top, path)
        else:
            points.pass_by("file", lambda: remove_file(top, path))

    for where, name, replaced in (
        (Store, "write", written),
        (files, "write", changed),
        (files, "remove", removed),
        (deploying, "STEADY_SECONDS", 0.05),
    ):
        setattr(where, name, replaced)


async def work(workshop: Workshop, parameters: dict[str, Any], *, settles: bool) -> None:
    told = Told()
    with QuickKeepers(guards_git=True) as keepers:
        if settles:
            await workshop.settler(keepers, told).run_once()
        else:
            context = workshop.context(keepers, told, Output())
            await carry_out(workshop.executor(), parameters, context)


def run(asked: dict[str, Any]) -> None:
    workshop = Workshop(Path(asked["folder"]))
    os.environ["PATH"] = workshop.environment["PATH"]
    at = asked["at"]
    counted = workshop.docker / "counted"
    (workshop.docker / "calls").unlink(missing_ok=True)
    (workshop.docker / "kill").unlink(missing_ok=True)
    counted.unlink(missing_ok=True)
    if at is not None and at[0] == "call":
        (workshop.docker / "kill").write_text(f"{at[1]} {at[2]} {os.getpid()}")
    watch(Points(at, counted))
    asyncio.run(work(workshop, asked["parameters"], settles=asked["settles"]))


def serve() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                run(asked)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        docker = Workshop(Path(asked["folder"])).docker
        (docker / "kill").unlink(missing_ok=True)
        counts = json.loads((docker / "counted").read_text()) if (docker / "counted").exists() else {}
        calls = (docker / "calls").read_text().splitlines() if (docker / "calls").exists() else []
        answer = {"code": os.waitstatus_to_exitcode(status), "counts": counts, "calls": calls}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
