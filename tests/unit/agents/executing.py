"""Run one executor as an agent does, without one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from agents.attempts.stopping import StopSignal
from agents.executors.base import ExecutionContext, Executor, Outcome, SecretUnavailable
from agents.executors.enclosure import OPEN
from agents.executors.permitted import Permitted
from agents.processes.keepers import Keepers
from common.messages import Stream, WorkRequest

IDS = {"CHIFFON_TASK_ID": "the-task", "CHIFFON_TRACE_ID": "the-trace", "CHIFFON_ATTEMPT": "1"}


async def no_secret(name: str) -> str:
    raise SecretUnavailable(name, "there is none here")


class Output:
    """What the work wrote. `seen` is called with everything so far whenever more comes."""

    def __init__(self) -> None:
        self.streams = {stream: bytearray() for stream in Stream}
        self.seen: Callable[[str], object] = len

    async def write(self, stream: Stream, data: bytes) -> None:
        self.streams[stream] += data
        self.seen(self.text)

    @property
    def text(self) -> str:
        return self.of(Stream.STDOUT) + self.of(Stream.STDERR)

    def of(self, stream: Stream) -> str:
        return self.streams[stream].decode()


def make_context(workspace: Path, keepers: Keepers, output: Output, **changes: Any) -> ExecutionContext:
    context = ExecutionContext(
        workspace=workspace,
        inherited={"PATH": "/usr/bin:/bin"},
        ids=IDS,
        write=output.write,
        stop=StopSignal(),
        kill_grace_seconds=2.0,
        keepers=keepers,
        secret=no_secret,
        enclosure=OPEN,
    )
    return replace(context, **changes)


async def execute(executor: Executor[Any], parameters: Mapping[str, Any], context: ExecutionContext) -> Outcome:
    work = WorkRequest(task_id=uuid4(), work_type=executor.kind, parameters=dict(parameters))
    return await executor.execute(Permitted(work), context)
