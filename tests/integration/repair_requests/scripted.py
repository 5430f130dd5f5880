"""A host that repairs nothing: it reports the steps, and leaves the files, of repairs that go as a test says."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from agents.executors.base import ExecutionContext, Executor, Outcome
from common.compose import COMPOSE_REPAIR, REPAIR_STEPS, ComposeRepairParameters, RepairResult
from common.messages import ResultStatus, StepStatus

ROLLBACK = "rollback"
DIFF = "--- a/web/app.py\n+++ b/web/app.py\n"
DIFF_SHA = "d" * 64
SHOWN = ["--- a/web/app.py", "+++ b/web/app.py", "@@ -1 +1 @@", "-print(1)", "+print('é', [redacted])"]
LEFT = {
    "analyze": {"analyze.log": "file"},
    "patch": {"patch.diff": "patch_diff", "patch.log": "file"},
    "build": {"build.log": "build_log"},
    "restart": {"restart.log": "file"},
    "verify": {"verify.log": "verify_log"},
    ROLLBACK: {"rollback.log": "rollback_log"},
}


@dataclass
class Host:
    """What the host is to do, and the tasks that it was given. `fails` maps steps to what they say then.

    A step in `holds` goes on when it is taken out of there. `refuses` is why it begins nothing.
    """

    folder: Path
    fails: dict[str, str] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)
    refuses: str | None = None
    tasks: list[ComposeRepairParameters] = field(default_factory=list)

    def begin_anew(self) -> None:
        """Let all go well and on from now on."""
        self.fails.clear()
        self.holds.clear()
        self.refuses = None


class ScriptedRepair(Executor[ComposeRepairParameters]):
    """Takes the place of the executor of repairs."""

    kind = COMPOSE_REPAIR
    parameters = ComposeRepairParameters
    watches_stop = True
    owns_its_end = True
    host: ClassVar[Host]

    async def carry_out(self, parameters: ComposeRepairParameters, context: ExecutionContext) -> Outcome:
        host = self.host
        host.tasks.append(parameters)
        if host.refuses is not None:
            self._report(context, parameters.steps[0], StepStatus.FAILED, host.refuses)
            self._report(context, ROLLBACK, StepStatus.SKIPPED, "Nothing was begun.")
            return Outcome.failed(host.refuses)
        for step in parameters.steps:
            began = datetime.now(UTC)
            self._report(context, step, StepStatus.IN_PROGRESS, began=began)
            while step in host.holds and context.stop.reason is None:
                await asyncio.sleep(0.01)
            await self._keep(context, step)
            problem = "It was stopped." if context.stop.reason is not None else host.fails.get(step)
            if problem is not None:
                self._report(context, step, StepStatus.FAILED, problem, began=began)
                return await self._rolled_back(context, step, problem)
            self._report(context, step, StepStatus.SUCCEEDED, f"{step} is done.", began=began)
        ending = "prepared"
        if parameters.steps[-1] == "verify":
            ending = "verified"
            self._report(context, ROLLBACK, StepStatus.SKIPPED, "Nothing was rolled back: the service is verified.")
            await self._keep(context, ROLLBACK)
        result = RepairResult(ending=ending, diff_sha256=DIFF_SHA, diff=SHOWN)
        return Outcome(ResultStatus.COMPLETED, result=result.model_dump(mode="json"))

    async def _rolled_back(self, context: ExecutionContext, step: str, problem: str) -> Outcome:
        if step in ("analyze", "patch", "build"):
            self._report(context, ROLLBACK, StepStatus.SKIPPED, "Nothing that runs was touched.")
            return Outcome.failed(problem)
        began = datetime.now(UTC)
        self._report(context, ROLLBACK, StepStatus.IN_PROGRESS, began=began)
        await self._keep(context, ROLLBACK)
        said = self.host.fails.get(ROLLBACK)
        status = StepStatus.SUCCEEDED if said is None else StepStatus.FAILED
        self._report(context, ROLLBACK, status, said or "The files are as before.", began=began)
        return Outcome.failed(problem)

    async def _keep(self, context: ExecutionContext, step: str) -> None:
        for name, kind in LEFT[step].items():
            path = self.host.folder / name
            path.write_text(DIFF if kind == "patch_diff" else f"{name} of task {len(self.host.tasks)}\n")
            await context.keep(name, path, kind)

    def _report(
        self,
        context: ExecutionContext,
        step: str,
        status: StepStatus,
        message: str = "",
        *,
        began: datetime | None = None,
    ) -> None:
        position = (*REPAIR_STEPS, ROLLBACK).index(step)
        context.step(position, step, status, message, began, datetime.now(UTC) if status.is_final else None)
