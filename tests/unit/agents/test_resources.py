"""The figures of a heartbeat are real or absent."""

import asyncio
from pathlib import Path

import pytest

from agents.processes.keepers import Keepers
from agents.resources import ResourceMonitor, parse_vram
from tests.eventually import eventually


def test_processor_and_memory_are_percentages(keepers: Keepers) -> None:
    resources = ResourceMonitor(keepers).current()

    assert 0 <= resources.cpu_percent <= 100
    assert 0 < resources.memory_percent <= 100


def test_the_memory_of_all_gpus_is_added_up_in_gigabytes() -> None:
    assert parse_vram("24576, 1024\n24576, 2048\n") == (48.0, 3.0)


@pytest.mark.parametrize("text", ["", "[N/A], [N/A]\n", "NVIDIA-SMI has failed", "1\n"])
def test_a_gpu_that_tells_nothing_has_no_figures(text: str) -> None:
    assert parse_vram(text) is None


async def test_the_gpu_is_asked_through_its_own_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keepers: Keepers
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ntest "$2" = --format=csv,noheader,nounits && echo "24576, 12288"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monitor = ResourceMonitor(keepers)
    watching = asyncio.create_task(monitor.watch_gpu())

    await eventually(lambda: monitor.current().gpu_vram_total_gb == 24.0)

    assert monitor.current().gpu_vram_available_gb == 12.0
    watching.cancel()


async def test_a_host_without_a_gpu_has_nothing_to_watch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keepers: Keepers
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monitor = ResourceMonitor(keepers)

    await monitor.watch_gpu()

    assert monitor.current().gpu_vram_total_gb is None
