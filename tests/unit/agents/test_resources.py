"""The figures of a heartbeat are real or absent."""

import pytest

from agents.resources import ResourceMonitor, parse_vram


def test_processor_and_memory_are_percentages() -> None:
    resources = ResourceMonitor().current()

    assert 0 <= resources.cpu_percent <= 100
    assert 0 < resources.memory_percent <= 100


def test_the_memory_of_all_gpus_is_added_up_in_gigabytes() -> None:
    assert parse_vram("24576, 1024\n24576, 2048\n") == (48.0, 3.0)


@pytest.mark.parametrize("text", ["", "[N/A], [N/A]\n", "NVIDIA-SMI has failed", "1\n"])
def test_a_gpu_that_tells_nothing_has_no_figures(text: str) -> None:
    assert parse_vram(text) is None
