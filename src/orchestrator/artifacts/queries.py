"""All SQL about artifacts, their pieces, and uploads."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from orchestrator.artifacts.model import (
    AWAY,
    Arriving,
    Artifact,
    Attempt,
    Claim,
    Held,
    Key,
    NewArtifact,
    NewPiece,
    Upload,
    Wanted,
)
from orchestrator.database.pool import Connection
from orchestrator.tasks.attempts import attempt_of

COLUMNS = """
    a.artifact_id, a.task_id, a.attempt, a.name, a.type, a.sha256, a.size, a.created_at, a.stored_at, a.missing
"""

# Its content is there. What was removed keeps the time at which it was stored, which decides the paths of others.
IS_STORED = "(a.stored_at IS NOT NULL AND a.missing IS NULL)"
# It takes room, or will: it is stored, may still come, or waits for a store that is away.
HOLDS = f"(a.missing IS NULL OR starts_with(a.missing, '{AWAY}'))"
IS_OPEN = f"(a.stored_at IS NULL AND {HOLDS})"


def tasks_in(folder: str) -> str:
    """Return an array of the tasks whose files lie in one folder: that of a run, or of one task."""
    return f"""
        ARRAY(SELECT {folder} UNION ALL SELECT task_id FROM run_step WHERE run_id = {folder} AND task_id IS NOT NULL)
    """  # noqa: S608 - names


# A piece of another agent joins no attempt.
OWN_ATTEMPTS = f"""
    SELECT new.task_id, new.attempt, new.agent_id, coalesce(s.run_id, new.task_id) AS folder, t.trace_id, t.request_id
      FROM unnest($1::uuid[], $2::smallint[], $3::uuid[]) AS new (task_id, attempt, agent_id)
      JOIN task t ON t.task_id = new.task_id
     CROSS JOIN {attempt_of("new.task_id", "new.attempt")} AS of_agent
      LEFT JOIN run_step s ON s.task_id = new.task_id
     WHERE of_agent.agent_id = new.agent_id
"""  # noqa: S608 - constants only

KNOWN = f"""
    SELECT {COLUMNS}
      FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS wanted (task_id, attempt, name)
      JOIN artifact a ON a.task_id = wanted.task_id AND a.attempt = wanted.attempt AND a.name = wanted.name
"""  # noqa: S608 - constants only

# What is admitted to one folder is admitted in turn, so that its limits hold.
TAKE_TURNS = """
    SELECT pg_advisory_xact_lock(hashtextextended('chiffon.artifacts ' || sorted.folder, 0))
      FROM (SELECT folder::text FROM unnest($1::uuid[]) AS given (folder) ORDER BY 1) AS sorted
"""

HELD = f"""
    SELECT given.folder, held.files, held.size
      FROM unnest($1::uuid[]) AS given (folder)
     CROSS JOIN LATERAL (
        SELECT count(*) AS files, coalesce(sum(a.size) FILTER (WHERE {HOLDS}), 0)::bigint AS size
          FROM artifact a WHERE a.task_id = ANY({tasks_in("given.folder")})
     ) AS held
"""  # noqa: S608 - constants only

# Of all artifacts and uploads; equal content counts each time.
HELD_IN_ALL = f"""
    SELECT (coalesce((SELECT sum(a.size) FROM artifact a WHERE {HOLDS}), 0)
            + coalesce((SELECT sum(size) FROM upload), 0))::bigint
"""  # noqa: S608 - constants only

ADD = f"""
    INSERT INTO artifact AS a (artifact_id, task_id, attempt, name, type, sha256, size, created_at, missing)
    SELECT gen_random_uuid(), new.*
      FROM (SELECT task_id, attempt, name, type, sha256, size, clock_timestamp(), missing
              FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[])
                     WITH ORDINALITY AS given (task_id, attempt, name, type, sha256, size, missing, position)
             ORDER BY position) AS new
        ON CONFLICT DO NOTHING
 RETURNING {COLUMNS}
"""  # noqa: S608 - constants only

# A piece that arrives again is the same row; of two from one offset on, as after an agent's upgrade, the longer one is
# kept. Pieces that overlap may take twice the room of their file and no more.
ADD_PIECES = f"""
    INSERT INTO artifact_piece AS known (artifact_id, byte_offset, data)
    SELECT DISTINCT ON (a.artifact_id, new.byte_offset) a.artifact_id, new.byte_offset, new.data
      FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS new (artifact_id, byte_offset, data)
      JOIN artifact a ON a.artifact_id = new.artifact_id
     WHERE {IS_OPEN}
       AND 2 * a.size >= (SELECT coalesce(sum(octet_length(p.data)), 0)
                            FROM artifact_piece p WHERE p.artifact_id = new.artifact_id)
     ORDER BY a.artifact_id, new.byte_offset, octet_length(new.data) DESC
        ON CONFLICT (artifact_id, byte_offset) DO UPDATE
       SET data = excluded.data
     WHERE octet_length(known.data) < octet_length(excluded.data)
