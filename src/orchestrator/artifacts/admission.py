"""Which files are let in: what has room within the limits is announced in the ledger, and the rest with the reason."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

from common.clock import Clock
from orchestrator.artifacts import queries
from orchestrator.artifacts.model import Artifact, Held, Key, NewArtifact
from orchestrator.artifacts.rules import Limits, objection, too_many
from orchestrator.database.pool import Connection

# What all artifacts have together is added up this often; in between only what this process lets in is added.
ADD_UP_AGAIN = timedelta(seconds=10)


class Total:
    """How many bytes are held in all.

    Other orchestrators may let in some of which this one hears at the next look: the limit on everything protects the
    disk, and need not be exact.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._size = 0
        self._looked: float | None = None

    async def size(self, db: Connection) -> int:
        """Return how many bytes are held."""
        now = self._clock.monotonic()
        if self._looked is None or now - self._looked >= ADD_UP_AGAIN.total_seconds():
            self._size = await queries.held_in_all(db)
            self._looked = now
        return self._size

    def add(self, size: int) -> None:
        """Count what was let in just now."""
        self._size += size


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the ledger knows of files: all of them, those that are new in it, and why it does not even note some."""

    known: Mapping[Key, Artifact]
    added: Collection[Artifact] = ()
    refused: Mapping[Key, str] = field(default_factory=dict)


async def admit(db: Connection, new: Collection[NewArtifact], *, limits: Limits, total: Total) -> Admitted:
    """Announce files in the ledger, those that have no room with the reason why they are not kept."""
    folders = {one.source.folder for one in new}
    await queries.take_turns(db, folders)
    # Another orchestrator may have announced some while this one waited for its turn.
    known = await queries.known(db, [one.key for one in new])
    held = await queries.held(db, folders)
    judged, refused = list[NewArtifact](), dict[Key, str]()
    for one in new:
        if one.key in known:
            continue
        beside = held[one.source.folder]
        if beside.files >= limits.files:
            refused[one.key] = too_many(limits)
            continue
        reason = objection(one.size, held=beside, held_in_all=await total.size(db), limits=limits)
        size = 0 if reason else one.size
        held[one.source.folder] = Held(beside.files + 1, beside.size + size)
        total.add(size)
        judged.append(replace(one, missing=reason))
    added = await queries.add(db, judged) if judged else {}
    return Admitted(known | added, added.values(), refused)
