"""How much of this host is in use."""

import asyncio
import logging
import shutil
import tempfile
from pathlib import Path

import psutil

from agents.executors.process import Command, run_process
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keepers
from agents.stopping import StopSignal
from common.messages import Resources, Stream

log = logging.getLogger(__name__)

GPU_QUERY = ("--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")
GPU_EVERY_SECONDS = 60.0
GPU_TIMEOUT_SECONDS = 10.0
MIB_PER_GB = 1024


class ResourceMonitor:
    """Reads processor and memory when asked, and the GPU now and then in the background, because that takes long."""

    def __init__(self, keepers: Keepers) -> None:
        self._keepers = keepers
        self._vram: tuple[float, float] | None = None
        psutil.cpu_percent(interval=None)  # the first reading starts the measurement and says nothing

    def current(self) -> Resources:
        """Return the figures since the last call; never waits."""
        total, available = self._vram if self._vram is not None else (None, None)
        return Resources(
            cpu_percent=psutil.cpu_percent(interval=None),
            memory_percent=psutil.virtual_memory().percent,
            gpu_vram_total_gb=total,
            gpu_vram_available_gb=available,
        )

    async def watch_gpu(self) -> None:
        """Keep the GPU figures fresh until cancelled; returns at once where there is no `nvidia-smi`."""
        program = shutil.which("nvidia-smi")
        while program is not None:
            try:
                self._vram = parse_vram(await _output_of(self._keepers, [program, *GPU_QUERY]))
            except Exception:  # an agent without GPU figures is still an agent
                log.exception("gpu.unreadable")
            await asyncio.sleep(GPU_EVERY_SECONDS)


def parse_vram(text: str) -> tuple[float, float] | None:
    """Return total and free GPU memory in GB over all GPUs, or None when the text has no figures."""
    try:
        rows = [[float(cell) for cell in line.split(",")] for line in text.splitlines() if line.strip()]
        totals = [total for total, _ in rows]
        free = [available for _, available in rows]
    except ValueError:  # "[N/A]", or an error message
        return None
    return (round(sum(totals) / MIB_PER_GB, 2), round(sum(free) / MIB_PER_GB, 2)) if rows else None


async def _output_of(keepers: Keepers, argv: list[str]) -> str:
    output = bytearray()

    async def collect(stream: Stream, data: bytes) -> None:
        if stream is Stream.STDOUT:
            output.extend(data)

    command = Command(
        argv=argv,
        cwd=Path(tempfile.gettempdir()),
        env={"LC_ALL": "C"},
        stdin=b"",
        max_duration_seconds=GPU_TIMEOUT_SECONDS,
        kill_grace_seconds=1.0,
    )
    try:
        await run_process(keepers, command, write=collect, stop=StopSignal())
    except (CannotStart, OSError):
        return ""
    return output.decode(errors="replace")
