"""A repair that the agent's end has cut off is not tried again: what its state says is its result."""

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.disk.journal import Journal, Started, Unended
from agents.disk.journal_file import JournalFile
from agents.disk.spool import Spool
from agents.link.reporter import Reporter
from agents.processes.life import host_boot_id
from agents.recovery import recover
from agents.repairs.state import End, Stage
from agents.repairs.store import Store
from agents.tasks.handover import Handover
from common.broker.memory import MemoryBroker
from common.clock import SystemClock
from common.loop import Health
from common.messages import ResultStatus, WorkResult
from tests.factories import make_credit
from tests.unit.agents.repairs.test_rules import make_unit

AGENT = UUID(int=7)


async def result_after_restart(folder: Path, store: Store | None, task_id: UUID) -> WorkResult:
    started = Started(
        task_id=task_id,
        attempt=1,
        work_type="compose_repair",
        trace_id=uuid4(),
        request_id=uuid4(),
        host_boot_id=host_boot_id(),
        agent_pid=1,
    )
    spool = Spool(folder / "spool")
    await asyncio.to_thread(spool.open)
    async with (
        Reporter(MemoryBroker(), AGENT, make_credit) as reporter,
        Handover(spool, reporter, SystemClock(), resend_after=timedelta(minutes=1), health=Health()) as handover,
    ):
        with Journal(JournalFile(folder / "journal.jsonl"), session=uuid4(), host_boot_id="boot") as journal:
            [key] = await recover(
                [Unended(started, ())],
                agent_id=AGENT,
                spooled=[],
                spool=spool,
                journal=journal,
                handover=handover,
                repairs=store,
            )
        kept = spool.read(key)
    assert kept is not None
    return kept.envelope().payload


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store.below(tmp_path / "state")
    store.open()
    return store


@pytest.mark.parametrize("end", [End.VERIFIED, End.PREPARED])
async def test_what_had_come_to_its_end_is_completed(tmp_path: Path, store: Store, end: End) -> None:
    unit = make_unit(end=end)
    store.write(unit)

    result = await result_after_restart(tmp_path, store, unit.task_id)

    assert (result.status, result.error_message) == (ResultStatus.COMPLETED, None)
    assert isinstance(result.result, dict)
    assert result.result["ending"] == end


async def test_what_had_not_is_failed_and_not_tried_again(tmp_path: Path, store: Store) -> None:
    for stage, said in (
        (Stage.PATCHING, "This host takes the repair back by itself."),
        (Stage.NEW, "Nothing had been changed."),
    ):
        unit = make_unit(stage=stage)
        store.write(unit)

        result = await result_after_restart(tmp_path, store, unit.task_id)

        assert (result.status, result.retryable) == (ResultStatus.FAILED, False)
        assert said in (result.error_message or "")


async def test_what_never_began_is_failed_and_not_tried_again(tmp_path: Path, store: Store) -> None:
    for known in (store, None):
        result = await result_after_restart(tmp_path, known, uuid4())

        assert (result.status, result.retryable) == (ResultStatus.FAILED, False)
        assert (result.error_message or "").endswith("The repair had not begun.")


async def test_what_cannot_be_read_is_not_said_to_be_taken_back(tmp_path: Path, store: Store) -> None:
    unit = make_unit()
    (store.folder / f"{unit.key}.json").write_text("{torn")

    result = await result_after_restart(tmp_path, store, unit.task_id)

    assert (result.status, result.retryable) == (ResultStatus.FAILED, False)
    assert "it is not known how the last repair of the service stands" in (result.error_message or "")
