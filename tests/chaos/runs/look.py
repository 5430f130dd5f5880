"""Look at a host past Chiffon: files, git, docker, processes."""

import fcntl
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.chaos.runs.evidence import Container, Host
from tests.integration.repairs.shop import OTHER, SERVICE, Shop
from tests.unit.agents.repairs.workshop import git

PROJECT_LABEL = "com.docker.compose.project"
ANSWER_SECONDS = 2.0


def look_at(shop: Shop) -> Host:
    """Return how the host stands. Blocking."""
    names = shop.daemon.docker("ps", "--all", "--format", f'{{{{.Names}}}} {{{{.Label "{PROJECT_LABEL}"}}}}')
    of_project = {f"{one['Name'].removeprefix('/')}" for name in (SERVICE, OTHER) for one in shop.containers(name)}
    return Host(
        files={
            str(path.relative_to(shop.workspace)): (path.read_text(), path.stat().st_mode)
            for path in sorted(shop.workspace.rglob("*"))
            if path.is_file() and ".git" not in path.parts
        },
        changed=git(shop.workspace, "status", "--porcelain=v1"),
        image=shop.daemon.docker("image", "inspect", "--format", "{{.Id}}", f"{shop.project}_{SERVICE}"),
        service=_containers(shop, SERVICE),
        others=_containers(shop, OTHER),
        answer=answer_of(shop),
        strangers=[line.strip() for line in names.splitlines() if line.split()[0] not in of_project],
        left=_left(shop),
    )


def is_held(shop: Shop) -> bool:
    """Return whether somebody still holds the lock on the service."""
    path = shop.store.folder / f"{shop.key}.lock"
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def processes_of(tasks: list[str]) -> list[str]:
    """Return the processes that were started for these tasks and still run."""
    marks = [f"CHIFFON_TASK_ID={task}".encode() for task in tasks]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if any(mark in environment.split(b"\0") for mark in marks):
            found.append(f"{folder.name} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found


def unsent(shop: Shop) -> int:
    """Return how many ends of repairs the agent has not brought to the orchestrator."""
    return len(list((shop.store.folder / "ended").glob("*.json")))


def _containers(shop: Shop, service: str) -> list[Container]:
    return [_container(one) for one in shop.containers(service)]


def _container(shown: dict[str, Any]) -> Container:
    state = shown["State"]
    return Container(shown["Id"], shown["Name"].removeprefix("/"), shown["Image"], state["Status"], state["StartedAt"])


def answer_of(shop: Shop) -> str | None:
    """Return what the service answers; None when it does not. Blocking."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{shop.port}/health", timeout=ANSWER_SECONDS) as answer:
            text: str = answer.read().decode()
    except (OSError, urllib.error.URLError):
        return None
    return text


def _left(shop: Shop) -> list[str]:
    """Return what a repair has left beside the service: worktrees, drafts of files, locks of git, empty folders."""
    listed = git(shop.workspace, "worktree", "list", "--porcelain").splitlines()
    worktrees = [
        line for line in listed if line.startswith("worktree ") and line.split(" ", 1)[1] != str(shop.workspace)
    ]
    drafts = [str(path) for path in shop.workspace.rglob(".*.chiffon-new")]
    locks = [str(path) for path in (shop.workspace / ".git").rglob("*.lock")]
    copies = [str(path) for path in shop.store.folder.glob("*.worktree")]
    empty = [
        folder for folder, inner, names in os.walk(shop.workspace) if not inner and not names and ".git" not in folder
    ]
    return [*worktrees, *drafts, *locks, *copies, *empty]
