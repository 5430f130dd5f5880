"""The GPUs are what `nvidia-smi` printed, whatever it printed: recorded outputs of real hosts."""

import pytest

from agents.executors.gpus import MIB, Gpu, most_memory, parse_gpus

TWO = """\
0, NVIDIA GeForce RTX 4090, 24564, 23028, 0
1, NVIDIA GeForce RTX 3060, 12288, 1007, 97
"""
# With MIG, utilisation is reported for its parts only.
MIG = "0, NVIDIA A100-SXM4-80GB, 81920, 81037, [N/A]\n"
# Its memory is the host's.
SHARED = "0, NVIDIA GB10, [N/A], [N/A], 0\n"
OLD = "0, GeForce GTX 770, 2000, 1843, [Not Supported]\n"
LOST = """\
Unable to determine the device handle for GPU0000:0B:00.0: Unknown Error
0, Tesla T4, 15360, 15101, 0
"""
NO_DRIVER = """\
NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is
installed and running.
"""
BROKEN = [
    "",
    "No devices were found\n",
    NO_DRIVER,
    "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.120\n",
    'Field "utilization.gpu" is not a valid field to query.\n',
]


def test_each_gpu_is_told_apart() -> None:
    assert parse_gpus(TWO) == [
        Gpu(0, "NVIDIA GeForce RTX 4090", 24564 * MIB, 23028 * MIB, 0.0),
        Gpu(1, "NVIDIA GeForce RTX 3060", 12288 * MIB, 1007 * MIB, 97.0),
    ]


@pytest.mark.parametrize(
    ("text", "gpu"),
    [
        (MIG, Gpu(0, "NVIDIA A100-SXM4-80GB", 81920 * MIB, 81037 * MIB, None)),
        (SHARED, Gpu(0, "NVIDIA GB10", None, None, 0.0)),
        (OLD, Gpu(0, "GeForce GTX 770", 2000 * MIB, 1843 * MIB, None)),
        (LOST, Gpu(0, "Tesla T4", 15360 * MIB, 15101 * MIB, 0.0)),
    ],
)
def test_a_figure_that_a_gpu_does_not_report_is_none(text: str, gpu: Gpu) -> None:
    assert parse_gpus(text) == [gpu]


@pytest.mark.parametrize("text", BROKEN)
def test_a_tool_that_fails_tells_of_no_gpu(text: str) -> None:
    assert parse_gpus(text) == []


def test_memory_is_that_of_one_gpu_and_never_of_several_together() -> None:
    assert most_memory(parse_gpus("0, A, 24576, 1024, 99\n1, B, 16384, 9216, 3\n")) == (24576 * MIB, 9216 * MIB)


@pytest.mark.parametrize("text", ["", SHARED])
def test_without_memory_of_its_own_there_is_none(text: str) -> None:
    assert most_memory(parse_gpus(text)) is None
