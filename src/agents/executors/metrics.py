"""Measure this host: processor, load, memory, disks, uptime, and each GPU."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import psutil

from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.gpus import read_gpus
from common.messages import ResultStatus, Stream
from common.work import MetricsParameters


class MetricsExecutor(Executor[MetricsParameters]):
    kind: ClassVar[str] = "metrics"
    parameters = MetricsParameters

    async def carry_out(self, parameters: MetricsParameters, context: ExecutionContext) -> Outcome:
        before = psutil.cpu_times(percpu=True)
        gpus, disks, _ = await asyncio.gather(
            read_gpus(context.keepers), asyncio.to_thread(_disks), asyncio.sleep(parameters.seconds)
        )
        measured = {
            "cpu": _cpu(before, psutil.cpu_times(percpu=True)),
            "load": dict(zip(("1m", "5m", "15m"), (round(load, 2) for load in psutil.getloadavg()), strict=True)),
            "memory": _memory(),
            "swap": _swap(),
            "disks": disks,
            "uptime_seconds": int(time.clock_gettime(time.CLOCK_BOOTTIME)),
            "gpus": [asdict(gpu) for gpu in gpus],
        }
        await context.write(Stream.STDOUT, json.dumps(measured, indent=2).encode() + b"\n")
        return Outcome(ResultStatus.COMPLETED, result=measured)


def _cpu(before: Sequence[Any], after: Sequence[Any]) -> dict[str, Any]:
    cores = [_busy(earlier, later) for earlier, later in zip(before, after, strict=False)]
    return {
        "cores": len(cores),
        "percent": round(sum(cores) / len(cores), 1) if cores else 0.0,
        "percent_per_core": [round(core, 1) for core in cores],
    }


def _busy(before: Any, after: Any) -> float:
    """Return the share of the time between two readings, in percent, in which a core was not idle."""
    # The time of guests is part of `user` and `nice`.
    spent = {
        name: max(0.0, getattr(after, name) - getattr(before, name))
        for name in after._fields
        if name not in ("guest", "guest_nice")
    }
    total = sum(spent.values())
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return 100.0 * (total - idle) / total if total else 0.0


def _memory() -> dict[str, Any]:
    memory = psutil.virtual_memory()
    return {
        "total_bytes": memory.total,
        "used_bytes": memory.used,
        "available_bytes": memory.available,
        "percent": memory.percent,
    }


def _swap() -> dict[str, Any]:
    swap = psutil.swap_memory()
    return {
        "total_bytes": swap.total,
        "used_bytes": swap.used,
        "free_bytes": swap.free,
        "percent": swap.percent,
    }


def _disks() -> list[dict[str, Any]]:
    """Return the file systems that are on disks, and the root whatever it is on. Blocking."""
    mounts = {"/": ("", "")}
    for partition in psutil.disk_partitions(all=False):
        if Path(partition.mountpoint).is_dir():  # containers also mount single files
            mounts[partition.mountpoint] = (partition.device, partition.fstype)
    disks = []
    for mount, (device, kind) in sorted(mounts.items()):
        try:
            usage = psutil.disk_usage(mount)
        except OSError:  # unmounted meanwhile, or not for this user
            continue
        disks.append(
            {
                "mount": mount,
                "device": device,
                "file_system": kind,
                "total_bytes": usage.total,
                "used_bytes": usage.used,
                "free_bytes": usage.free,
            }
        )
    return disks
