"""A host with a workspace in git, a played docker, and a service that runs; and repairs of it."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from agents.attempts.owned import Attempts
from agents.executors.base import ExecutionContext, Outcome
from agents.executors.compose import ComposeExecutor
from agents.executors.permitted import Permitted
from agents.processes.keepers import Keepers
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.repairs.settler import Settler
from agents.repairs.state import Unit
from agents.repairs.store import Store
from common.loop import Health
from common.messages import StepReport, StepStatus, WorkRequest
from tests.unit.agents.executing import Output, make_context
from tests.unit.agents.repairs.fake_docker import FakeDocker

PROJECT, SERVICE = "shop", "web"
KEY = "shop.web"
FIRST, SECOND = "sells apples\n", "sells pears\n"
COMPOSE = {"services": {"web": {"build": "."}, "db": {"image": "database"}}}
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")
# Long enough to be hidden, and named like a secret in the environment of the agent.
PASSWORD = "correct-horse-battery"


def git(place: Path, *words: str) -> str:
    argv = ["git", *IDENTITY, *words]
    return subprocess.run(argv, cwd=place, check=True, capture_output=True, text=True).stdout


def diff_of(path: str, before: str, after: str) -> str:
    """Return a diff that changes the only line of a file."""
    return f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-{before}+{after}"


def diff_adding(path: str, line: str) -> str:
    return f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n"


def make_repository(place: Path) -> None:
    """Make what workspaces are copies of."""
    (place / "deep").mkdir(parents=True)
    (place / "docker-compose.yml").write_text(json.dumps(COMPOSE))
    (place / "app.txt").write_text(FIRST)
    (place / "deep" / "notes.txt").write_text("a note\n")
    (place / ".gitignore").write_text("ignored\n")
    git(place, "init", "--quiet", "--initial-branch=main", "--template=")
    git(place, "add", "--all")
    git(place, "commit", "--quiet", "--message=first")


@dataclass
class Told:
    """What an attempt says: its steps, newest last, and the files that it keeps."""

    reports: list[StepReport] = field(default_factory=list)
    kept: dict[str, tuple[str, bytes]] = field(default_factory=dict)

    def step(
        self,
        position: int,
        name: str,
        status: StepStatus,
        message: str = "",
        started_at: datetime | None = None,
        finished_at: datetime | None = None,
    ) -> None:
        self.reports.append(
            StepReport(
                position=position,
                name=name,
                status=status,
                message=message,
                started_at=started_at,
                finished_at=finished_at,
            )
        )

    async def keep(self, name: str, path: Path, type: str = "file") -> None:
        self.kept[name] = type, path.read_bytes()

    @property
    def steps(self) -> dict[str, str]:
        """The last status of each step."""
        return {report.name: report.status.value for report in self.reports}

    def message(self, step: str) -> str:
        return next(report.message for report in reversed(self.reports) if report.name == step)


@dataclass
class Seen:
    """The workspace and docker, as far as a repair may not change them, or must change them back."""

    files: Mapping[str, tuple[str, int]]
    status: str
    names: Mapping[str, str]
    services: Mapping[str, tuple[str, str]]
    database: Any


class Workshop:
    """`root` is the compose_root of the host."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "srv"
        self.workspace = self.root / PROJECT
        self.state_dir = folder / "state"
        self.docker = folder / "docker"
        self.bin = folder / "bin"
        self.store = Store.below(self.state_dir)

    def make(self, docker: FakeDocker, repository: Path) -> None:
        """Make the workspace, a copy of a repository, and have both services run."""
        for made in (self.root, self.docker, self.bin):
            made.mkdir(parents=True)
        docker.install(self.bin, self.docker)
        shutil.copytree(repository, self.workspace)
        image = "sha256:" + hashlib.sha256(FIRST.encode()).hexdigest()
        self.play(
            images={image: FIRST, "sha256:db": "database"},
            names={f"{PROJECT}_web:latest": image, "database:latest": "sha256:db"},
            containers=[container("web", image, 1), container("db", "sha256:db", 2)],
            made=2,
        )

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.bin}:{os.environ['PATH']}", "HOME": str(self.folder), "DB_PASSWORD": PASSWORD}

    @property
    def played(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.docker / "state.json").read_text())
        return state

    def play(self, **changes: object) -> None:
        path = self.docker / "state.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps({**state, **changes}))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.docker / "calls").read_text().splitlines()]

    def has_called(self, word: str) -> bool:
        return any(word in call for call in self.calls)

    @property
    def unit(self) -> Unit:
        unit = self.store.read(KEY)
        assert unit is not None
        return unit

    def seen(self) -> Seen:
        state = self.played
        by_service = {one["labels"][1].rpartition("=")[2]: one for one in state["containers"]}
        paths = (path for path in self.workspace.rglob("*") if path.is_file() and ".git" not in path.parts)
        return Seen(
            files={
                str(path.relative_to(self.workspace)): (path.read_text(), path.stat().st_mode) for path in sorted(paths)
            },
            status=git(self.workspace, "status", "--porcelain=v1"),
            names={name: image for name, image in state["names"].items() if not name.startswith("chiffon-repair-")},
            services={name: (one["image"], one["status"]) for name, one in by_service.items()},
            database=by_service.get("db"),
        )

    def worktrees(self) -> list[str]:
        """Return the worktrees beside the workspace itself, also those of which only git knows."""
        return git(self.workspace, "worktree", "list", "--porcelain").split("worktree ")[2:]

    def profile(self, **changes: object) -> dict[str, Any]:
        profile = {
            "project": PROJECT,
            "workspace": str(self.workspace),
            "allowlist": ["app.txt", "deep/**", "docker-compose.yml"],
            "commands_allowed": [["/bin/sh", "-c"]],
            "restart_timeout_seconds": 20,
        }
        return {**profile, **changes}

    def parameters(self, **changes: object) -> dict[str, Any]:
        parameters = {
            "run_id": str(uuid4()),
            "service": SERVICE,
            "profile": self.profile(),
            "patch": {"diff": diff_of("app.txt", FIRST, SECOND)},
            "steps": ["analyze", "patch", "build", "restart", "verify"],
        }
        given = {**parameters, **changes}
        return {name: value for name, value in given.items() if value is not None}

    def executor(self) -> ComposeExecutor:
        return ComposeExecutor(self.root, self.store, compose="docker-compose")

    def context(self, keepers: Keepers, told: Told, output: Output, **changes: Any) -> ExecutionContext:
        ids = {TASK_VARIABLE: str(uuid4()), ATTEMPT_VARIABLE: "1", "CHIFFON_TRACE_ID": str(uuid4())}
        given = {
            "inherited": self.environment,
            "ids": ids,
            "lasting": keepers,
            "step": told.step,
            "keep": told.keep,
            **changes,
        }
        return make_context(self.folder, keepers, output, **given)

    def settler(self, keepers: Keepers, told: Told, attempts: Attempts | None = None) -> Settler:
        def report(
            _task_id: UUID, _attempt: int, _trace_id: UUID | None, reports: Sequence[StepReport]
        ) -> asyncio.Future[None]:
            told.reports += reports
            sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            sent.set_result(None)
            return sent

        def keep(_task_id: UUID, _attempt: int, _trace_id: UUID | None) -> Callable[[str, Path, str], Awaitable[None]]:
            return told.keep

        return Settler(
            self.store,
            starter=keepers,
            environment=self.environment,
            attempts=attempts or Attempts(),
            report=report,
            keep=keep,
            health=Health(),
            every=timedelta(seconds=0),
        )


def container(service: str, image: str, number: int) -> dict[str, Any]:
    return {
        "id": f"{number:064}",
        "name": f"{PROJECT}_{service}_1",
        "image": image,
        "labels": [
            f"com.docker.compose.project={PROJECT}",
            f"com.docker.compose.service={service}",
            "com.docker.compose.oneoff=False",
        ],
        "started": number,
        "status": "running",
    }


async def carry_out(executor: ComposeExecutor, parameters: Mapping[str, Any], context: ExecutionContext) -> Outcome:
    work = WorkRequest(task_id=UUID(context.ids[TASK_VARIABLE]), work_type=executor.kind, parameters=dict(parameters))
    return await executor.execute(Permitted(work), context)


ALL_BUT_ROLLBACK = ("analyze", "patch", "build", "restart", "verify")
CRASHES = {"diff": diff_of("app.txt", FIRST, "crashes\n")}
FAILS_TO_BUILD = {"diff": diff_of("app.txt", FIRST, "fails to build\n")}


def shell(script: str) -> dict[str, object]:
    return {"commands": [["/bin/sh", "-c", script]]}
