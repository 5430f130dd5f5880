"""Write signed checkpoints of the audit log to a file outside the database; see docs/explanation/audit.md."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from common.clock import Clock
from common.errors import Conflict, StartupRefused
from common.signing.keys import PrivateKey
from orchestrator.audit import queries
from orchestrator.audit.checkpoint_file import CheckpointFile
from orchestrator.audit.checkpoints import make_checkpoint
from orchestrator.audit.model import Checkpoint
from orchestrator.database.pool import Pool
from orchestrator.signing.signer import Signer

log = logging.getLogger(__name__)


class NothingSigns(StartupRefused):
    def __init__(self) -> None:
        super().__init__(
            "CHIFFON_AUDIT_CHECKPOINTS_FILE is set, and there is no key to sign checkpoints with. "
            "Set CHIFFON_SIGNING_KEYS_DIR as well."
        )


class LogContradicted(Conflict):
    """The ledger is not what the last checkpoint says that it was."""

    def __init__(self, file: CheckpointFile, last: Checkpoint) -> None:
        super().__init__(
            f"The audit log contradicts the checkpoint of event {last.seq} in {file.path}: it was changed, or an older "
            "copy of the ledger was restored. Run chiffon audit verify. If it was restored on purpose, keep that file "
            "elsewhere as evidence."
        )


class WriteCheckpoints:
    """Adds a checkpoint whenever something happened since the last one, the first of this process at once.

    Raises `LogContradicted` for as long as the ledger contradicts the last checkpoint, and writes nothing then.
    """

    def __init__(
        self, pool: Pool, file: CheckpointFile, key: Callable[[], PrivateKey], clock: Clock, *, last: Checkpoint | None
    ) -> None:
        self._pool = pool
        self._file = file
        self._key = key
        self._clock = clock
        self._last = last

    async def run_once(self) -> int:
        async with self._pool.acquire() as db:
            head = await queries.head(db)
            last = self._last
            if last is not None and await queries.hash_at(db, last.seq) not in (last.hash, None):
                raise LogContradicted(self._file, last)
        if last is not None and head.seq < last.seq:
            raise LogContradicted(self._file, last)
        if last is not None and head.seq == last.seq:
            return 0
        checkpoint = make_checkpoint(head, at=self._clock.now(), key=self._key())
        await asyncio.to_thread(self._file.append, checkpoint)
        self._last = checkpoint
        log.info("audit.checkpoint", extra={"seq": checkpoint.seq})
        return 0


def open_checkpoints(path: Path | None, pool: Pool, signer: Signer | None, clock: Clock) -> WriteCheckpoints | None:
    """Return who writes checkpoints; None, with a warning, where no file is set. Raises `StartupRefused`."""
    if path is None:
        log.warning("audit.no_checkpoints", extra={"reason": "CHIFFON_AUDIT_CHECKPOINTS_FILE names no file"})
        return None
    if signer is None:
        raise NothingSigns
    file = CheckpointFile(path.expanduser())
    return WriteCheckpoints(pool, file, lambda: signer.key, clock, last=file.open())
