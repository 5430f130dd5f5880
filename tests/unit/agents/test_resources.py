"""The figures of a heartbeat are real or absent."""

import asyncio
from pathlib import Path

import psutil
import pytest

from agents.contact.resources import ResourceMonitor
from agents.processes.keepers import Keepers
from tests.eventually import eventually


def test_processor_and_memory_are_those_of_the_host(keepers: Keepers) -> None:
    resources = ResourceMonitor(keepers).current()

    assert 0 <= resources.cpu_percent <= 100
    assert 0 < resources.memory_percent <= 100
    assert resources.cores == psutil.cpu_count()
    assert resources.load is not None
    assert resources.memory_free_gb is not None
    assert 0 < resources.memory_free_gb < psutil.virtual_memory().total / 1024**3


async def test_the_gpus_are_asked_through_their_own_tool_and_the_largest_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keepers: Keepers
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text(
        '#!/bin/sh\ntest "$2" = --format=csv,noheader,nounits || exit 1\n'
        'echo "0, A, 24576, 1024, 9"\necho "1, B, 8192, 6144, 0"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monitor = ResourceMonitor(keepers)
    watching = asyncio.create_task(monitor.watch_gpu())

    await eventually(lambda: monitor.current().gpu_vram_total_gb == 24.0)

    assert monitor.current().gpu_vram_available_gb == 6.0
    watching.cancel()


async def test_a_host_without_a_gpu_has_nothing_to_watch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keepers: Keepers
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monitor = ResourceMonitor(keepers)

    await monitor.watch_gpu()

    assert monitor.current().gpu_vram_total_gb is None
