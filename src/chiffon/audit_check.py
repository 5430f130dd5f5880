"""Check a ledger's audit log against itself and against checkpoints, and say what was found in words."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import StartupRefused
from common.signing.keys import PrivateKey, PublicKey, UnusableKey, read_public_keys
from orchestrator.audit.checkpoint_file import read_checkpoints
from orchestrator.audit.model import Checkpoint, Finding
from orchestrator.audit.verify import Verdict
from orchestrator.audit.verify import verify as verify_ledger
from orchestrator.database.pool import open_pool


@dataclass(slots=True)
class Counted:
    """Checkpoints on their way to the verifier."""

    checkpoints: Iterable[Checkpoint]
    count: int = 0
    last: Checkpoint | None = field(default=None)

    def __iter__(self) -> Iterator[Checkpoint]:
        for checkpoint in self.checkpoints:
            self.count += 1
            self.last = checkpoint
            yield checkpoint


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found, and against what it was held. `keys` None: no signature was looked at."""

    verdict: Verdict
    checkpoints: Counted | None
    keys: int | None

    @property
    def finding(self) -> Finding | None:
        return self.verdict.finding

    def lines(self) -> Iterator[str]:
        """Yield the report for people."""
        verdict = self.verdict
        yield f"{verdict.events} events behind event {verdict.begin.seq}; the last is to be {verdict.head.seq}."
        yield self._held_against()
        if self.finding is None:
            yield f"In order. The hash of event {verdict.head.seq} is {verdict.head.hash.hex()}."
            return
        found = self.finding
        which = f"event {found.seq}" if found.through == found.seq else f"events {found.seq} to {found.through}"
        yield f"NOT IN ORDER: {which}: {found.flaw}: {found.reason}."
        if found.unproven < found.seq:
            yield f"Nothing proves the events from {found.unproven} on: they may have been rewritten, too."

    def as_json(self) -> dict[str, Any]:
        found = self.finding
        return {
            "in_order": found is None,
            "events": self.verdict.events,
            "begin": self.verdict.begin.seq,
            "head": self.verdict.head.seq,
            "hash": self.verdict.head.hash.hex(),
            "checkpoints": None if self.checkpoints is None else self.checkpoints.count,
            "keys": self.keys,
            "finding": None
            if found is None
            else {
                "flaw": found.flaw,
                "seq": found.seq,
                "through": found.through,
                "unproven": found.unproven,
                "reason": found.reason,
            },
        }

    def _held_against(self) -> str:
        if self.checkpoints is None:
            return "No checkpoints were given: a log that was rewritten as a whole looks like this one."
        if self.checkpoints.last is None:
            return "No checkpoint was held against it."
        last = self.checkpoints.last
        signed = "their signatures were not checked, no keys were given" if self.keys is None else "all signed"
        return (
            f"{self.checkpoints.count} checkpoints, {signed}; the last is of event {last.seq}, {last.at.isoformat()}."
        )


async def verify(
    database_url: str, checkpoints: Path | None, keys: Path | None, *, progress: Callable[[int, int], None]
) -> Report:
    """Read a ledger and judge it. Raises `StartupRefused` when the ledger, the checkpoints or the keys are unusable."""
    known = None if keys is None else await asyncio.to_thread(_read_keys, keys)
    counted = None if checkpoints is None else Counted(read_checkpoints(checkpoints, known))
    async with open_pool(database_url, connections=1) as pool, pool.acquire() as db:
        verdict = await verify_ledger(db, counted or (), progress=progress)
    return Report(verdict, counted, None if known is None else len(known))


def _read_keys(place: Path) -> dict[str, PublicKey]:
    """Return the keys of a file, or of all files of a directory, also those that are retired."""
    try:
        files = sorted(path for path in place.iterdir() if path.is_file()) if place.is_dir() else [place]
        found = [key for path in files for key in _keys_in(path.read_bytes())]
    except OSError as error:
        raise StartupRefused(f"The keys in {place} cannot be read: {error.strerror or error}.") from error
    except UnusableKey as error:
        raise StartupRefused(f"The keys in {place} cannot be used: {error}.") from error
    if not found:
        raise StartupRefused(f"There is no key in {place}.")
    return {key.key_id: key for key in found}


def _keys_in(content: bytes) -> list[PublicKey]:
    if b"PRIVATE KEY" in content:
        return [PrivateKey.from_pem(content).public]
    return read_public_keys(content)
