"""How much of this host is in use, for the heartbeat."""

import asyncio
import logging

import psutil

from agents.executors.gpus import find_tool, most_memory, read_gpus
from agents.processes.keepers import Keepers
from common.messages import Resources

log = logging.getLogger(__name__)

GPU_EVERY_SECONDS = 60.0
BYTES_PER_GB = 1024**3


class ResourceMonitor:
    """Reads processor and memory when asked, and the GPUs now and then in the background, because that takes long."""

    def __init__(self, keepers: Keepers) -> None:
        self._keepers = keepers
        self._vram: tuple[int, int] | None = None
        psutil.cpu_percent(interval=None)  # the first reading starts the measurement and says nothing

    def current(self) -> Resources:
        """Return the figures since the last call; never waits."""
        total, available = self._vram if self._vram is not None else (None, None)
        memory = psutil.virtual_memory()
        return Resources(
            cpu_percent=psutil.cpu_percent(interval=None),
            memory_percent=memory.percent,
            cores=psutil.cpu_count(),
            load=round(psutil.getloadavg()[0], 2),
            memory_free_gb=_gigabytes(memory.available),
            gpu_vram_total_gb=_gigabytes(total),
            gpu_vram_available_gb=_gigabytes(available),
        )

    async def watch_gpu(self) -> None:
        """Keep the GPU figures fresh until cancelled; returns at once where there is no `nvidia-smi`."""
        while find_tool() is not None:
            try:
                self._vram = most_memory(await read_gpus(self._keepers))
            except Exception:  # an agent without GPU figures is still an agent
                log.exception("gpu.unreadable")
            await asyncio.sleep(GPU_EVERY_SECONDS)


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else round(size / BYTES_PER_GB, 2)
