"""What a host measures can be asked for like what an agent says that it has."""

from collections.abc import Mapping
from typing import Any

import pytest

from common.messages import Resources
from orchestrator.placement.rules import has
from orchestrator.registry.rules import labels_of_agent
from tests.factories import make_heartbeat


def labels(*, said: Mapping[str, Any] | None = None, **measured: Any) -> dict[str, Any]:
    resources = Resources(cpu_percent=1.0, memory_percent=2.0, **measured)
    return labels_of_agent(make_heartbeat(resources=resources, labels=said or {}), None)


def test_what_is_measured_is_a_label() -> None:
    assert labels(cores=16, load=3.5, memory_free_gb=20.25, gpu_vram_total_gb=24.0, gpu_vram_available_gb=9.5) == {
        "cores": 16,
        "idle_cores": 12.5,
        "memory_free_gb": 20.25,
        "gpu_vram_total_gb": 24.0,
        "gpu_vram_available_gb": 9.5,
    }


@pytest.mark.parametrize(("load", "may"), [(0.0, True), (2.0, True), (2.5, False), (40.0, False)])
def test_work_that_needs_idle_cores_goes_to_hosts_with_little_load(load: float, may: bool) -> None:
    assert has(labels(cores=4, load=load), "idle_cores", 2) is may


def test_a_host_with_more_load_than_cores_has_none_idle() -> None:
    assert labels(cores=2, load=9.0)["idle_cores"] == 0


def test_an_agent_that_does_not_measure_has_no_such_labels() -> None:
    assert labels(said={"zone": "eu"}) == {"zone": "eu"}


def test_what_the_operator_says_counts_before_what_is_measured() -> None:
    assert labels(said={"cores": 2}, cores=16, load=0.0)["cores"] == 2
