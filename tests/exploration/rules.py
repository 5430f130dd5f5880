"""The production rules, asked about the model's tuples. A test may replace one of them to see what it is good for."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from common.lifecycle import Change, Status, next_status
from common.messages import WorkResult
from common.retry import RetryPolicy
from orchestrator.leases import rules
from orchestrator.tasks.model import Task as Row
from tests.exploration.state import Result, Task
from tests.test_orchestrator_api import make_task

NOW = datetime(2026, 11, 22, tzinfo=UTC)
POLICY = RetryPolicy()
NOBODY = UUID(int=0)

ResultVerdict = rules.Finish | rules.Requeue | rules.Stopped | rules.Duplicate | rules.Stale
LostVerdict = rules.Finish | rules.Requeue


@dataclass
class Rules:
    """Asks the rules, and remembers their answers: they are pure."""

    judge_result: Callable[..., ResultVerdict] = rules.judge_result
    judge_lost: Callable[..., LostVerdict] = rules.judge_lost
    next_status: Callable[[Status, Change], Status] = next_status
    _known: dict[object, Any] = field(default_factory=dict, repr=False)

    def result(self, task: Task, most: int, sent: Result) -> ResultVerdict:
        key = ("result", _without_ghosts(task), most, sent)
        if key not in self._known:
            row = _row(sent.task, task, most)
            self._known[key] = self.judge_result(row, _attempt(task, sent), _message(sent), now=NOW, policy=POLICY)
        verdict: ResultVerdict = self._known[key]
        return verdict

    def lost(self, number: int, task: Task, most: int) -> LostVerdict:
        key = ("lost", number, _without_ghosts(task), most)
        if key not in self._known:
            self._known[key] = self.judge_lost(_row(number, task, most), now=NOW, policy=POLICY)
        verdict: LostVerdict = self._known[key]
        return verdict


def _without_ghosts(task: Task) -> Task:
    return task._replace(lease=0, begun=0)


def _row(number: int, task: Task, most: int) -> Row:
    last = task.tries[-1] if task.tries else None
    runs = task.status is Status.RUNNING
    return make_task(
        task_id=_task_id(number),
        status=task.status,
        attempt=len(task.tries),
        unstarted=task.unstarted,
        max_attempts=most,
        idempotent=most > 1,
        agent_id=None if last is None else _agent_id(last.agent),
        claim_id=_claim_id(last.session) if last is not None and runs else None,
    )


def _attempt(task: Task, sent: Result) -> rules.Attempt | None:
    if not 1 <= sent.attempt <= len(task.tries):
        return None
    known = task.tries[sent.attempt - 1]
    return rules.Attempt(
        task_id=_task_id(sent.task),
        number=sent.attempt,
        agent_id=_agent_id(known.agent),
        outcome=known.outcome,
        output_bytes={} if known.reported else None,
    )


def _message(sent: Result) -> WorkResult:
    return WorkResult(
        task_id=_task_id(sent.task),
        status=sent.status,
        duration_ms=0,
        agent_id=_agent_id(sent.agent),
        attempt=sent.attempt,
        retryable=True,
        started=sent.started,
    )


def _task_id(task: int) -> UUID:
    return UUID(int=1 + task)


def _agent_id(agent: int) -> UUID:
    return UUID(int=100 + agent)


def _claim_id(session: int) -> UUID:
    return UUID(int=1000 + session)
