"""Whatever is asked in whatever order, the real services on a real PostgreSQL agree with a model of a few lines.

`CHIFFON_EXAMPLES` multiplies how many histories are tried, `CHIFFON_SEED` repeats a run.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import hypothesis
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.lifecycle import Status
from common.messages import Lease, Renew, ResultStatus, Stream, WorkResult
from common.retry import RetryPolicy
from orchestrator.database.pool import Pool, open_pool
from orchestrator.events import queries as events
from orchestrator.events.model import Event, Kind
from orchestrator.leases import events as told
from orchestrator.leases import queries
from orchestrator.leases.model import Asker
from orchestrator.leases.service import LeaseService
from orchestrator.output.service import OutputService
from orchestrator.tasks.dispatch import IdempotencyConflict
from orchestrator.tasks.model import Identity
from orchestrator.tasks.service import TaskHasEnded, TaskService
from tests.factories import make_chunk, make_new_task, make_result, make_status
from tests.fuzz.bounds import MORE, SEED, bounded
from tests.integration.ledger import register
from tests.integration.orchestrator.ledger_model import Known

HISTORIES = 10
STEPS = 30
AGEING = timedelta(minutes=10)
# No lease ends unless a rule ends it.
LEASE = timedelta(hours=1)
PIECE = "piece"

ROWS = """
    SELECT task_id, status, attempt, unstarted, (lease_expires_at IS NOT NULL) AS is_leased,
           (SELECT count(*) FROM attempt a WHERE a.task_id = t.task_id AND a.ended_at IS NULL) AS open_attempts,
           (SELECT array_agg(a.outcome ORDER BY a.number) FROM attempt a WHERE a.task_id = t.task_id) AS outcomes,
           claim_id AS session,
           status = 'pending' AND admitted AS may_be_leased
      FROM task t WHERE task_id = ANY($1::uuid[])
