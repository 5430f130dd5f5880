"""The GPUs of this host, as `nvidia-smi` reports them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.attempts.stopping import StopSignal
from agents.executors.process import Command, run_process
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Starter
from agents.processes.lookup import find
from common.messages import Stream

TOOL = "nvidia-smi"
QUERY = ("--query-gpu=index,name,memory.total,memory.free,utilization.gpu", "--format=csv,noheader,nounits")
TIMEOUT_SECONDS = 10.0
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. A figure that it does not report is None, as is the memory of one that shares the host's."""

    index: int
    name: str
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    utilisation_percent: float | None


def find_tool() -> str | None:
    """Return the path of `nvidia-smi`; None on a host without it."""
    return find(TOOL)


async def read_gpus(keepers: Starter) -> list[Gpu]:
    """Return the GPUs as they are now; none on a host without `nvidia-smi`, or where it fails."""
    tool = find_tool()
    return [] if tool is None else parse_gpus(await _output_of(keepers, [tool, *QUERY]))


def parse_gpus(text: str) -> list[Gpu]:
    """Return what the tool printed; lines that are no GPU, such as error messages, are left out."""
    return [gpu for line in text.splitlines() if (gpu := _parse(line)) is not None]


def most_memory(gpus: Sequence[Gpu]) -> tuple[int, int] | None:
    """Return the memory of the largest GPU, and the most that is free on one, in bytes; None when none reports any.

    Memory of several GPUs is never added up: a program that needs so much needs it on one.
    """
    totals = [gpu.memory_total_bytes for gpu in gpus if gpu.memory_total_bytes is not None]
    free = [gpu.memory_free_bytes for gpu in gpus if gpu.memory_free_bytes is not None]
    return (max(totals), max(free)) if totals and free else None


def _parse(line: str) -> Gpu | None:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) < 5 or not cells[0].isdecimal():
        return None
    index, *name, total, free, utilisation = cells
    return Gpu(int(index), ", ".join(name), _bytes(total), _bytes(free), _number(utilisation))


def _bytes(mib: str) -> int | None:
    number = _number(mib)
    return None if number is None else int(number * MIB)


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # [N/A], [Not Supported], [Unknown Error]
        return None


async def _output_of(keepers: Starter, argv: list[str]) -> str:
    output = bytearray()

    async def collect(stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            output.extend(data)

    command = Command(
        argv=argv,
        cwd=Path(tempfile.gettempdir()),
        env={"LC_ALL": "C"},
        stdin=b"",
        max_duration_seconds=TIMEOUT_SECONDS,
        kill_grace_seconds=1.0,
    )
    try:
        await run_process(keepers, command, write=collect, stop=StopSignal())
    except (CannotStart, OSError):
        return ""
    return output.decode(errors="replace")
