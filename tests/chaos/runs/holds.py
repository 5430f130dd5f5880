"""Hold a program back that a repair runs, so that something can be killed exactly before, while or after it runs.

The agent finds wrappers of git, docker and docker-compose in its PATH. A wrapper does as asked by the file `wanted`:
once, for the step that the state file says is under way.
"""

import asyncio
import json
from pathlib import Path
from typing import Any

from tests.chaos.runs.plan import Moment, Point
from tests.services import packages

PROGRAMS = ("git", "docker", "docker-compose")
LOOK_SECONDS = 0.01
WRAPPER = """\
#!/bin/sh
real={real} folder={folder} state={state}
reach() {{ mkdir "$folder/reached" 2>/dev/null; }}
hold() {{ reach && while [ -d "$folder/reached" ]; do sleep 0.02; done; }}
moment=none
if [ -e "$folder/wanted" ] && read -r step when program word <"$folder/wanted" && [ "$program" = {name} ]; then
    case " $* " in *" $word "*)
        case "$(cat "$state" 2>/dev/null)" in
            *"\\"name\\":\\"$step\\",\\"status\\":\\"in_progress\\""*) moment=$when ;;
        esac ;;
    esac
fi
case $moment in
    before) hold; exec "$real" "$@" ;;
    during) reach; exec "$real" "$@" ;;
    after) "$real" "$@"; code=$?; hold; exit "$code" ;;
    *) exec "$real" "$@" ;;
esac
"""


class Holds:
    """The wrappers of one agent. `state` is the state file of the service."""

    def __init__(self, folder: Path, state: Path) -> None:
        self.programs = folder / "programs"
        self._wanted = folder / "wanted"
        self._reached = folder / "reached"
        self._state = state
        self.programs.mkdir(parents=True)
        for name in PROGRAMS:
            path = self.programs / name
            path.write_text(WRAPPER.format(real=packages.program(name), folder=folder, state=state, name=name))
            path.chmod(0o755)

    def ask(self, point: Point) -> None:
        """Have a repair held at a point, or watched until it comes there."""
        if point.moment is not Moment.ENDED:
            draft = self._wanted.with_suffix(".new")
            draft.write_text(f"{point.step} {point.moment} {point.program} {point.word}\n")
            draft.replace(self._wanted)

    def is_at(self, point: Point, run_id: str) -> bool:
        """Return whether the repair has come to the point that was asked for."""
        if point.moment is not Moment.ENDED:
            return self._reached.exists()
        known = read_state(self._state)
        return known.get("run_id") == run_id and any(
            one["name"] == point.step and one["finished_at"] is not None for one in known["reports"]
        )

    async def let_go(self) -> None:
        """Have everything run on, and nothing be held any more."""
        self._wanted.unlink(missing_ok=True)
        while self._reached.exists():
            self._reached.rmdir()
            await asyncio.sleep(LOOK_SECONDS)


def read_state(path: Path) -> dict[str, Any]:
    """Return the state file of a service; empty when there is none."""
    try:
        known: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return known
