"""Artifacts that become of pieces what the test says."""

from collections.abc import Sequence
from uuid import UUID

from common.messages import WantFile, WorkStatus
from common.orders import ArtifactsStored, FilePiece
from orchestrator.artifacts.service import ArtifactService


class ScriptedArtifacts(ArtifactService):
    """Says of each file at once that it is stored, and has for whoever wants one what `files` holds of its path."""

    def __init__(self) -> None:
        self.files: dict[str, FilePiece | None] = {}

    async def store(self, statuses: Sequence[WorkStatus]) -> list[tuple[UUID, ArtifactsStored]]:
        return [
            (
                said.agent_id,
                ArtifactsStored(task_id=said.task_id, attempt=said.attempt, names=[one.name for one in said.pieces]),
            )
            for said in statuses
            if said.pieces
        ]

    async def piece(self, want: WantFile) -> FilePiece | None:
        piece = self.files[want.path]
        return None if piece is None else piece.model_copy(update={"want_id": want.want_id})
