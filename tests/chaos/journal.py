"""What ran, as the work itself tells it: every script writes to one file that no part of Chiffon knows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A script that lives says so this often, so how long it lived is known to that precision, also when it was killed.
TICK_SECONDS = 0.2
# Stamps are: what, work, task, attempt, agent, pid, seconds since boot, wall clock. One short write is never torn.
# A `read` with a timeout on a pipe that nobody writes to is a sleep without a new process.
SCRIPT = r"""
LC_ALL=C
work=$1 journal=$2 ticks=$3 code=$4 bytes=$5 stubborn=$6
exec {never}<> <(:)
say() {
    read -r up _ </proc/uptime
    printf '%s %s %s %s %s %s %s %s\n' \
        "$1" "$work" "$CHIFFON_TASK_ID" "$CHIFFON_ATTEMPT" "${CHAOS_AGENT:-?}" "$$" "$up" "$EPOCHREALTIME" >>"$journal"
}
if [ "$stubborn" = 1 ]; then trap '' TERM; else trap 'say term; exit 143' TERM; fi
say start
echo "work $work begins"
for ((i = 0; i < ticks; i++)); do
    read -r -t 0.2 -u "$never"
    say alive
    ((i % 5)) || echo "tick $i"
done
((bytes == 0)) || printf '%*s\n' "$bytes" x
say end
exit "$code"
"""


def script_parameters(
    work: str, journal: Path, *, ticks: int, code: int = 0, size: int = 0, stubborn: bool = False, secret: str = ""
) -> dict[str, Any]:
    """Return the parameters of a `shell_script` that runs for some ticks and writes about itself."""
    words = [work, str(journal), str(ticks), str(code), str(size), str(int(stubborn))]
    environment = {"env": {"CHAOS_TOKEN": secret}} if secret else {}
    return {"argv": ["bash", "-c", SCRIPT, "chaos", *words], "max_duration_seconds": 120, **environment}


@dataclass(slots=True)
class Run:
    """One process that ran: it lived at least from `start` to `last`; `ending` is how it says that it ended."""

    work: str
    task_id: str
    attempt: int
    agent: str
    pid: int
    start: float
    last: float
    ending: str | None = None

    def overlaps(self, other: "Run") -> float:
        """Return for how long both certainly lived; 0 or less when they did not."""
        return min(self.last, other.last) - max(self.start, other.start)


def read_journal(path: Path) -> list[Run]:
    """Return all runs in the order in which they started."""
    return parse(path.read_text().splitlines()) if path.exists() else []


def parse(lines: Iterable[str]) -> list[Run]:
    runs: dict[tuple[str, str, str, str], Run] = {}
    for line in lines:
        what, work, task_id, attempt, agent, pid, _up, wall = line.split(" ")
        key, at = (task_id, attempt, agent, pid), float(wall)
        run = runs.setdefault(key, Run(work, task_id, int(attempt), agent, int(pid), at, at))
        run.last = max(run.last, at)
        if what in ("end", "term"):
            run.ending = what
    return sorted(runs.values(), key=lambda run: run.start)
