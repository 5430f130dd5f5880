"""Recovery treats each leftover of an earlier process by itself: one that fails does not stop the others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.contact.hearing import Hearing
from agents.disk.journal import Journal, Started, Unended
from agents.disk.journal_file import JournalFile
from agents.disk.spool import Spool
from agents.disk.spool_lines import Key
from agents.link.reporter import Reporter
from agents.processes.life import host_boot_id
from agents.recovery import LateRecovery, recover
from agents.tasks.availability import Availability
from agents.tasks.handover import Handover
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.clock import SystemClock
from common.loop import Health
from tests.factories import make_credit

AGENT = UUID(int=7)


def make_unended() -> Unended:
    started = Started(
        task_id=uuid4(),
        attempt=1,
        work_type="shell_script",
        trace_id=uuid4(),
        request_id=uuid4(),
        host_boot_id=host_boot_id(),
        agent_pid=1,
    )
    return Unended(started, ())


async def test_an_attempt_that_cannot_be_put_in_order_does_not_keep_the_others_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, broken, last = (make_unended() for _ in range(3))

    def end(left: Unended) -> list[int]:
        if left is broken:
            raise OSError(5, "Input/output error")
        return []

    monkeypatch.setattr("agents.recovery.end_orphans", end)
    broker = MemoryBroker()
    await broker.declare(*REPLY_QUEUES)
    spool = Spool(tmp_path / "spool")
    spool.open()
    file = JournalFile(tmp_path / "journal.jsonl")
    async with (
        Reporter(broker, AGENT, make_credit) as reporter,
        Handover(spool, reporter, SystemClock(), resend_after=timedelta(minutes=1), health=Health()) as handover,
    ):
        with Journal(file, session=uuid4(), host_boot_id="boot") as journal, caplog.at_level(logging.ERROR):
            owed = await recover(
                [first, broken, last], agent_id=AGENT, spooled=[], spool=spool, journal=journal, handover=handover
            )

    assert [key.task_id for key in owed] == [first.started.task_id, last.started.task_id]
    # How far the agent came before it was killed is not known, so each of them counts.
    assert [result.envelope().payload.started for key in owed if (result := spool.read(key))] == [True, True]
    assert [record.message for record in caplog.records] == ["work.not_recovered"]
    ended = [line for line in JournalFile(tmp_path / "journal.jsonl").read() if b'"ended"' in line]
    assert len(ended) == 2


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
