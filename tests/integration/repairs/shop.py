"""A compose project on a real docker: a service that answers by HTTP, and another that nobody may touch."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from agents.attempts.owned import Attempts
from agents.executors.base import ExecutionContext
from agents.executors.compose import ComposeExecutor
from agents.processes.keepers import Keepers
from agents.processes.table import ATTEMPT_VARIABLE, TASK_VARIABLE
from agents.repairs.settler import Settler
from agents.repairs.state import Unit
from agents.repairs.store import Store
from common.loop import Health
from common.messages import StepReport
from tests.services.docker import BASE_IMAGE, DockerDaemon
from tests.services.ports import steady_port
from tests.unit.agents.executing import Output, make_context
from tests.unit.agents.repairs.workshop import Told, git

REPOSITORY = Path(__file__).parents[3]
SERVICE, OTHER = "web", "db"
# Named like a secret in the environment that the build sees.
PASSWORD = "correct-horse-battery"
STEPS = ("analyze", "patch", "build", "restart", "verify")

COMPOSE = """\
version: "3.4"
services:
  web:
    build:
      context: .
      network: host
      args:
        - DB_PASSWORD
    network_mode: host
    stop_grace_period: 1s
    healthcheck:
      test: ["CMD", "test", "-e", "/www/health"]
      interval: 1s
  db:
    image: {base}
    command: ["sleep", "100000"]
    network_mode: host
    stop_grace_period: 1s
