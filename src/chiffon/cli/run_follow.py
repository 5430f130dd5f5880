"""Stay with a run until it ends: show each step as it goes, and what the steps write."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from chiffon.cli.console import is_terminal, print_json
from chiffon.cli.run_view import RunView, name_of, step_name
from chiffon.cli.run_waits import Waits
from chiffon.cli.streams import is_read
from chiffon.client import AnyId, Client
from chiffon.output import Piece, Transcript, read_rest
from common.clock import SystemClock
from common.errors import ChiffonError
from common.messages import Stream
from common.rest.events import Event
from common.rest.runs import Run, RunStep, RunStepStatus

TICK = 0.2
MARKS = {Stream.STDOUT: "|", Stream.STDERR: "!"}


async def follow_run(
    client: Client, run_id: AnyId, *, as_json: bool, quiet: bool, from_start: bool = False
) -> Run | None:
    """Show a run until it ends, and return it; with JSON its events, a line each.

    Of steps that had ended before, the output is shown `from_start` only. Returns None when nobody reads any more.
    """
    run: Run | None = None
    view = RunView(is_live=is_terminal("stdout") and not as_json)
    written = Written(client, view, from_start=from_start)
    waits = Waits(client, view)
    names = AgentNames(client)
    clock = SystemClock()
    beside = [] if as_json else [_tick(view), waits.tell_again()]
    async with _going_on(*beside), aclosing(client.watch_run(run_id)) as news:
        async for told, event in news:
            run = told if as_json else await names.put_into(told)
            waits.stands(run)
            if as_json:
                if event is not None:
                    print_json(event)
            elif quiet:
                view.show(run, clock.now())
            elif event is None:
                view.show(run, clock.now())
                await written.catch_up(run)
            else:
                # What a step wrote comes before what became of it.
                await written.take(run, event)
                if run.is_final:
                    await written.end(clock.now())
                view.show(run, clock.now())
            if run.is_final:
                await written.end(clock.now())
                view.draw(clock.now())
                return run
            if not is_read():
                return None
    return run


class Written:
    """What the steps of a run write, each line once it is whole, each byte once."""

    def __init__(self, client: Client, view: RunView, *, from_start: bool) -> None:
        self._client = client
        self._view = view
        self._from_start = from_start
        self._clock = SystemClock()
        self._names: dict[UUID, str] = {}
        self._transcripts: dict[UUID, Transcript] = {}
        self._passed_over: set[UUID] = set()
        self._unfinished: dict[tuple[UUID, int, Stream], str] = {}

    async def catch_up(self, run: Run) -> None:
        """Show what was stored before a connection was made."""
        self._name(run)
        for step in run.steps:
            if step.task_id is None or step.attempt == 0:
                continue
            is_new = step.task_id not in self._transcripts
            if is_new and step.status != RunStepStatus.RUNNING and not self._from_start:
                self._passed_over.add(step.task_id)
            if step.task_id not in self._passed_over:
                await self._rest(step.task_id, step.attempt)

    async def take(self, run: Run, event: Event) -> None:
        """Show what an event tells."""
        self._name(run)
        if event.kind == "run.step" and event.task_id is not None and event.data.get("run_id") == str(run.run_id):
            # A step may be over, and begun once more, when the ledger is asked: then only its event names this task.
            self._names[event.task_id] = name_of(str(event.data["step"]), str(event.data["kind"]))
        if event.task_id not in self._names or event.task_id in self._passed_over:
            return
        transcript = self._transcripts.setdefault(event.task_id, Transcript())
        for piece in transcript.take_event(event):
            self._add(event.task_id, piece, event.at)

    async def end(self, at: datetime) -> None:
        """Show what was stored after the last event, and lines without an end."""
        for task_id, transcript in self._transcripts.items():
            if not transcript.is_complete:
                await self._rest(task_id, transcript.attempt)
        self._transcripts.clear()
        for (task_id, _, stream), text in self._unfinished.items():
            if text:
                self._view.wrote(self._names[task_id], MARKS[stream], text, at)
        self._unfinished.clear()

    def _name(self, run: Run) -> None:
        for step in run.steps:
            if step.task_id is not None:
                self._names[step.task_id] = step_name(step)

    async def _rest(self, task_id: UUID, attempt: int) -> None:
        transcript = self._transcripts.setdefault(task_id, Transcript())
        transcript.begin(attempt)
        for stream in Stream:
            async with aclosing(read_rest(self._client, task_id, stream, transcript)) as pieces:
                async for piece in pieces:
                    for ready in transcript.take(stream, transcript.position(stream), piece.text):
                        self._add(task_id, ready, self._clock.now())

    def _add(self, task_id: UUID, piece: Piece, at: datetime) -> None:
        key = task_id, piece.attempt, piece.stream
        *lines, self._unfinished[key] = (self._unfinished.get(key, "") + piece.text).split("\n")
        for line in lines:
            self._view.wrote(self._names[task_id], MARKS[piece.stream], line, at)


class AgentNames:
    """The names of agents, of which events have the ids only."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._names: dict[UUID, str] = {}

    async def put_into(self, run: Run) -> Run:
        """Return a run whose steps name their agents; the orchestrator is asked once for each that is not known yet."""
        unnamed = [step.agent_id for step in run.steps if step.agent_id is not None and not step.agent_name]
        if not unnamed:
            return run
        if unknown := set(unnamed) - self._names.keys():
            with suppress(ChiffonError):
                stored = await self._client.run(run.run_id)
                self._names |= {step.agent_id: step.agent_name or "" for step in stored.steps if step.agent_id}
            self._names = dict.fromkeys(unknown, "") | self._names
        steps = [
            step if step.agent_id is None or step.agent_name else _named(step, self._names[step.agent_id])
            for step in run.steps
        ]
        return run.model_copy(update={"steps": steps})


def _named(step: RunStep, name: str) -> RunStep:
    return step.model_copy(update={"agent_name": name or None})


async def _tick(view: RunView) -> None:
    """Have the durations go on while nothing happens."""
    while True:
        await asyncio.sleep(TICK)
        view.draw(SystemClock().now())


@asynccontextmanager
async def _going_on(*beside: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have these go on until the end."""
    tasks = [asyncio.create_task(one) for one in beside]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
