"""The work types that this agent can run."""

from typing import Any

from agents.executors.ansible import AnsibleExecutor
from agents.executors.base import Executor, Host
from agents.executors.echo import EchoExecutor
from agents.executors.metrics import MetricsExecutor
from agents.executors.shell import ShellExecutor

BUILT_IN: tuple[type[Executor[Any]], ...] = (EchoExecutor, ShellExecutor, AnsibleExecutor, MetricsExecutor)


def executors(host: Host) -> dict[str, Executor[Any]]:
    """Return the executors that this host offers, by work type."""
    offered = (one.offer(host) for one in BUILT_IN)
    return {executor.kind: executor for executor in offered if executor is not None}
