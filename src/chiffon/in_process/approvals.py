"""Approvals of executions: a yes or a no of one person, or neither in time. A yes is for one attempt, in time."""

from datetime import datetime, timedelta

from chiffon.in_process import queries
from chiffon.in_process.model import Execution, check_name_argument, check_text_argument
from chiffon.in_process.queries import Connection
from chiffon.in_process.store import Store
from common.clock import Clock
from common.errors import ChiffonError, Conflict, ErrorCode
from common.lifecycle import Change, Status, next_status

LONGEST_REASON = 2000
EXPIRY = "orchestrator"


class ApprovalNotPossible(Conflict):
    """The execution does not wait for an approval (any longer)."""

    code = ErrorCode.APPROVAL_NOT_POSSIBLE


class ApprovalForbidden(ChiffonError):
    """The person may not answer: it is a request of their own."""

    code = ErrorCode.FORBIDDEN

    def __init__(self, by: str) -> None:
        super().__init__(f"{by!r} requested this execution: another person approves or rejects it.")


class Approvals:
    """Takes the answers of people, one transaction each.

    An execution waits for an answer as long as `wait`, and once approved must begin within the same time.
    """

    def __init__(self, store: Store, clock: Clock, wait: timedelta) -> None:
        self._store = store
        self._clock = clock
        self._wait = wait

    def expires_at(self) -> datetime:
        """Return until when what begins to wait now can be approved, or may begin once it is."""
        return self._clock.now() + self._wait

    async def approve(self, execution_id: str, *, by: str) -> Execution:
        """Have an execution wait to be run; nothing changes when the same person approved it before.

        Raises `UnknownExecution`, `ApprovalForbidden` and `ApprovalNotPossible`.
        """
        check_name_argument("by", by)

        def work(db: Connection) -> Execution:
            now = self._clock.now()
            execution = self._store.find(db, execution_id).execution
            if by == execution.requested_by:
                raise ApprovalForbidden(by)
            if execution.approved_by == by and not _is_open(execution):
                return execution
            _check_open(execution, now)
            # A refused execution never began, so its end is taken back; every other move is in the table.
            after = Status.PENDING if execution.refused else next_status(execution.status, Change.APPROVE)
            queries.let_go(
                db,
                execution_id,
                after,
                approved_by=by,
                approval_id=execution.approval_id,
                approval_expires_at=self.expires_at(),
            )
            queries.note(db, execution_id, "approval.approved", {"by": by, "digest": execution.digest}, now)
            return self._store.find(db, execution_id).execution

        return await self._store.transaction(work)

    async def reject(self, execution_id: str, *, by: str, reason: str) -> Execution:
        """Cancel an execution that waits for approval; a refused one stays failed, and cannot be approved any more.

        Raises what `approve` raises.
        """
        check_name_argument("by", by)
        check_text_argument("reason", reason, longest=LONGEST_REASON)

        def work(db: Connection) -> Execution:
            now = self._clock.now()
            execution = self._store.find(db, execution_id).execution
            if by == execution.requested_by:
                raise ApprovalForbidden(by)
            _check_open(execution, now)
            after = execution.status if execution.refused else next_status(execution.status, Change.REJECT)
            _end(db, execution_id, after, f"rejected by {by}: {reason}", now)
            queries.note(db, execution_id, "approval.rejected", {"by": by, "reason": reason}, now)
            return self._store.find(db, execution_id).execution

        return await self._store.transaction(work)

    async def expire(self) -> int:
        """Cancel the executions that were not approved in time, or did not begin in time; return how many."""

        def work(db: Connection) -> int:
            now = self._clock.now()
            overdue = queries.overdue(db, now)
            for execution_id, status in overdue:
                waited = status is Status.AWAITING_APPROVAL
                reason = "not approved in time" if waited else "approved, and not begun in time"
                _end(db, execution_id, next_status(status, Change.CANCEL), reason, now)
                queries.note(db, execution_id, "approval.expired", {"by": EXPIRY}, now)
            return len(overdue)

        return await self._store.transaction(work)


def _is_open(execution: Execution) -> bool:
    return execution.refused or execution.status is Status.AWAITING_APPROVAL


def _check_open(execution: Execution, now: datetime) -> None:
    name, until = execution.execution_id, execution.approval_expires_at
    if not _is_open(execution):
        by = "" if execution.approved_by is None else f", approved by {execution.approved_by!r}"
        raise ApprovalNotPossible(
            f"The execution {name!r} does not wait for an approval: it is {execution.status}{by}."
        )
    if until is None or until <= now:
        at = "" if until is None else until.isoformat(timespec="seconds")
        raise ApprovalNotPossible(f"The execution {name!r} could be approved until {at}.")


def _end(db: Connection, execution_id: str, status: Status, message: str, now: datetime) -> None:
    queries.end(db, execution_id, status, error=(message, ErrorCode.APPROVAL_DENIED), at=now)
    queries.note(db, execution_id, f"execution.{status}", {"error": message}, now)