"""
END_LEASE = "UPDATE task SET lease_expires_at = now() - interval '1 second' WHERE task_id = $1"

STATUS_AFTER = {
    Kind.TASK_DISPATCHED: Status.PENDING,
    Kind.TASK_CLAIMED: Status.RUNNING,
    Kind.TASK_REQUEUED: Status.PENDING,
    Kind.TASK_COMPLETED: Status.COMPLETED,
    Kind.TASK_FAILED: Status.FAILED,
    Kind.TASK_CANCELLED: Status.CANCELLED,
}

which = st.integers(0, 5)


class Ledger(RuleBasedStateMachine):
    """One history of a few tasks and three agents. All histories share a ledger: their ids are their own."""

    url: str
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.known: list[Known] = []
        self.agents = [uuid4() for _ in range(3)]
        self.claims: list[tuple[Known, UUID, int]] = []
        self.results: list[WorkResult] = []
        self.stack = AsyncExitStack()

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @initialize()
    def start(self) -> None:
        self.run(self._open())
        self.began = self.run(self._head())

    async def _open(self) -> None:
        self.pool: Pool = await self.stack.enter_async_context(open_pool(self.url, connections=2))
        policy = RetryPolicy(base=timedelta(0))
        self.tasks = TaskService(self.pool, ageing=AGEING)
        self.leases = LeaseService(self.pool, lease=LEASE, policy=policy)
        self.output = OutputService(self.pool)

    async def _head(self) -> int:
        async with self.pool.acquire() as db:
            return await events.head(db)

    def teardown(self) -> None:
        self.run(self.stack.aclose())

    def task(self, number: int) -> Known:
        return self.known[number % len(self.known)]

    @precondition(lambda self: len(self.known) < 3)
    @rule(most=st.integers(1, 3), twice=st.booleans())
    def submit(self, most: int, twice: bool) -> None:
        new = make_new_task(max_attempts=most, idempotent=most > 1)
        answers = self.run(self.tasks.dispatch([new, replace(new)] if twice else [new], by="caller"))
        assert {answer.task_id for answer in answers} == {new.task_id}
        self.known.append(Known(new))

    @precondition(lambda self: self.known)
    @rule(number=which, how=st.sampled_from(["same", "by request_id", "other content", "other task"]))
    def submit_again(self, number: int, how: str) -> None:
        new = self.task(number).new
        again = {
            "same": replace(new, trace_id=uuid4()),
            "by request_id": replace(new, task_id=uuid4()),
            "other content": replace(new, priority=new.priority % 5 + 1),
            "other task": replace(new, task_id=uuid4(), parameters={"message": "other"}),
        }[how]
        [answer] = self.run(self.tasks.dispatch([again], by="caller"))
        if how in ("same", "by request_id"):
            assert answer == Identity(new.task_id, new.request_id, new.trace_id, new.digest)
        else:
            assert isinstance(answer, IdempotencyConflict)

    @precondition(lambda self: self.known)
    @rule(number=which, agent=st.integers(0, 2), behind=st.integers(0, 1), copies=st.integers(1, 2))
    def claim(self, number: int, agent: int, behind: int, copies: int) -> None:
        known = self.task(number)
        self.claims.append((known, self.agents[agent], max(0, len(known.tries) - behind)))
        self._claim(*self.claims[-1], copies)

    @precondition(lambda self: self.claims)
    @rule(number=st.integers(0, 20), copies=st.integers(1, 2))
    def claim_again(self, number: int, copies: int) -> None:
        self._claim(*self.claims[number % len(self.claims)], copies)

    def _claim(self, known: Known, agent_id: UUID, attempt: int, copies: int) -> None:
        for _ in range(copies):
            session, is_leased = self.run(self._lease(known.new.task_id, agent_id, attempt))
            assert is_leased is known.claim(agent_id, session, attempt)

    async def _lease(self, task_id: UUID, agent_id: UUID, attempt: int) -> tuple[UUID, bool]:
        """Lease a task, read when it had had so many attempts, to an agent that has credit for it."""
        session = await register(self.pool, agent_id, room=1)
        task = replace(await self.tasks.get(task_id), attempt=attempt)
        asker = Asker(agent_id, "infra", session, 1, LEASE)
        claims = [told.claimed(task, agent_id, task.attempt + 1)]
        async with self.pool.acquire() as db:
            leased, _ = await queries.lease(db, [(task, asker)], claims, trial=LEASE)
        return session, task_id in leased

    @precondition(lambda self: self.known)
    @rule(number=which, agent=st.integers(0, 2), by_owner=st.booleans(), behind=st.integers(0, 1))
    def renew(self, number: int, agent: int, by_owner: bool, behind: int) -> None:
        known = self.task(number)
        agent_id = known.last.agent_id if by_owner and known.tries else self.agents[agent]
        lease = Lease(task_id=known.new.task_id, attempt=max(1, len(known.tries) - behind))
        renewal = Renew(renewal_id=uuid4(), agent_id=agent_id, leases=[lease])
        [(answered, renewed)] = self.run(self.leases.renew([renewal]))
        assert (answered, renewed.renewal_id) == (agent_id, renewal.renewal_id)
        assert (renewed.kept, renewed.lost) == (
            ([lease], []) if known.holds(agent_id, lease.attempt) else ([], [lease])
        )

    @precondition(lambda self: any(known.tries for known in self.known))
    @rule(
        number=which,
        back=st.integers(0, 1),
        status=st.sampled_from(ResultStatus),
        retryable=st.booleans(),
        started=st.booleans(),
        stranger=st.sampled_from([False, False, False, True]),
        ahead=st.sampled_from([0, 0, 0, 1]),
        copies=st.integers(1, 2),
    )
    def report(
        self,
        number: int,
        back: int,
        status: ResultStatus,
        retryable: bool,
        started: bool,
        stranger: bool,
        ahead: int,
        copies: int,
    ) -> None:
        tried = [known for known in self.known if known.tries]
        known = tried[number % len(tried)]
        attempt = max(1, len(known.tries) - back)
        one = known.tries[attempt - 1]
        result = make_result(
            known.new.task_id,
            uuid4() if stranger else one.agent_id,
            status=status,
            attempt=attempt,
            retryable=retryable,
            started=started or status is not ResultStatus.FAILED,
        )
        self.results.append(result)
        self._accept([result] * copies)

    @precondition(lambda self: self.results)
    @rule(number=st.integers(0, 20), other=st.integers(0, 20))
    def report_again(self, number: int, other: int) -> None:
        self._accept([self.results[number % len(self.results)], self.results[other % len(self.results)]])

    def _accept(self, results: list[WorkResult]) -> None:
        self.run(self.leases.accept(results))
        for result in results:
            next(one for one in self.known if one.new.task_id == result.task_id).result(result)

    @precondition(lambda self: self.known)
    @rule(number=which)
    def cancel(self, number: int) -> None:
        known = self.task(number)
        if known.cancel() or known.status is Status.CANCELLED:
            self.run(self.tasks.cancel(known.new.task_id, by="caller"))
        else:
            with pytest.raises(TaskHasEnded):
                self.run(self.tasks.cancel(known.new.task_id, by="caller"))

    @precondition(lambda self: any(known.status is Status.RUNNING for known in self.known))
    @rule(number=which)
    def let_a_lease_run_out(self, number: int) -> None:
        running = [known for known in self.known if known.status is Status.RUNNING]
        known = running[number % len(running)]
        self.run(self._end_lease(known.new.task_id))
        assert self.run(self.leases.reap(limit=10)) == 1
        known.lose_lease()

    async def _end_lease(self, task_id: UUID) -> None:
        async with self.pool.acquire() as db:
            await db.execute(END_LEASE, task_id)

    @precondition(lambda self: any(known.tries for known in self.known))
    @rule(
        number=which,
        stream=st.sampled_from(Stream),
        pieces=st.lists(st.integers(0, 3), min_size=1, max_size=4),
        stranger=st.sampled_from([False, False, True]),
    )
    def write(self, number: int, stream: Stream, pieces: list[int], stranger: bool) -> None:
        tried = [known for known in self.known if known.tries]
        known = tried[number % len(tried)]
        one = known.last
        chunks = [make_chunk(piece, PIECE, offset=piece * len(PIECE), stream=stream) for piece in pieces]
        agent_id = uuid4() if stranger else one.agent_id
        sent = make_status(known.new.task_id, agent_id, *chunks, attempt=len(known.tries))
        self.run(self.output.store([sent]))
        if not stranger:
            one.pieces.update({(stream.value, piece * len(PIECE)): PIECE for piece in pieces})
        page = self.run(
            self.output.read(known.new.task_id, attempt=len(known.tries), stream=stream, offset=0, limit=1000)
        )
        assert page.text == known.text(len(known.tries), stream.value)

    @rule()
    def restart(self) -> None:
        self.run(self.stack.aclose())
        self.run(self._open())

    @invariant()
    def the_ledger_is_as_the_model(self) -> None:
        if not self.known:
            return
        rows = {row["task_id"]: row for row in self.run(self._rows())}
        for known in self.known:
            row = rows[known.new.task_id]
            runs, waits = known.status is Status.RUNNING, known.status is Status.PENDING
            assert (row["status"], row["attempt"]) == (known.status, len(known.tries))
            assert row["unstarted"] == known.unstarted
            assert row["attempt"] - row["unstarted"] <= known.new.max_attempts
            assert (row["is_leased"], row["open_attempts"], row["may_be_leased"]) == (runs, int(runs), waits)
            assert row["session"] == (known.last.claim_id if runs else None)
            assert (row["outcomes"] or []) == [one.outcome for one in known.tries]

    @invariant()
    def every_lease_was_counted_once(self) -> None:
        counted = self.run(self._granted())
        tries = Counter(one.agent_id for known in self.known for one in known.tries)
        assert {agent_id: count for agent_id, count in counted.items() if count} == dict(tries)

    async def _granted(self) -> dict[UUID, int]:
        async with self.pool.acquire() as db:
            rows = await db.fetch("SELECT agent_id, granted FROM agent WHERE agent_id = ANY($1::uuid[])", self.agents)
        return {row["agent_id"]: row["granted"] for row in rows}

    async def _rows(self) -> Any:
        async with self.pool.acquire() as db:
            return await db.fetch(ROWS, [known.new.task_id for known in self.known])

    @invariant()
    def the_log_tells_the_whole_history(self) -> None:
        if not self.known:
            return
        history = self.run(self._history())
        assert [event.seq for event in history] == list(range(self.began + 1, self.began + 1 + len(history)))
        statuses: dict[UUID, Status] = {}
        pieces: list[tuple[Any, ...]] = []
        for event in history:
            assert event.task_id is not None
            if event.kind in STATUS_AFTER:
                statuses[event.task_id] = STATUS_AFTER[Kind(event.kind)]
            if event.kind == Kind.TASK_OUTPUT:
                pieces.append((event.task_id, event.attempt, event.data["stream"], event.data["offset"]))
        assert statuses == {known.new.task_id: known.status for known in self.known}
        assert len(pieces) == len(set(pieces)), "a piece of output is told of once"
        starts = sum(event.kind == Kind.TASK_CLAIMED for event in history)
        assert starts == sum(len(known.tries) for known in self.known)

    async def _history(self) -> list[Event]:
        async with self.pool.acquire() as db:
            return (await events.follow(db, after=self.began, until=await events.head(db), limit=10_000)).rows


def test_every_history_leaves_the_ledger_as_the_model_says(ledger_url: str) -> None:
    print(f"CHIFFON_SEED={SEED} CHIFFON_EXAMPLES={MORE}")
    with asyncio.Runner() as runner:
        machine = type("SeededLedger", (Ledger,), {"url": ledger_url, "runner": runner})
        run_state_machine_as_test(
            hypothesis.seed(SEED)(machine),
            settings=settings(
                bounded(HISTORIES),
                stateful_step_count=STEPS,
                print_blob=False,
                phases=[Phase.explicit, Phase.generate],
            ),
        )
