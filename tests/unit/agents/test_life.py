"""Whether the process that started an attempt still runs is known of this host and container only."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.disk.journal import Started
from agents.processes.life import Fate, fate_of, own_life


def started(**changes: Any) -> Started:
    """Return the line of an attempt that this process has started."""
    own = own_life()
    values: dict[str, Any] = {
        "boot_id": own.host_boot_id,
        "pid_namespace": own.pid_namespace,
        "agent_pid": own.pid,
        "agent_ticks": own.start_ticks,
    }
    ids = {"task_id": uuid4(), "trace_id": uuid4(), "request_id": uuid4()}
    return Started(attempt=1, work_type="shell_script", **ids, **{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "fate"),
    [
        ({}, Fate.RUNS),
        ({"agent_ticks": 1}, Fate.OVER),
        ({"agent_pid": 2**30}, Fate.OVER),
        ({"boot_id": str(UUID(int=0))}, Fate.UNKNOWN),
        ({"pid_namespace": 1}, Fate.UNKNOWN),
        ({"boot_id": str(UUID(int=0)), "agent_ticks": 0, "pid_namespace": 0}, Fate.OVER),
    ],
    ids=["it runs", "its id is another's", "it is gone", "another host", "another container", "an earlier version"],
)
def test_the_process_that_started_an_attempt_is_told_from_others(changes: dict[str, Any], fate: Fate) -> None:
    assert fate_of(started(**changes)) is fate
