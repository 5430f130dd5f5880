"""The use cases of dead letters, one transaction each: note, look, replay, discard."""

import logging
from collections.abc import Sequence
from uuid import UUID, uuid4

from common.broker.base import Broker, Delivery, Outgoing, Unroutable
from common.errors import Conflict, ErrorCode, NotFound
from common.ids import new_request_id
from common.loop import Wake
from common.rest.dead_letters import DeadLetterKind, DeadLetterState
from common.unreadable import Unreadable
from orchestrator.database.pool import Connection, Pool, transaction
from orchestrator.dead_letters import queries
from orchestrator.dead_letters.events import noted, settled
from orchestrator.dead_letters.model import Letter, NewLetter
from orchestrator.dead_letters.rules import FORGED, letter_of, letter_of_report, origin_of
from orchestrator.events import queries as events
from orchestrator.identities.model import Caller
from orchestrator.policy.service import PolicyService
from orchestrator.tasks import queries as task_queries
from orchestrator.tasks.rerun import make_rerun
from orchestrator.tasks.service import TaskNotFound, TaskService

log = logging.getLogger(__name__)


class DeadLetterNotFound(NotFound):
    code = ErrorCode.DEAD_LETTER_NOT_FOUND

    def __init__(self, letter_id: int) -> None:
        super().__init__(f"No dead letter has the id {letter_id}.")


class DeadLetterIsSettled(Conflict):
    def __init__(self, letter: Letter) -> None:
        super().__init__(f"The dead letter {letter.id} is settled: it was {letter.state} by {letter.settled_by}.")


class CannotBeReplayed(Conflict):
    def __init__(self, letter: Letter, because: str) -> None:
        super().__init__(f"The dead letter {letter.id} cannot be replayed: {because}. It can be discarded.")


class DeadLetterService:
    """Keeps what nobody could deal with until a person says what becomes of it."""

    def __init__(self, pool: Pool, broker: Broker, tasks: TaskService, policy: PolicyService, giver: Wake) -> None:
        self._pool = pool
        self._broker = broker
        self._tasks = tasks
        self._policy = policy
        self._giver = giver

    async def note(self, deliveries: Sequence[Delivery]) -> int:
        """Store messages from the dead letters; return how many were not stored before."""
        return await self._note([letter_of(delivery) for delivery in deliveries])

    async def note_reported(self, reports: Sequence[Unreadable]) -> int:
        """Store messages that agents could not read; return how many were not stored before."""
        return await self._note([letter_of_report(report) for report in reports])

    async def _note(self, letters: Sequence[NewLetter]) -> int:
        async with transaction(self._pool) as db:
            new = await queries.add(db, letters)
            await events.append(db, *map(noted, new))
        for letter in new:
            log.warning("dead_letter.noted", extra={"id": letter.id, "queue": letter.queue, "reason": letter.reason})
        return len(new)

    async def get(self, letter_id: int) -> Letter:
        """Return a dead letter with its body, or raise `DeadLetterNotFound`."""
        async with self._pool.acquire() as db:
            letter = await queries.find(db, letter_id)
        if letter is None:
            raise DeadLetterNotFound(letter_id)
        return letter

    async def newest(
        self, *, state: DeadLetterState | None, kind: DeadLetterKind | None, before: int | None, limit: int
    ) -> list[Letter]:
        """Return matching dead letters numbered below `before`, newest first and without their bodies."""
        async with self._pool.acquire() as db:
            return await queries.newest(db, state=state, kind=kind, before=before, limit=limit)

    async def discard(self, letter_id: int, *, by: Caller) -> Letter:
        """Say that nothing more is to be done. Raises `DeadLetterNotFound` and `DeadLetterIsSettled`."""
        async with transaction(self._pool) as db:
            await self._lock(db, letter_id)
            return await self._settle(db, letter_id, DeadLetterState.DISCARDED, by=by.name)

    async def replay(self, letter_id: int, *, by: Caller) -> Letter:
        """Try it again: a message in the queue that it came from, a task as a new one.

        Raises `DeadLetterNotFound`, `DeadLetterIsSettled`, `CannotBeReplayed`, and `BrokerUnavailable`: then the
        letter still waits, though the message may have been sent, and whoever gets a message twice can tell.
        """
        async with transaction(self._pool) as db:
            letter = await self._lock(db, letter_id)
            replayed_as = None
            if letter.kind is DeadLetterKind.TASK:
                replayed_as = await self._rerun(db, letter, by=by)
            else:
                await self._publish(letter)
            answer = await self._settle(db, letter_id, DeadLetterState.REPLAYED, by=by.name, replayed_as=replayed_as)
        self._giver.ring()
        return answer

    async def _lock(self, db: Connection, letter_id: int) -> Letter:
        letter = await queries.lock(db, letter_id)
        if letter is None:
            raise DeadLetterNotFound(letter_id)
        if letter.state is not DeadLetterState.WAITING:
            raise DeadLetterIsSettled(letter)
        return letter

    async def _settle(
        self, db: Connection, letter_id: int, state: DeadLetterState, *, by: str, replayed_as: UUID | None = None
    ) -> Letter:
        letter = await queries.settle(db, letter_id, state, by=by, replayed_as=replayed_as)
        await events.append(db, settled(letter, by=by))
        log.info("dead_letter.settled", extra={"id": letter_id, "state": state, "replayed_as": replayed_as})
        return letter

    async def _rerun(self, db: Connection, letter: Letter, *, by: Caller) -> UUID:
        assert letter.task_id is not None
        task = await task_queries.find(db, letter.task_id)
        if task is None:
            raise TaskNotFound(letter.task_id)
        again = make_rerun(task, task_id=uuid4(), request_id=new_request_id(), rule=self._policy.rule, by=by)
        [answer] = await self._tasks.store(db, [again], by=by.name)
        if isinstance(answer, BaseException):
            raise answer
        return again.task_id

    async def _publish(self, letter: Letter) -> None:
        """Send a message to the queue that it came from; the row stays locked until that is confirmed."""
        if letter.reason.startswith(FORGED):
            raise CannotBeReplayed(letter, "it was not sent by whom it speaks for")
        if letter.body_truncated:
            raise CannotBeReplayed(letter, f"only {letter.body_kept} of its {letter.body_bytes} bytes were kept")
        address = origin_of(letter)
        if address is None:
            raise CannotBeReplayed(letter, f"there is no queue {letter.queue!r}")
        try:
            await self._broker.publish(Outgoing(address, letter.body, type=letter.type, priority=letter.priority))
        except Unroutable:
            raise CannotBeReplayed(letter, f"there is no queue {letter.queue!r} any more") from None
