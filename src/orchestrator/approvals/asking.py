"""What happens to approvals inside the transactions that store, end and lease tasks. Those write the events."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from common.rest.approvals import ApprovalState
from orchestrator.approvals import events as told
from orchestrator.approvals import queries
from orchestrator.approvals.model import Approval, NewApproval, StoredWork
from orchestrator.approvals.rules import ApprovalMismatch, Use, judge_use, withhold
from orchestrator.database.pool import Connection
from orchestrator.events.model import NewEvent


async def ask(db: Connection, new: Sequence[NewApproval]) -> list[NewEvent]:
    """Store the questions of tasks that are stored in the same transaction."""
    if new:
        await queries.insert(db, new)
    return [told.requested(one) for one in new]


async def end(db: Connection, task_ids: Collection[UUID], *, by: str) -> list[NewEvent]:
    """End the approvals of locked tasks that were cancelled."""
    ended = await queries.cancel_for(db, task_ids) if task_ids else []
    return [told.cancelled(*one, by=by) for one in ended]


async def named(db: Connection, approval_ids: Collection[UUID]) -> Mapping[UUID, Approval]:
    """Return those approvals that there are, locked."""
    return await queries.lock(db, sorted(approval_ids)) if approval_ids else {}


async def check_uses(db: Connection, uses: Mapping[int, Use]) -> dict[int, ApprovalMismatch]:
    """Return those of the uses, by their numbers, that do not count, and why. The approvals stay locked."""
    if not uses:
        return {}
    known = await queries.lock(db, sorted({use.approval_id for use in uses.values()}))
    now = await queries.now(db)
    first: dict[UUID, UUID] = {}
    refused: dict[int, ApprovalMismatch] = {}
    for number, use in uses.items():
        problem = judge_use(known.get(use.approval_id), use, now=now)
        if problem is None and first.setdefault(use.approval_id, use.task_id) != use.task_id:
            problem = f"it is used already, by the task {first[use.approval_id]}"
        if problem is not None:
            refused[number] = ApprovalMismatch(use.approval_id, problem)
    return refused


async def spend(db: Connection, uses: Collection[Use]) -> None:
    """Spend approvals that were checked on tasks that are new."""
    if uses:
        await queries.bind(db, [(use.approval_id, use.task_id, use.trace_id) for use in uses])


class Consent:
    """Whether tasks that are about to be leased may run: what they hold is what was ruled about, and approved.

    `found` are those that were asked about and may not.
    """

    def __init__(self, approvals: dict[UUID, Approval], now: datetime) -> None:
        self._approvals = approvals
        self._now = now
        self.found: set[UUID] = set()

    @classmethod
    async def open(cls, db: Connection, works: Iterable[StoredWork], *, now: datetime) -> "Consent":
        """Read and lock the approvals of locked tasks; most tasks have none."""
        ids = {work.approval_id for work in works if work.approval_id is not None}
        return cls(await queries.lock(db, sorted(ids)) if ids else {}, now)

    def withheld(self, work: StoredWork) -> str | None:
        """Say why no attempt of a task may begin; None when one may."""
        approval = None if work.approval_id is None else self._approvals.get(work.approval_id)
        reason = withhold(work, approval, now=self._now)
        if reason is not None:
            self.found.add(work.task_id)
        return reason

    async def use(self, db: Connection, works: Iterable[StoredWork]) -> None:
        """Note that these tasks begin: from now on their approvals are used."""
        begun = {
            work.approval_id
            for work in works
            if work.approval_id is not None and self._approvals[work.approval_id].state is ApprovalState.APPROVED
        }
        if begun:
            await queries.use(db, begun)
