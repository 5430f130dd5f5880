"""The use cases of the contract: ask for a repair, look, approve, try again. Each is one of runs."""

import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from common.compose import PatchSource
from common.rest.repairs import RepairPriority, RepairStatus, RepairStepName
from common.rest.runs import SERVICE_KEY
from orchestrator.artifacts.model import Artifact
from orchestrator.artifacts.service import ArtifactService
from orchestrator.database.pool import Connection, Pool
from orchestrator.identities.model import Caller
from orchestrator.repairs import queries
from orchestrator.repairs.errors import (
    ApprovalInvalid,
    ApprovalNotApplicable,
    MissingActionPlan,
    RetryNotAllowed,
)
from orchestrator.repairs.model import Asked, Known, RepairFilter
from orchestrator.repairs.planner import ask_of, first_parameters, plan_of, steps_for_people
from orchestrator.repairs.profiles import Services
from orchestrator.repairs.rules import Shown, prepared_diff, resumption, shown_steps
from orchestrator.runs.service import RunNotFound, RunNotPossible, RunService


class RepairService:
    """Has services repaired. `check` is `OrchestratorService.task_of`: it says whether work could be dispatched."""

    def __init__(
        self,
        pool: Pool,
        runs: RunService,
        artifacts: ArtifactService,
        services: Services,
        *,
        check: Callable[..., object],
    ) -> None:
        self._pool = pool
        self._runs = runs
        self._artifacts = artifacts
        self._services = services
        self._check = check

    async def start(
        self,
        service: str,
        instruction: str,
        *,
        patch: PatchSource | None,
        priority: RepairPriority,
        trace_id: UUID,
        by: Caller,
    ) -> Known:
        """Plan a repair and have it run.

        Raises `UnknownService`, `InvalidInstruction`, `InvalidField` and `RefusedByPolicy`.
        """
        profile = self._services.get(service)
        ask = ask_of(instruction, patch, priority, profile=profile)
        plan, run_id = plan_of(profile, ask), uuid4()
        first = plan.steps[0]
        # What the policy, or a host, would refuse is refused before there is a run of it.
        self._check(
            uuid4(), first.work_type, first_parameters(plan, run_id), first.priority, hints=first.hints, requested_by=by
        )
        about: dict[str, Any] = {
            "service": profile.name,
            "instruction": ask.instruction,
            "priority": priority.value,
            "gate": profile.service.requirement.value,
            "plan_steps": steps_for_people(profile, ask),
        }
        await self._runs.start(
            plan,
            {},
            run_id=run_id,
            request_id=uuid4(),
            trace_id=trace_id,
            requested_by=by,
            key=f"{SERVICE_KEY}{profile.name}",
            about=about,
        )
        return await self.get(run_id)

    async def get(self, run_id: UUID) -> Known:
        """Return a repair, or raise `RunNotFound`, also for a run that is none."""
        async with self._pool.acquire() as db:
            return await _known(db, run_id)

    async def newest(self, wanted: RepairFilter, *, limit: int, offset: int) -> list[Known]:
        """Return matching repairs, newest first."""
        async with self._pool.acquire() as db:
            rows = await queries.newest(db, wanted, limit=limit, offset=offset)
            asked = await queries.approvals(db, [row.run_id for row in rows])
        return [Known(row, asked.get(row.run_id, ())) for row in rows]

    async def detail(self, run_id: UUID) -> tuple[Known, list[Shown], list[str], list[Artifact]]:
        """Return a repair with its steps, the diff that people are asked about, and what it left, or raise
        `RunNotFound`.
        """
        known, view = await self.get(run_id), await self._runs.get(run_id)
        return known, shown_steps(view), prepared_diff(view), await self._artifacts.of_run(run_id)

    async def artifacts(self, run_id: UUID) -> list[Artifact]:
        """Return what the steps of a repair left, oldest first, or raise `RunNotFound`."""
        await self.get(run_id)
        return await self._artifacts.of_run(run_id)

    async def approve(
        self,
        run_id: UUID,
        *,
        approver: str,
        role: str,
        token: str,
        expires_at: datetime | None,
        by: Caller,
        own_token: str,
    ) -> Known:
        """Say yes to what a repair waits for, as `by`; the rest of what is said must agree with who that is.

        `own_token` is the one with which it is said. Raises `RunNotFound`, `ApprovalNotApplicable`, `ApprovalInvalid`,
        and what `ApprovalService.approve` raises.
        """
        async with self._pool.acquire() as db:
            known = await _known(db, run_id)
            now = await queries.now(db)
        waiting = known.waits_for
        if waiting is None or known.row.status is not RepairStatus.AWAITING_APPROVAL:
            raise ApprovalNotApplicable(f"The run {run_id} waits for no approval: it is {known.row.status}.")
        _check_approver(waiting, approver, role, by)
        if not _is_token_of(waiting, token, own_token):
            raise ApprovalInvalid("token must be the approval_id that the run waits for, or the caller's own token.")
        if expires_at is not None and expires_at <= now:
            raise ApprovalInvalid(f"expires_at is over: {expires_at.isoformat(timespec='seconds')}.")
        comment = f"as {role}" + ("" if expires_at is None else f", until {expires_at.isoformat()}")
        try:
            await self._runs.approve(run_id, by=by, comment=comment, approval_id=waiting.approval_id, until=expires_at)
        except RunNotPossible as gone:
            raise ApprovalNotApplicable(str(gone)) from gone
        return await self.get(run_id)

    async def retry(self, run_id: UUID, *, step: RepairStepName | None, reason: str, by: Caller) -> Known:
        """Try a repair again that failed: from a step, by default from the one that failed.

        Raises `RunNotFound`, `MissingActionPlan`, `RetryNotAllowed` and `InvalidResumeStep`.
        """
        async with self._pool.acquire() as db:
            row = await queries.find(db, run_id)
            if row is None and await queries.is_a_run(db, run_id):
                raise MissingActionPlan(f"The run {run_id} is no repair of a service, so it has no plan of one.")
        if row is None:
            raise RunNotFound(run_id)
        goes_on = resumption(await self._runs.get(run_id), row.status, step)
        try:
            await self._runs.retry(run_id, by=by, from_step=goes_on.from_step, reason=reason, changes=goes_on.changes)
        except RunNotPossible as busy:
            raise RetryNotAllowed(str(busy)) from busy
        return await self.get(run_id)


