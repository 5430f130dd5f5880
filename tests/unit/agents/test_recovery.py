"""Recovery treats each leftover of an earlier process by itself: one that fails does not stop the others."""

import asyncio
import json
import logging
import subprocess
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from agents.contact.hearing import Hearing
from agents.disk.journal import Journal, Started, Unended
from agents.disk.journal_file import JournalFile
from agents.disk.spool import Spool
from agents.disk.spool_lines import Key, WrittenResult
from agents.link.reporter import Reporter
from agents.processes.life import host_boot_id
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.recovery import LateRecovery, recover
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.clock import SystemClock
from common.errors import ErrorCode
from common.loop import Health
from common.messages import ResultStatus
from tests.factories import make_credit
from tests.unit.agents.test_process import is_gone
from tests.unit.agents.test_spool import make_result

AGENT = UUID(int=7)


def make_unended(*, task_id: UUID | None = None) -> Unended:
    started = Started(
        task_id=task_id or uuid4(),
        attempt=1,
        work_type="shell_script",
        trace_id=uuid4(),
        request_id=uuid4(),
        host_boot_id=host_boot_id(),
        agent_pid=1,
    )
    return Unended(started, ())


@dataclass
class Restarted:
    """An agent that puts in order what its earlier life left."""

    spool: Spool
    handover: Handover
    path: Path

    async def recover(self, *left: Unended, spooled: Sequence[Key] = ()) -> list[Key]:
        with Journal(JournalFile(self.path), session=uuid4(), host_boot_id="boot") as journal:
            return await recover(
                left, agent_id=AGENT, spooled=spooled, spool=self.spool, journal=journal, handover=self.handover
            )

    @property
    def ends(self) -> list[dict[str, Any]]:
        """What the journal says of the ends of attempts."""
        lines = [json.loads(line) for line in JournalFile(self.path).read() if line]
        return [line for line in lines if line["event"] == "ended"]


@pytest.fixture
async def restarted(tmp_path: Path) -> AsyncIterator[Restarted]:
    broker, spool = MemoryBroker(), Spool(tmp_path / "spool")
    await broker.declare(*REPLY_QUEUES)
    spool.open()
    async with (
        Reporter(broker, AGENT, make_credit) as reporter,
        Handover(spool, reporter, SystemClock(), resend_after=timedelta(minutes=1), health=Health()) as handover,
    ):
        yield Restarted(spool, handover, tmp_path / "journal.jsonl")


async def test_an_attempt_that_cannot_be_put_in_order_does_not_keep_the_others_from_it(
    restarted: Restarted, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, broken, last = (make_unended() for _ in range(3))

    def end(left: Unended) -> list[int]:
        if left is broken:
            raise OSError(5, "Input/output error")
        return []

    monkeypatch.setattr("agents.recovery.end_orphans", end)
    with caplog.at_level(logging.ERROR):
        owed = await restarted.recover(first, broken, last)

    assert [key.task_id for key in owed] == [first.started.task_id, last.started.task_id]
    assert [record.message for record in caplog.records] == ["work.not_recovered"]
    assert len(restarted.ends) == 2


async def test_an_attempt_that_the_end_of_its_agent_cut_off_counts_as_begun_and_may_be_tried_again(
    restarted: Restarted,
) -> None:
    # How far the agent came before it was killed is not known, so the attempt counts.
    [key] = await restarted.recover(make_unended())

    kept = restarted.spool.read(key)
    assert kept is not None
    result = kept.envelope().payload
    assert (result.started, result.retryable) == (True, True)
    assert (result.status, result.error_code) == (ResultStatus.FAILED, ErrorCode.AGENT_UNAVAILABLE)


async def test_what_an_attempt_left_running_is_dead_when_its_result_is_owed(restarted: Restarted) -> None:
    left = make_unended()
    ids = {TASK_VARIABLE: str(left.started.task_id), ATTEMPT_VARIABLE: "1"}
    with subprocess.Popen(["/bin/sleep", "600"], env=ids, start_new_session=True) as running:
        owed = await restarted.recover(left)
        was_gone = is_gone(running.pid)
        running.kill()

    assert was_gone
    assert owed == [Key(left.started.task_id, 1)]
    assert [end["killed"] for end in restarted.ends] == [[running.pid]]


async def test_an_attempt_whose_result_an_earlier_life_has_kept_owes_no_other(restarted: Restarted) -> None:
    result = make_result()
    kept = WrittenResult.of(result)
    restarted.spool.keep([kept])
    left = make_unended(task_id=result.payload.task_id)

    owed = await restarted.recover(left, spooled=[kept.key])

    assert owed == []
    assert restarted.spool.read(kept.key) == kept
    assert [end["status"] for end in restarted.ends] == ["completed"]


class Late:
    """A late recovery that waits for answers which span a minute."""

    def __init__(self, handover: Handover) -> None:
        self.left = make_unended()
        self.recovered: list[Unended] = []
        self.hearing = Hearing(every=timedelta(seconds=10), give_up_after=None)
        self.gate = Availability()
        late = LateRecovery([self.left], self._recover, handover, self.hearing, self.gate, after=timedelta(seconds=60))
        self.running = asyncio.create_task(late.run())

    async def _recover(self, left: Sequence[Unended]) -> list[Key]:
        self.recovered += left
        return []


@pytest.fixture
async def late(tmp_path: Path) -> AsyncIterator[Late]:
    spool = Spool(tmp_path / "spool")
    spool.open()
    async with (
        Reporter(MemoryBroker(), AGENT, make_credit) as reporter,
        Handover(spool, reporter, SystemClock(), resend_after=timedelta(minutes=1), health=Health()) as handover,
    ):
        late = Late(handover)
        yield late
        late.running.cancel()


async def test_what_may_still_run_elsewhere_is_recovered_when_the_orchestrator_would_have_refused_this_process(
    late: Late,
) -> None:
    for at in (100, 130, 159):
        late.hearing.heard(at=at)
        await asyncio.sleep(0)
    before = list(late.recovered)

    late.hearing.heard(at=160)
    await late.running

    assert (before, late.recovered) == ([], [late.left])


async def test_a_process_that_is_refused_recovers_nothing_that_may_still_run_elsewhere(late: Late) -> None:
    late.hearing.heard(at=100)
    late.gate.refuse("an earlier process still runs")

    late.hearing.heard(at=160)
    await late.running

    assert late.recovered == []
