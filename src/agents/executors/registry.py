"""The work types that this agent can run."""

from agents.executors.base import Executor
from agents.executors.echo import EchoExecutor
from agents.executors.shell import ShellExecutor


def executors() -> dict[str, Executor]:
    known: list[Executor] = [EchoExecutor(), ShellExecutor()]
    return {executor.kind: executor for executor in known}