async def _known(db: Connection, run_id: UUID) -> Known:
    row = await queries.find(db, run_id)
    if row is None:
        raise RunNotFound(run_id)
    return Known(row, (await queries.approvals(db, [run_id])).get(run_id, ()))


def _check_approver(waiting: Asked, approver: str, role: str, by: Caller) -> None:
    """Raise `ApprovalInvalid` unless the one who approves is the caller, in a role that counts, for the first time."""
    if approver not in (by.name, str(by.principal_id)):
        raise ApprovalInvalid(f"approver.id must be who makes this request, {by.name!r}: nobody approves for another.")
    if role not in by.roles:
        raise ApprovalInvalid(f"approver.role must be a role of {by.name!r}: {', '.join(sorted(by.roles))}.")
    if role not in waiting.roles:
        raise ApprovalInvalid(f"approver.role must be one that counts here: {', '.join(waiting.roles)}.")
    if by.principal_id in waiting.voters:
        raise ApprovalInvalid(f"{by.name!r} has approved this already: it needs another person, too.")


def _is_token_of(waiting: Asked, token: str, own_token: str) -> bool:
    is_id = hmac.compare_digest(token.lower().encode(), str(waiting.approval_id).encode())
    is_own = bool(own_token) and hmac.compare_digest(token.encode(), own_token.encode())
    return is_id or is_own