"""  # noqa: S608 - constants only

# Pieces may overlap, so that all are there when none begins behind the end of those before it.
ARRIVING = f"""
    SELECT {COLUMNS}, coalesce(s.run_id, a.task_id) AS folder, of_agent.agent_id, t.trace_id, t.request_id,
           pieces.is_whole,
           a.created_at < now() - CASE WHEN a.missing IS NULL THEN $1::interval ELSE $2::interval END AS is_overdue
      FROM artifact a
      LEFT JOIN task t ON t.task_id = a.task_id
      LEFT JOIN {attempt_of("a.task_id", "a.attempt")} AS of_agent ON true
      LEFT JOIN run_step s ON s.task_id = a.task_id
     CROSS JOIN LATERAL (
        SELECT coalesce(bool_and(p.begins <= p.covered) AND max(p.ends) >= a.size, false) AS is_whole
          FROM (SELECT byte_offset AS begins, byte_offset + octet_length(data) AS ends,
                       coalesce(max(byte_offset + octet_length(data)) OVER (
                           ORDER BY byte_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS covered
                  FROM artifact_piece WHERE artifact_id = a.artifact_id) AS p
     ) AS pieces
     WHERE {IS_OPEN}
"""  # noqa: S608 - constants only

OF_THESE = f"{ARRIVING} AND a.artifact_id = ANY($3::uuid[])"

# Whoever has it is the only one that stores into a folder; who does not get it comes again.
TRY_FOLDER = "SELECT pg_try_advisory_xact_lock(hashtextextended('chiffon.artifact_folder ' || $1::uuid::text, 0))"

PIECES = """
    SELECT byte_offset, data
      FROM artifact_piece
     WHERE artifact_id = $1 AND byte_offset > $2
     ORDER BY byte_offset
     LIMIT $3
"""

STORED_IN = f"""
    SELECT {COLUMNS}
      FROM artifact a
     WHERE a.task_id = ANY({tasks_in("$1::uuid")}) AND a.stored_at IS NOT NULL
     ORDER BY a.stored_at, a.artifact_id
"""  # noqa: S608 - constants only

# The order in which the files of a folder are stored decides their paths, so the clock must not go back in it.
SET_STORED = f"""
    UPDATE artifact AS a
       SET missing = NULL,
           stored_at = greatest(
               clock_timestamp(),
               (SELECT max(o.stored_at) + interval '1 microsecond'
                  FROM artifact o WHERE o.task_id = ANY({tasks_in("$2::uuid")})))
     WHERE a.artifact_id = $1 AND a.stored_at IS NULL
 RETURNING {COLUMNS}
"""  # noqa: S608 - constants only

SET_MISSING = f"""
    UPDATE artifact AS a SET missing = $2 WHERE a.artifact_id = $1 AND a.stored_at IS NULL
 RETURNING {COLUMNS}
"""  # noqa: S608 - constants only

# A content gets or loses its owners in turn, so that none is removed that somebody just stored again.
HOLD_CONTENT = "SELECT pg_advisory_xact_lock(hashtextextended('chiffon.artifact_content ' || $1, 0))"

TRY_CONTENTS = """
    SELECT sha256
      FROM unnest($1::text[]) AS given (sha256)
     WHERE pg_try_advisory_xact_lock(hashtextextended('chiffon.artifact_content ' || sha256, 0))
"""

# The files of a run stay while it goes on, and from then on as long as any others.
EXPIRED = f"""
    SELECT coalesce(s.run_id, a.task_id) AS folder, a.artifact_id
      FROM artifact a
      LEFT JOIN run_step s ON s.task_id = a.task_id
      LEFT JOIN run ON run.run_id = s.run_id
      LEFT JOIN task t ON t.task_id = a.task_id
     WHERE {IS_STORED} AND a.stored_at < now() - $1::interval
       AND (s.run_id IS NULL OR run.finished_at < now() - $1::interval)
       AND (t.task_id IS NULL OR t.finished_at < now() - $1::interval)
     ORDER BY a.stored_at
     LIMIT $2
"""  # noqa: S608 - constants only

SET_REMOVED = f"""
    UPDATE artifact AS a SET missing = $2 WHERE a.artifact_id = ANY($1::uuid[]) AND {IS_STORED}
 RETURNING {COLUMNS}
"""  # noqa: S608 - constants only

# Work that has not ended may still fetch what it names.
IS_EXPIRED_UPLOAD = """
    at < now() - $1::interval
       AND NOT EXISTS (SELECT FROM task
                        WHERE status IN ('awaiting_approval', 'pending', 'running') AND parameters ? 'files'
                          AND strpos(parameters::text, sha256) > 0)
       AND NOT EXISTS (SELECT FROM run
                        WHERE finished_at IS NULL AND strpos(concat(plan::text, inputs::text), sha256) > 0)
"""

EXPIRED_UPLOADS = f"SELECT sha256 FROM upload WHERE {IS_EXPIRED_UPLOAD} ORDER BY at LIMIT $2"  # noqa: S608 - constants

FORGET_UPLOAD = f"""
    DELETE FROM upload WHERE {IS_EXPIRED_UPLOAD} AND sha256 = $2 RETURNING sha256, size
"""  # noqa: S608 - constants only

WITHOUT_OWNER = f"""
    SELECT sha256
      FROM unnest($1::text[]) AS given (sha256)
     WHERE NOT EXISTS (SELECT FROM artifact a WHERE a.sha256 = given.sha256 AND {IS_STORED})
       AND NOT EXISTS (SELECT FROM upload WHERE upload.sha256 = given.sha256)
"""  # noqa: S608 - constants only

FORGET_PIECES = "DELETE FROM artifact_piece WHERE artifact_id = $1"

# Pieces that were on their way into the ledger while their artifact was settled.
FORGET_STRAYS = f"""
    DELETE FROM artifact_piece p USING artifact a WHERE a.artifact_id = p.artifact_id AND NOT {IS_OPEN}
"""  # noqa: S608 - constants only

IN_FOLDER = f"""
    SELECT {COLUMNS}
      FROM artifact a
     WHERE a.task_id = ANY({tasks_in("$1::uuid")})
     ORDER BY a.created_at, a.artifact_id
"""  # noqa: S608 - constants only

FOLDER_OF = """
    SELECT coalesce(s.run_id, t.task_id) AS folder
      FROM task t LEFT JOIN run_step s ON s.task_id = t.task_id
     WHERE t.task_id = $1
"""

FIND = f"SELECT {COLUMNS} FROM artifact a WHERE a.artifact_id = $1"  # noqa: S608 - constants only

OF_ATTEMPT = f"""
    SELECT {COLUMNS}
      FROM artifact a
     CROSS JOIN {attempt_of("a.task_id", "a.attempt")} AS of_agent
     WHERE a.task_id = $1 AND a.attempt = $2 AND of_agent.agent_id = $3
     ORDER BY a.created_at, a.artifact_id
"""  # noqa: S608 - constants only

# Whether the attempt is the agent's, and what the work says of one of its files.
REFERENCE = f"""
    SELECT t.parameters->'files'->$4 AS reference
      FROM task t
     CROSS JOIN {attempt_of("t.task_id", "$2")} AS of_agent
     WHERE t.task_id = $1 AND of_agent.agent_id = $3
"""  # noqa: S608 - constants only

# What a task kept is stored ahead of its result, or a moment later by another orchestrator. It may be late when the
# task was cancelled, or the agent began anew since: then results go first. Attempts that were lost or failed do not
# count.
WANTED = f"""
    SELECT {COLUMNS},
           t.finished_at IS NULL OR t.finished_at > now() - CASE
               WHEN t.status = 'cancelled' OR EXISTS (
                   SELECT FROM agent g WHERE g.agent_id = t.agent_id AND g.started_at >= t.started_at)
               THEN $4::interval ELSE $3::interval END AS may_come
      FROM task t
      LEFT JOIN artifact a
        ON a.task_id = t.task_id AND a.attempt = t.attempt AND a.name = $2 AND t.status <> 'pending'
     WHERE t.task_id = $1
"""  # noqa: S608 - constants only

FIND_UPLOAD = "SELECT size FROM upload WHERE sha256 = $1"

# Who uploads it again wants to use it, so that it is kept as if it were new.
ADD_UPLOAD = """
    INSERT INTO upload (sha256, size, by) VALUES ($1, $2, $3) ON CONFLICT (sha256) DO UPDATE SET at = now()
"""

LINK_KEY = "SELECT key FROM link_key"


async def own_attempts(db: Connection, claims: Collection[Claim]) -> list[Attempt]:
    """Return those of which the attempt is that agent's, whatever became of its lease."""
    return [Attempt(**row) for row in await db.fetch(OWN_ATTEMPTS, *_lists(sorted(claims), 3))]


async def known(db: Connection, keys: Collection[Key]) -> dict[Key, Artifact]:
    """Return the artifacts that are announced already."""
    rows = await db.fetch(KNOWN, *_lists(sorted(keys), 3))
    return {found.key: found for found in map(Artifact.from_row, rows)}


async def take_turns(db: Connection, folders: Collection[UUID]) -> None:
    """Keep others from admitting files to these folders until the transaction ends."""
    await db.execute(TAKE_TURNS, list(folders))


async def held(db: Connection, folders: Collection[UUID]) -> dict[UUID, Held]:
    """Return how much each folder holds, with what is still to arrive."""
    return {row["folder"]: Held(row["files"], row["size"]) for row in await db.fetch(HELD, list(folders))}


async def held_in_all(db: Connection) -> int:
    """Return how many bytes all artifacts and uploads have, with what is still to arrive."""
    size: int = await db.fetchval(HELD_IN_ALL)
    return size


async def add(db: Connection, new: Sequence[NewArtifact]) -> dict[Key, Artifact]:
    """Store artifacts of which no content is stored yet; return those that were not announced before."""
    rows = await db.fetch(
        ADD,
        [one.source.task_id for one in new],
        [one.source.attempt for one in new],
        [one.name for one in new],
        [one.type for one in new],
        [one.sha256 for one in new],
        [one.size for one in new],
        [one.missing for one in new],
    )
    return {found.key: found for found in map(Artifact.from_row, rows)}


async def add_pieces(db: Connection, pieces: Sequence[tuple[UUID, NewPiece]]) -> None:
    """Store pieces of open artifacts, each with the id of its artifact; what is there already changes nothing."""
    await db.execute(
        ADD_PIECES,
        [artifact_id for artifact_id, _ in pieces],
        [piece.offset for _, piece in pieces],
        [piece.data for _, piece in pieces],
    )


async def arriving(
    db: Connection, artifact_ids: Collection[UUID] | None, *, patience: timedelta, away_patience: timedelta
) -> list[Arriving]:
    """Return open artifacts, all or some.

    One is overdue after `patience`, and where the store is away after `away_patience`.
    """
    if artifact_ids is None:
        rows = await db.fetch(ARRIVING, patience, away_patience)
    else:
        rows = await db.fetch(OF_THESE, patience, away_patience, list(artifact_ids))
    return [Arriving.from_row(row) for row in rows]


async def try_folder(db: Connection, folder: UUID) -> bool:
    """Keep others from storing into a folder until the transaction ends; False when somebody else does."""
    has: bool = await db.fetchval(TRY_FOLDER, folder)
    return has


async def pieces(db: Connection, artifact_id: UUID, *, behind: int, limit: int) -> list[tuple[int, bytes]]:
    """Return the next pieces that begin behind an offset, as (offset, bytes), in order."""
    return [(row["byte_offset"], row["data"]) for row in await db.fetch(PIECES, artifact_id, behind, limit)]


async def stored_in(db: Connection, folder: UUID) -> list[Artifact]:
    """Return the files of a folder that are stored, in the order in which they were."""
    return [Artifact.from_row(row) for row in await db.fetch(STORED_IN, folder)]


async def set_stored(db: Connection, artifact_id: UUID, folder: UUID) -> Artifact | None:
    """Say that the content is stored; None when it was before."""
    row = await db.fetchrow(SET_STORED, artifact_id, folder)
    return None if row is None else Artifact.from_row(row)


async def set_missing(db: Connection, artifact_id: UUID, reason: str) -> Artifact | None:
    """Say why the content is not stored; None when it is."""
    row = await db.fetchrow(SET_MISSING, artifact_id, reason)
    return None if row is None else Artifact.from_row(row)


async def hold_content(db: Connection, sha256: str) -> None:
    """Keep others from storing or removing a content until the transaction ends."""
    await db.execute(HOLD_CONTENT, sha256)


async def try_contents(db: Connection, digests: Collection[str]) -> set[str]:
    """Do what `hold_content` does, and return of which contents: not of those that somebody else holds."""
    return {row["sha256"] for row in await db.fetch(TRY_CONTENTS, sorted(digests))}


async def expired(db: Connection, keep: timedelta, *, limit: int) -> dict[UUID, list[UUID]]:
    """Return the files that were kept for so long after all was over, the ids of each folder."""
    found: dict[UUID, list[UUID]] = {}
    for row in await db.fetch(EXPIRED, keep, limit):
        found.setdefault(row["folder"], []).append(row["artifact_id"])
    return found


async def set_removed(db: Connection, artifact_ids: Collection[UUID], reason: str) -> dict[UUID, Artifact]:
    """Say why the content of files is not there any more; return those of which it was."""
    rows = await db.fetch(SET_REMOVED, list(artifact_ids), reason)
    return {row["artifact_id"]: Artifact.from_row(row) for row in rows}


async def expired_uploads(db: Connection, keep: timedelta, *, limit: int) -> list[str]:
    """Return the digests of uploads that were kept for so long, and that no work names that has not ended."""
    return [row["sha256"] for row in await db.fetch(EXPIRED_UPLOADS, keep, limit)]


async def forget_upload(db: Connection, sha256: str, keep: timedelta) -> Upload | None:
    """Delete an upload; None when it is not one of those that `expired_uploads` returns."""
    row = await db.fetchrow(FORGET_UPLOAD, keep, sha256)
    return None if row is None else Upload(**row)


async def without_owner(db: Connection, digests: Collection[str]) -> list[str]:
    """Return those of some contents that no artifact and no upload has."""
    return [row["sha256"] for row in await db.fetch(WITHOUT_OWNER, list(digests))]


async def forget_pieces(db: Connection, artifact_id: UUID) -> None:
    """Delete the pieces of an artifact."""
    await db.execute(FORGET_PIECES, artifact_id)


async def forget_strays(db: Connection) -> None:
    """Delete the pieces of artifacts that are settled."""
    await db.execute(FORGET_STRAYS)


async def in_folder(db: Connection, folder: UUID) -> list[Artifact]:
    """Return the artifacts of a run, or of a task that belongs to none, oldest first."""
    return [Artifact.from_row(row) for row in await db.fetch(IN_FOLDER, folder)]


async def folder_of(db: Connection, task_id: UUID) -> UUID | None:
    """Return the id that names the folder of a task's files; None when there is no such task."""
    folder: UUID | None = await db.fetchval(FOLDER_OF, task_id)
    return folder


async def find(db: Connection, artifact_id: UUID) -> Artifact | None:
    """Return an artifact; None when there is none."""
    row = await db.fetchrow(FIND, artifact_id)
    return None if row is None else Artifact.from_row(row)


async def of_attempt(db: Connection, task_id: UUID, attempt: int, agent_id: UUID) -> list[Artifact]:
    """Return what an attempt of this agent keeps, oldest first."""
    return [Artifact.from_row(row) for row in await db.fetch(OF_ATTEMPT, task_id, attempt, agent_id)]


async def reference(db: Connection, task_id: UUID, attempt: int, agent_id: UUID, path: str) -> tuple[bool, Any]:
    """Return whether the attempt is the agent's, and what its work says of the file at a path; None: nothing."""
    row = await db.fetchrow(REFERENCE, task_id, attempt, agent_id, path)
    return (False, None) if row is None else (True, row["reference"])


async def wanted(db: Connection, task_id: UUID, name: str, *, on_its_way: timedelta, late: timedelta) -> Wanted | None:
    """Return what the last attempt of a task kept under a name; None when there is no such task.

    A file of which nothing is known may come until `on_its_way` after the end of the task, or `late` where its result
    may have gone ahead of it.
    """
    row = await db.fetchrow(WANTED, task_id, name, on_its_way, late)
    if row is None:
        return None
    fields = dict(row)
    may_come = fields.pop("may_come")
    return Wanted(None if fields["artifact_id"] is None else Artifact(**fields), may_come)


async def upload_size(db: Connection, sha256: str) -> int | None:
    """Return the size of an upload; None when nothing with this digest was uploaded."""
    size: int | None = await db.fetchval(FIND_UPLOAD, sha256)
    return size


async def add_upload(db: Connection, upload: Upload, *, by: str) -> None:
    """Note an upload; one that is noted stays as it is, but for its time."""
    await db.execute(ADD_UPLOAD, upload.sha256, upload.size, by)


async def link_key(db: Connection) -> bytes:
    """Return the key that signs the paths of downloads."""
    key: bytes = await db.fetchval(LINK_KEY)
    return key


def _lists(rows: Sequence[tuple[Any, ...]], columns: int) -> list[list[Any]]:
    return [[row[column] for row in rows] for column in range(columns)]
