"""Artifacts as callers see them, and uploads."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from common.rest.base import Answer


class Artifact(Answer):
    """A file that an attempt of a task keeps."""

    artifact_id: UUID = Field(description="Its id.")
    task_id: UUID = Field(description="The task that kept it.")
    attempt: int = Field(description="The attempt of the task that kept it.")
    name: str = Field(description="What the work calls it: a relative path.", examples=["dist/chiffon.whl"])
    path: str = Field(
        description="Where its file lies below the folder `workflow_runs/<id>` of its run, or of its task outside of "
        "any run: its name, or for a second file of this name its name in a folder of its own."
    )
    type: str = Field(description="What it is; `file` for what work keeps.", examples=["build_log"])
    sha256: str = Field(description="The SHA-256 of its content, in hexadecimal digits.")
    size: int = Field(description="How many bytes it has.")
    created_at: datetime = Field(description="When the first piece of it arrived.")
    stored_at: datetime | None = Field(
        default=None, description="When its content was complete and stored; null while it is not there."
    )
    missing: str | None = Field(
        default=None, description="Why its content is not there, or not any more; null also while it is still arriving."
    )
    link: str | None = Field(
        default=None,
        description="A signed path under which the content can be read without a token until it expires; null while "
        "the content is not there.",
    )


class ArtifactList(Answer):
    """What a task or a run keeps."""

    items: list[Artifact] = Field(description="The artifacts, oldest first.")


class Upload(Answer):
    """A file that was uploaded, for work that is to get it."""

    sha256: str = Field(description="The SHA-256 of its content, by which `files` of work name it.")
    size: int = Field(description="How many bytes it has.")
