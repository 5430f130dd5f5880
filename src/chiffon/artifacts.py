"""Files that work keeps and gets, through the client: list them, read them, hand some in."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from uuid import UUID

from chiffon.http import Http
from common.artifacts import check_artifact_name
from common.durable import write_all
from common.errors import ChiffonError, NotFound
from common.rest.artifacts import Artifact, ArtifactList, Upload

PIECE = 256 * 1024
DRAFT = ".part"


class NotWhole(ChiffonError):
    """What was read is not the content of the artifact: it was cut off, or changed on its way."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(
            f"{artifact.name} is not whole: what was read does not have its size and SHA-256. Read it again."
        )


class ContentMissing(NotFound):
    """An artifact has no content: it could not be stored, or is still on its way."""

    def __init__(self, artifact: Artifact) -> None:
        super().__init__(f"{artifact.name} is not there: {artifact.missing or 'it is still on its way'}")


class LeadsOut(ChiffonError):
    """A file would be written outside of the folder that was named."""

    def __init__(self, path: str, folder: Path) -> None:
        super().__init__(f"{path} leads out of {folder}, so nothing is written there.")


class Artifacts:
    """A part of `Client`; see there for what calls raise."""

    _http: Http

    async def artifacts(self, *, run_id: UUID | str | None = None, task_id: UUID | str | None = None) -> list[Artifact]:
        """Return what a run or a task keeps, oldest first; give exactly one of the two."""
        if (run_id is None) == (task_id is None):
            raise ValueError("give exactly one of run_id and task_id")
        path = f"/api/v1/tasks/{task_id}/artifacts" if run_id is None else f"/api/v1/runs/{run_id}/artifacts"
        return ArtifactList.model_validate(await self._http.get(path)).items

    async def read_artifact(self, artifact: Artifact) -> AsyncIterator[bytes]:
        """Yield the content of an artifact. Raises `NotWhole` at its end when it is not what was stored."""
        if artifact.stored_at is None or artifact.missing is not None:
            raise ContentMissing(artifact)
        digest, size = hashlib.sha256(), 0
        async with self._http.fetch(f"/api/v1/artifacts/{artifact.artifact_id}") as pieces:
            async for piece in pieces:
                digest.update(piece)
                size += len(piece)
                if size > artifact.size:
                    raise NotWhole(artifact)
                yield piece
        if size != artifact.size or digest.hexdigest() != artifact.sha256:
            raise NotWhole(artifact)

    async def download(self, artifact: Artifact, folder: Path) -> Path:
        """Write the content of an artifact to its path below a folder, in place of what was there; return where.

        The file is there when all of it is. Raises `NotWhole`, `ContentMissing`, `LeadsOut` and `OSError`.
        """
        try:
            path = folder / check_artifact_name(artifact.path)
        except ValueError:
            raise LeadsOut(artifact.path, folder) from None
        draft = path.with_name(path.name + DRAFT)
        handle = await asyncio.to_thread(_open_draft, draft, folder)
        try:
            async for piece in self.read_artifact(artifact):
                await asyncio.to_thread(write_all, handle, piece)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        draft.replace(path)
        return path

    async def upload(self, path: Path) -> Upload:
        """Hand in a file; work gets it by the SHA-256 of its content, which is returned."""
        size = (await asyncio.to_thread(path.stat)).st_size
        return Upload.model_validate(await self._http.put_in("/api/v1/uploads", partial(_pieces, path), size=size))


def _open_draft(draft: Path, folder: Path) -> int:
    """Open a new file below a folder, and make the folders on its way. Raises `LeadsOut` and `OSError`."""
    draft.parent.mkdir(parents=True, exist_ok=True)
    if not draft.parent.resolve().is_relative_to(folder.resolve()):
        raise LeadsOut(str(draft.parent), folder)
    draft.unlink(missing_ok=True)
    return os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece
