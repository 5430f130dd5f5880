"""The orchestrator writes checkpoints of its log, and stops when the log contradicts them."""

from pathlib import Path

import pytest

from common.clock import SystemClock
from common.signing.keys import PrivateKey
from orchestrator.audit.checkpoint_file import CheckpointFile, read_checkpoints
from orchestrator.audit.verify import verify
from orchestrator.database.pool import Connection, Pool
from orchestrator.loops.write_checkpoints import LogContradicted, NothingSigns, WriteCheckpoints, open_checkpoints
from tests.integration.audit.conftest import work

KEY = PrivateKey.new()


def writer(pool: Pool, path: Path) -> WriteCheckpoints:
    """Return a duty as a new process has it."""
    file = CheckpointFile(path)
    return WriteCheckpoints(pool, file, lambda: KEY, SystemClock(), last=file.open())


async def test_a_checkpoint_is_written_when_something_happened_and_the_log_agrees(worked: Pool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoints.jws"
    duty = writer(worked, path)
    await duty.run_once()
    await duty.run_once()
    await work(worked, tasks=1)
    await writer(worked, path).run_once()

    found = list(read_checkpoints(path, {KEY.key_id: KEY.public}))

    assert [checkpoint.seq for checkpoint in found] == [16, 20]
    async with worked.acquire() as db:
        assert (await verify(db, found)).finding is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET hash = sha256('x') WHERE seq = 16",
        "DELETE FROM event WHERE seq > 3; UPDATE event_head SET seq = 3",
    ],
)
async def test_nothing_is_added_to_checkpoints_that_the_log_contradicts(
    owner: Connection, worked: Pool, tmp_path: Path, statement: str
) -> None:
    path = tmp_path / "checkpoints.jws"
    await writer(worked, path).run_once()
    before = path.read_bytes()
    await owner.execute(statement)

    with pytest.raises(LogContradicted, match="chiffon audit verify"):
        await writer(worked, path).run_once()

    assert path.read_bytes() == before


async def test_a_file_without_a_key_to_sign_with_is_refused(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(NothingSigns):
        open_checkpoints(tmp_path / "checkpoints.jws", pool, None, SystemClock())
    assert open_checkpoints(None, pool, None, SystemClock()) is None
