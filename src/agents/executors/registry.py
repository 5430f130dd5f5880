"""The work types that this agent can run."""

from typing import Any

from agents.executors.base import Executor
from agents.executors.echo import EchoExecutor
from agents.executors.metrics import MetricsExecutor
from agents.executors.shell import ShellExecutor


def executors() -> dict[str, Executor[Any]]:
    known: list[Executor[Any]] = [EchoExecutor(), ShellExecutor(), MetricsExecutor()]
    return {executor.kind: executor for executor in known}
