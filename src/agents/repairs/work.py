"""What the steps of a repair share: the repair as it is on disk, the host's programs, the log, and who is told."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agents.attempts.steps import ReportStep
from agents.repairs.docker import Compose, Docker, Versions, find_compose
from agents.repairs.failures import StepFailed
from agents.repairs.git import Git
from agents.repairs.log import Secrets, StepLog, TaskOutput
from agents.repairs.programs import Programs, User
from agents.repairs.state import POSITIONS, ROLLBACK, Unit
from agents.repairs.store import Store
from common.clock import Clock, SystemClock
from common.compose import PatchSource
from common.messages import StepReport, StepStatus

log = logging.getLogger(__name__)

# What each step leaves to be kept, as the contract of runs calls it.
ARTIFACTS: Mapping[str, Mapping[str, str]] = {
    "analyze": {"analyze.log": "file"},
    "patch": {"patch.diff": "patch_diff", "patch.log": "file"},
    "build": {"build.log": "build_log"},
    "restart": {"restart.log": "file"},
    "verify": {"verify.log": "verify_log"},
    "rollback": {"rollback.log": "rollback_log"},
}

# The steps that touch what runs, or wait for it: a broker that is away does not hold them up.
LASTING_STEPS = ("restart", "verify", ROLLBACK)

# Keeps a file as an artifact: its name, where it is, its type.
Keep = Callable[[str, Path, str], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Commands:
    """How the commands of a patch run: with these variables and limits, and as this user, where not as the agent."""

    environment: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None


@dataclass(slots=True)
class Work:
    """One repair under way, which nobody else works on. `unit` is what is on disk of it.

    `programs` end when a stop is ordered; `lasting` finish what they do. `root` is where workspaces must lie. `hidden`
    takes out of a text what else than `secrets` does not leave the host; people are shown the diff before a restart
    where it `is_shown`. `versions` are those of the compose programs of this host. A repair that is being undone goes
    on when the state cannot be written: then it is not `is_on_disk`.

    Programs have said already what is `in_diff`, the paths that the requested diff names, and `said_images`: what the
    compose files held, and what compose calls the images of their services.
    """

    store: Store
    unit: Unit
    programs: Programs
    lasting: Programs
    secrets: Secrets
    step: ReportStep
    keep: Keep
    root: Path | None = None
    output: TaskOutput | None = None
    patch: PatchSource | None = None
    commands: Commands = field(default_factory=Commands)
    hidden: Callable[[str], str] = str
    is_shown: bool = False
    is_on_disk: bool = True
    versions: Versions = field(default_factory=dict)
    clock: Clock = field(default_factory=SystemClock)
    in_diff: list[str] | None = field(default=None, init=False)
    said_images: tuple[list[bytes], dict[str, str]] | None = field(default=None, init=False)

    @property
    def workspace(self) -> Path:
        return Path(self.unit.profile.workspace)

    @property
    def tree(self) -> Path:
        """The copy of the workspace that is patched and built."""
        return self.store.worktree(self.unit.key)

    @property
    def logs(self) -> Path:
        return self.store.logs(self.unit.key)

    def log(self, step: str) -> StepLog:
        return StepLog(self.logs / f"{step}.log", self.secrets, self.output, lasts=step in LASTING_STEPS)

    def git(self, *, lasts: bool = False) -> Git:
        return Git(self._programs(lasts), self.workspace)

    def docker(self, *, lasts: bool = False) -> Docker:
        return Docker(self._programs(lasts), self.store.folder)

    async def compose(self, *, lasts: bool = False) -> Compose:
        """Return the compose of this host, which is looked for once. Raises `StepFailed`."""
        if not self.unit.compose:
            command, major, _ = await find_compose(
                self._programs(lasts), self.unit.profile, self.store.folder, self.versions
            )
            await self.note(compose=command, compose_major=major)
        unit = self.unit
        return Compose(self._programs(lasts), unit.compose, unit.compose_major, unit.profile, unit.service)

    async def images(self, compose: Compose) -> Mapping[str, str]:
        """Return the services of the workspace, each with its image, as compose says.

        It is asked again only when its files have changed, for it takes most of a second to answer.
        """
        sources = await asyncio.to_thread(compose.sources)
        if self.said_images is None or self.said_images[0] != sources:
            images = await compose.images()
            self.said_images = None if sources is None else (sources, images)
            return images
        return self.said_images[1]

    async def image_name(self, compose: Compose) -> str:
        """Return what compose calls the image of the service. Raises `StepFailed`."""
        images = await self.images(compose)
        if self.unit.service not in images:
            raise StepFailed(f"Compose does not show the service {self.unit.service}.")
        return images[self.unit.service]

    async def note(self, **changes: object) -> None:
        """Bring what is new to disk. Raises `OSError`, unless the repair is being undone."""
        await self._write(self.unit.changed(**changes))

    async def report(self, step: str, status: StepStatus, message: str = "", **changes: object) -> None:
        """Say where a step stands, once that is on disk together with what else has changed. Raises as `note`."""
        known, now = self.unit.report_of(step), self.clock.now()
        report = StepReport(
            position=POSITIONS[step],
            name=step,
            status=status,
            started_at=now if known is None else known.started_at,
            finished_at=now if status.is_final else None,
            message=self.secrets.on_one_line(message),
        )
        await self._write(self.unit.changed(**changes).reporting(report))
        self.tell(report)

    def tell(self, report: StepReport) -> None:
        """Pass a report on."""
        self.step(report.position, report.name, report.status, report.message, report.started_at, report.finished_at)

    async def keep_files(self, step: str) -> None:
        """Keep what a step has left. A repair goes on without, when it cannot be kept."""
        for name, kind in ARTIFACTS[step].items():
            path = self.logs / name
            try:
                if await asyncio.to_thread(path.is_file):
                    await self.keep(name, path, kind)
            except Exception as problem:
                log.warning(
                    "repair.not_kept", extra={"task_id": self.unit.task_id, "file": name, "reason": str(problem)}
                )

    async def _write(self, unit: Unit) -> None:
        try:
            await asyncio.to_thread(self.store.write, unit)
            self.is_on_disk = True
        except OSError as problem:
            if not unit.is_undoing:
                raise
            # Undoing needs nothing but what is on disk already, and may be what makes room there.
            log.error("repair.not_written", extra={"service": unit.service, "reason": str(problem)})  # noqa: TRY400
            self.is_on_disk = False
        self.unit = unit

    def _programs(self, lasts: bool) -> Programs:
        return self.lasting if lasts else self.programs