"""
DOCKERFILE = """\
FROM {base}
ARG DB_PASSWORD
COPY www /www
COPY build.sh /build.sh
RUN sh /build.sh
CMD ["httpd", "-f", "-p", "127.0.0.1:{port}", "-h", "/www"]
"""
BUILD = "echo the password is $DB_PASSWORD\n"


@dataclass(frozen=True)
class Seen:
    """What a repair may not change, or must change back."""

    files: dict[str, tuple[str, int]]
    status: str
    image: str
    runs: list[str]
    other: str


class Shop:
    def __init__(self, folder: Path, daemon: DockerDaemon, port: int, project: str) -> None:
        self.folder = folder
        self.daemon = daemon
        self.port = port
        self.project = project
        self.root = folder / "srv"
        self.workspace = self.root / "shop"
        self.store = Store.below(folder / "state")

    @classmethod
    def made(cls, folder: Path, daemon: DockerDaemon) -> "Shop":
        shop = cls(folder, daemon, steady_port(), f"shop{uuid4().hex[:8]}")
        (shop.workspace / "www").mkdir(parents=True)
        (shop.workspace / "docker-compose.yml").write_text(COMPOSE.format(base=BASE_IMAGE))
        (shop.workspace / "Dockerfile").write_text(DOCKERFILE.format(base=BASE_IMAGE, port=shop.port))
        (shop.workspace / "build.sh").write_text(BUILD)
        (shop.workspace / "www" / "health").write_text("apples\n")
        git(shop.workspace, "init", "--quiet", "--initial-branch=main")
        git(shop.workspace, "add", "--all")
        git(shop.workspace, "commit", "--quiet", "--message=first")
        return shop

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DB_PASSWORD": PASSWORD,
            **self.daemon.environment,
        }

    def compose(self, *words: str) -> None:
        argv = ["docker-compose", "--project-name", self.project, *words]
        done = subprocess.run(
            argv, cwd=self.workspace, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    def up(self) -> None:
        self.compose("up", "--detach", "--build")

    def containers(self, service: str) -> list[dict[str, Any]]:
        label = f"label=com.docker.compose.project={self.project}"
        of_service = f"label=com.docker.compose.service={service}"
        ids = self.daemon.docker("ps", "--all", "--quiet", "--filter", label, "--filter", of_service).split()
        shown: list[dict[str, Any]] = json.loads(self.daemon.docker("inspect", *ids)) if ids else []
        return shown

    def images(self) -> set[str]:
        return set(self.daemon.docker("images", "--all", "--quiet", "--no-trunc").split())

    def seen(self) -> Seen:
        paths = (path for path in self.workspace.rglob("*") if path.is_file() and ".git" not in path.parts)
        ids = self.daemon.docker(
            "ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={self.project}"
        ).split()
        image, *found = json.loads(self.daemon.docker("inspect", f"{self.project}_web:latest", *ids))
        by_service: dict[str, list[dict[str, Any]]] = {SERVICE: [], OTHER: []}
        for one in found:
            by_service[one["Config"]["Labels"]["com.docker.compose.service"]].append(one)
        [other] = by_service[OTHER]
        return Seen(
            files={
                str(path.relative_to(self.workspace)): (path.read_text(), path.stat().st_mode) for path in sorted(paths)
            },
            status=git(self.workspace, "status", "--porcelain=v1"),
            image=image["Id"],
            runs=[f"{one['Image']} {one['State']['Status']}" for one in by_service[SERVICE]],
            other=f"{other['Id']} {other['State']['StartedAt']}",
        )

    @property
    def key(self) -> str:
        return f"{self.project}.{SERVICE}"

    @property
    def unit(self) -> Unit:
        unit = self.store.read(self.key)
        assert unit is not None
        return unit

    def healthcheck(self, seconds: float) -> dict[str, Any]:
        """Return what asks the service so long whether it works."""
        url = f"http://127.0.0.1:{self.port}/health"
        return {"url": url, "timeout_seconds": seconds, "interval_seconds": 1}

    def profile(self, **changes: object) -> dict[str, Any]:
        profile = {
            "project": self.project,
            "workspace": str(self.workspace),
            "allowlist": ["www/**", "build.sh"],
            "commands_allowed": [["sh", "-c"]],
            "healthcheck": self.healthcheck(60),
            "restart_timeout_seconds": 60,
        }
        return {**profile, **changes}

    def parameters(self, script: str, **changes: object) -> dict[str, Any]:
        return {
            "run_id": str(uuid4()),
            "service": SERVICE,
            "profile": self.profile(),
            "patch": {"commands": [["sh", "-c", script]]},
            "steps": list(STEPS),
            **changes,
        }

    def executor(self) -> ComposeExecutor:
        return ComposeExecutor(self.root, self.store)

    def context(self, keepers: Keepers, told: Told, output: Output, **changes: Any) -> ExecutionContext:
        ids = {TASK_VARIABLE: str(uuid4()), ATTEMPT_VARIABLE: "1", "CHIFFON_TRACE_ID": str(uuid4())}
        given = {"inherited": self.environment, "ids": ids, "lasting": keepers, "step": told.step, "keep": told.keep}
        return make_context(self.folder, keepers, output, **{**given, **changes})

    def settler(self, keepers: Keepers, told: Told) -> Settler:
        def report(_task: UUID, _number: int, _trace: UUID | None, reports: Sequence[StepReport]) -> Any:
            told.reports += reports
            sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            sent.set_result(None)
            return sent

        return Settler(
            self.store,
            starter=keepers,
            environment=self.environment,
            attempts=Attempts(),
            report=report,
            keep=lambda _task, _number, _trace: told.keep,
            health=Health(),
            every=timedelta(seconds=0),
        )

    def begin(self, parameters: dict[str, Any]) -> "subprocess.Popen[bytes]":
        """Repair in a process of its own, which can be killed."""
        asked = {"folder": str(self.folder), "environment": self.environment, "parameters": parameters}
        (self.folder / "asked").write_text(json.dumps(asked))
        return subprocess.Popen(
            [sys.executable, "-m", "tests.integration.repairs.alone", str(self.folder / "asked")],
            cwd=REPOSITORY,
            env={**os.environ, **self.environment, "PYTHONPATH": f"{REPOSITORY}/src:{REPOSITORY}"},
            stdin=subprocess.DEVNULL,
        )
