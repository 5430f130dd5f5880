"""Why the steps of a run wait: what `chiffon why` says of their tasks, asked only while somebody looks."""

import asyncio
from collections.abc import Collection
from typing import NamedTuple
from uuid import UUID

from chiffon.cli.run_view import RunView, step_name
from chiffon.client import Client
from chiffon.errors import ApiError
from common.clock import SystemClock
from common.errors import ChiffonError, ErrorCode
from common.rest.runs import Run, RunStep, RunStepStatus
from common.rest.why import Why

# Seconds between two looks at what waits. A step that waits at two looks has waited long enough to be explained.
LOOK_EVERY = 2.0
# So many steps are asked about in one look, the first of the plan.
MOST_ASKED = 20

WAITING = frozenset({RunStepStatus.PENDING, RunStepStatus.AWAITING_APPROVAL})
# A step whose attempt was lost, or is tried again, is at work for its run, while its task waits.
OPEN = WAITING | {RunStepStatus.RUNNING}


class StepWhy(NamedTuple):
    """What is in the way of the task of a step."""

    step: RunStep
    why: Why

    @property
    def reason(self) -> str:
        """The first of all that is in the way, which is what matters most."""
        return self.why.blockers[0].message

    @property
    def cause(self) -> tuple[object, ...]:
        """What the reason is about: the same while only its numbers and times change."""
        first = self.why.blockers[0]
        return self.step.number, first.kind, first.by, first.key, *(agent.agent_id for agent in first.agents or ())


async def whys(client: Client, run: Run, statuses: Collection[str] = WAITING) -> list[StepWhy]:
    """Return what is in the way of the steps of a run that stand so and have a task, the first of them."""
    open_steps = [step for step in run.steps if step.status in statuses and step.task_id is not None]
    found = []
    for step in open_steps[:MOST_ASKED]:
        assert step.task_id is not None
        try:
            why = await client.why(step.task_id)
        except ApiError as error:
            if error.error_code != ErrorCode.TASK_NOT_FOUND:
                raise
        else:
            found += [StepWhy(step, why)] if why.blockers else []
    return found


def behind(run: Run) -> str | None:
    """Say which run goes before one that waits in line."""
    return None if run.waits_for is None else f"It waits behind the run {run.waits_for} of the same key, {run.key!r}."


async def lines_of(client: Client, run: Run) -> list[str]:
    """Return a line for each step of a run that waits, with the reason, and one for a run that waits in line."""
    if run.is_final:
        return []
    first = behind(run)
    steps = [f"{step_name(one.step)} waits: {one.reason}" for one in await whys(client, run) if one.why.waiting]
    return [*([] if first is None else [first]), *steps]


class Waits:
    """Tells why steps of a run that is followed wait: once they have waited, and again when the cause is another."""

    def __init__(self, client: Client, view: RunView) -> None:
        self._client = client
        self._view = view
        self._clock = SystemClock()
        self._run: Run | None = None
        self._waited: set[UUID] = set()

    def stands(self, run: Run) -> None:
        """Look at the run as it stands now from the next look on."""
        self._run = run

    async def tell(self) -> None:
        """Tell what is to be told now; what cannot be asked is told later."""
        run = self._run
        if run is None or run.is_final:
            return
        waited, self._waited = (
            self._waited,
            {step.task_id for step in run.steps if step.status in WAITING and step.task_id is not None},
        )
        try:
            found = await whys(self._client, run) if waited & self._waited else []
        except ChiffonError:
            return
        if self._run is None or self._run.is_final:
            return
        standing = {step.task_id for step in self._run.steps if step.status in WAITING}
        at = self._clock.now()
        self._view.waits_in_line(behind(self._run), at)
        for one in found:
            if one.step.task_id in waited & standing and one.why.waiting:
                self._view.waits(one.step, one.reason, one.cause, at)

    async def tell_again(self) -> None:
        """Tell, for as long as the run is followed."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            await self.tell()
