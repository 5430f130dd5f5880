"""What `metrics` returns is what this host is."""

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.metrics import MetricsExecutor
from agents.processes.keepers import Keepers
from common.messages import ResultStatus, Stream
from common.result import canonical_result
from tests.unit.agents.executing import Output, execute, make_context


async def measure(keepers: Keepers, **parameters: Any) -> tuple[dict[str, Any], str]:
    """Return the result and the standard output."""
    output = Output()
    outcome = await execute(
        MetricsExecutor(), {"seconds": 0.1, **parameters}, make_context(Path("/nowhere"), keepers, output)
    )
    assert outcome.status is ResultStatus.COMPLETED, outcome
    assert isinstance(outcome.result, dict)
    return outcome.result, output.of(Stream.STDOUT)


async def test_the_figures_are_those_of_the_host(keepers: Keepers) -> None:
    measured, _ = await measure(keepers)

    assert measured["cpu"]["cores"] == psutil.cpu_count() == len(measured["cpu"]["percent_per_core"])
    assert all(0 <= percent <= 100 for percent in [measured["cpu"]["percent"], *measured["cpu"]["percent_per_core"]])
    assert measured["load"].keys() == {"1m", "5m", "15m"}
    assert measured["memory"]["total_bytes"] == psutil.virtual_memory().total
    assert 0 < measured["memory"]["available_bytes"] <= measured["memory"]["total_bytes"]
    assert measured["swap"]["total_bytes"] == psutil.swap_memory().total
    assert abs(measured["uptime_seconds"] - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
    [root] = [disk for disk in measured["disks"] if disk["mount"] == "/"]
    stat = os.statvfs("/")
    assert root["total_bytes"] == stat.f_blocks * stat.f_frsize


async def test_a_core_that_works_all_the_time_is_not_idle(keepers: Keepers) -> None:
    spinning = await asyncio.create_subprocess_exec("/bin/sh", "-c", "while :; do :; done")
    try:
        measured, _ = await measure(keepers, seconds=0.5)
    finally:
        spinning.kill()
        await spinning.wait()

    assert max(measured["cpu"]["percent_per_core"]) > 50


async def test_the_result_is_also_what_it_writes(keepers: Keepers) -> None:
    measured, written = await measure(keepers)

    assert canonical_result(json.loads(written)) == canonical_result(measured)


async def test_a_host_without_a_gpu_has_an_empty_list(
    keepers: Keepers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    measured, _ = await measure(keepers)

    assert measured["gpus"] == []


async def test_each_gpu_is_listed(keepers: Keepers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\necho "0, Tesla T4, 15360, 15101, 7"\necho "1, NVIDIA GB10, [N/A], [N/A], 0"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    measured, _ = await measure(keepers)

    mib = 1024 * 1024
    assert measured["gpus"] == [
        {
            "index": 0,
            "name": "Tesla T4",
            "memory_total_bytes": 15360 * mib,
            "memory_free_bytes": 15101 * mib,
            "utilisation_percent": 7.0,
        },
        {
            "index": 1,
            "name": "NVIDIA GB10",
            "memory_total_bytes": None,
            "memory_free_bytes": None,
            "utilisation_percent": 0.0,
        },
    ]


async def test_a_cancel_ends_it_at_once(keepers: Keepers) -> None:
    stop = StopSignal()
    asyncio.get_running_loop().call_later(0.1, lambda: stop.order(StopReason.CANCELLED, grace=1.0))
    began = time.monotonic()

    outcome = await execute(
        MetricsExecutor(), {"seconds": 60}, make_context(Path("/nowhere"), keepers, Output(), stop=stop)
    )

    assert outcome.status is ResultStatus.CANCELLED
    assert time.monotonic() - began < 30
