"""What every executor gets from its base: checked parameters, a stop, and words for a missing secret."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest

from agents.attempts.stopping import StopReason, StopSignal
from agents.executors.base import ExecutionContext, Executor, Outcome
from agents.executors.permitted import Permitted
from agents.processes.keepers import Keepers
from common.errors import ErrorCode
from common.messages import ResultStatus, Stream, WorkRequest
from common.work import Parameters, SecretReference

Do = Callable[[ExecutionContext], Awaitable[Outcome]]


class Given(Parameters):
    """What the test gives."""

    number: int = 0


class Doing(Executor[Given]):
    kind: ClassVar[str] = "doing"
    parameters = Given

    def __init__(self, do: Do) -> None:
        self._do = do

    async def carry_out(self, parameters: Given, context: ExecutionContext) -> Outcome:
        return await self._do(context)


async def execute(do: Do, keepers: Keepers, *, stop: StopSignal | None = None, **parameters: Any) -> Outcome:
    work = WorkRequest(task_id=uuid4(), work_type="doing", parameters=parameters)
    context = ExecutionContext(
        workspace=Path("/nowhere"),
        inherited={},
        ids={},
        write=_nothing,
        stop=stop or StopSignal(),
        kill_grace_seconds=1.0,
        keepers=keepers,
    )
    return await Doing(do).execute(Permitted(work), context)


async def _nothing(_stream: Stream, _data: bytes) -> None:
    pass


async def never(_context: ExecutionContext) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError("it was to be stopped")


async def test_parameters_that_the_model_refuses_start_nothing(keepers: Keepers) -> None:
    outcome = await execute(never, keepers, number="many", other=1)

    assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.INVALID_REQUEST)
    assert "number: " in str(outcome.error_message)
    assert "other: " in str(outcome.error_message)


async def test_a_stop_cancels_what_does_not_watch_for_it_and_waits_for_its_end(keepers: Keepers) -> None:
    stop, steps = StopSignal(), list[str]()

    async def tidy(context: ExecutionContext) -> Outcome:
        steps.append("begun")
        asyncio.get_running_loop().call_soon(lambda: stop.order(StopReason.CANCELLED, grace=1.0))
        try:
            return await never(context)
        finally:
            await asyncio.sleep(0)
            steps.append("tidied")

    outcome = await execute(tidy, keepers, stop=stop)

    assert outcome == Outcome(ResultStatus.CANCELLED)
    assert steps == ["begun", "tidied"]


async def test_work_that_ends_although_it_was_cancelled_counts_as_it_ended(keepers: Keepers) -> None:
    stop = StopSignal()

    async def answer(context: ExecutionContext) -> Outcome:
        asyncio.get_running_loop().call_soon(lambda: stop.order(StopReason.CANCELLED, grace=1.0))
        try:
            return await never(context)
        except asyncio.CancelledError:
            return Outcome(ResultStatus.CANCELLED, result={"done": 3})

    outcome = await execute(answer, keepers, stop=stop)

    assert outcome.result == {"done": 3}


async def test_nothing_goes_on_when_the_attempt_itself_is_cancelled(keepers: Keepers) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def note(context: ExecutionContext) -> Outcome:
        begun.set()
        try:
            return await never(context)
        finally:
            ended.set()

    attempt = asyncio.create_task(execute(note, keepers))
    await begun.wait()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt

    assert ended.is_set()


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_secret_that_is_not_there_is_told_unless_the_work_was_stopped(
    keepers: Keepers, is_stopped: bool
) -> None:
    stop = StopSignal()

    async def ask(context: ExecutionContext) -> Outcome:
        if is_stopped:
            stop.order(StopReason.CANCELLED, grace=1.0)
        await context.text_of(SecretReference(secret="db"))
        raise AssertionError("there is no such secret")

    outcome = await execute(ask, keepers, stop=stop)

    if is_stopped:
        assert outcome == Outcome(ResultStatus.CANCELLED)
    else:
        assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.SECRET_NOT_AVAILABLE)
