"""What the host knows of a repair, as it is on disk before and after each of its steps."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from itertools import accumulate
from typing import Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from common.canonical import canonical_json
from common.compose import REPAIR_STEPS, RepairResult, ServiceProfile
from common.messages import LAST_STEP, StepReport, StepStatus

ROLLBACK = LAST_STEP
# The steps that are reported, each at its place; the last is the undoing of the others.
POSITIONS: Mapping[str, int] = {name: position for position, name in enumerate((*REPAIR_STEPS, ROLLBACK))}
MOST_FILES_NAMED = 100
MOST_NAMES_BYTES = 8 * 1024


def key_of(project: str, service: str) -> str:
    """Return what a service is called among all of its host. No project has a dot in its name."""
    return f"{project}.{service}"


class Stage(StrEnum):
    """How far a repair has come, in this order. Each is on disk before what it says may have been done."""

    NEW = "new"
    PATCHING = "patching"
    PATCHED = "patched"
    BUILDING = "building"
    BUILT = "built"
    FILES = "files"
    IMAGE = "image"
    CONTAINER = "container"
    RESTARTED = "restarted"

    def has_reached(self, other: "Stage") -> bool:
        return _ORDER[self] >= _ORDER[other]


_ORDER = {stage: number for number, stage in enumerate(Stage)}


class End(StrEnum):
    """How a repair ended. `prepared`: patched and built, and nothing that runs is touched; another task goes on."""

    VERIFIED = "verified"
    PREPARED = "prepared"
    ROLLED_BACK = "rolled_back"
    IN_PART = "rolled_back_in_part"
    UNTOUCHED = "untouched"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Content(_Part):
    """A regular file: what it holds, by digest, its permissions and its owner."""

    sha256: str
    mode: int
    uid: int
    gid: int

    def is_like(self, other: "Content | None") -> bool:
        """Return whether both hold the same, with the same permissions."""
        return other is not None and (self.sha256, self.mode) == (other.sha256, other.mode)


class Touched(_Part):
    """A file that the repair changes, by its path in the workspace; None where there is no such file."""

    path: str
    before: Content | None
    after: Content | None


class Container(_Part):
    """A container of the service as docker shows it. `image` is the id of its image."""

    id: str
    name: str
    image: str
    status: str
    exit_code: int = 0
    started_at: str = ""
    health: str = ""
    restart_policy: str = ""
    restarts: int = 0

    @property
    def was_up(self) -> bool:
        """Whether it ran, or was about to: one that crashes again and again does now and then."""
        return self.status in ("running", "restarting", "paused")


class Unit(_Part):
    """One repair of one service: what it is to do, how far it has come, and all that undoing it needs.

    `docker` are the variables that say where the daemon is. `compose` is the command of compose, and `compose_major`
    its version. `base_tree` is the git tree that the patch changes. `shown` is the diff as people are shown it, line by
    line and without secrets, where they are asked before the restart. `image_name` is what compose calls the image;
    `named_before` is the id that this name had, and `image_before` the one that ran. `restored_without` are the files
    that were not back when undoing made the containers anew; None until then. `candidate` is the id of the image that
    was built. `left` are digests of files that earlier repairs of this service have changed and nobody has committed
    since. `cause`: why it is being undone, when it `is_undoing`. `tries`: how often undoing has failed. `handed_over`:
    how it ended waits in the outbox, or has arrived.
    """

    version: Literal[1] = 1
    run_id: UUID
    task_id: UUID
    attempt: int
    trace_id: UUID | None = None
    service: str
    profile: ServiceProfile
    begun_at: datetime
    stage: Stage = Stage.NEW
    end: End | None = None
    cause: str = ""
    is_undoing: bool = False
    docker: dict[str, str] = Field(default_factory=dict)
    compose: list[str] = Field(default_factory=list)
    compose_major: int = 0
    base_commit: str = ""
    base_tree: str = ""
    diff_sha256: str = ""
    shown: list[str] = Field(default_factory=list)
    files: list[Touched] = Field(default_factory=list)
    made_folders: list[str] = Field(default_factory=list)
    image_name: str = ""
    named_before: str | None = None
    image_before: str | None = None
    containers: list[Container] = Field(default_factory=list)
    restored_without: list[str] | None = None
    candidate: str | None = None
    left: dict[str, str | None] = Field(default_factory=dict)
    reports: list[StepReport] = Field(default_factory=list)
    tries: int = 0
    handed_over: bool = False

    @property
    def key(self) -> str:
        return key_of(self.profile.project, self.service)

    def changed(self, **changes: object) -> Self:
        return self.model_copy(update=changes)

    def report_of(self, step: str) -> StepReport | None:
        return next((report for report in self.reports if report.name == step), None)

    def reporting(self, report: StepReport) -> Self:
        """Return the same with a report in place of an earlier one of that step."""
        others = [one for one in self.reports if one.name != report.name]
        return self.changed(reports=sorted([*others, report], key=lambda one: one.position))

    @property
    def under_way(self) -> StepReport | None:
        """The step that has begun and not ended, other than the undoing."""
        return next(
            (one for one in self.reports if one.status is StepStatus.IN_PROGRESS and one.name != ROLLBACK), None
        )

    @property
    def leaves(self) -> dict[str, str | None]:
        """What it leaves changed in the workspace, with what repairs before it have left: digests by paths."""
        if self.end is not End.VERIFIED:
            return self.left
        own = {one.path: None if one.after is None else one.after.sha256 for one in self.files}
        return {**self.left, **own}

    @property
    def result(self) -> RepairResult | None:
        """What the task returns; None while it is not known how it ends."""
        if self.end is None:
            return None
        return RepairResult(
            ending=self.end,
            diff_sha256=self.diff_sha256,
            diff=self.shown,
            files=_some([one.path for one in self.files[:MOST_FILES_NAMED]]),
            image_before=self.image_before,
            image_after=self.candidate,
        )


def _some(paths: Sequence[str]) -> list[str]:
    """Return the first of the paths, as far as a result has room for them."""
    sizes = accumulate(len(canonical_json(path)) for path in paths)
    return [path for path, size in zip(paths, sizes, strict=True) if size <= MOST_NAMES_BYTES]
