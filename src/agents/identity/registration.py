"""The identity of this agent: an id that survives restarts, kept on disk and used by one process at a time."""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from agents.settings import AgentSettings
from common.durable import write_file
from common.errors import StartupRefused
from common.private import check_private, make_private
from common.schemas import JsonSchema
from common.version import VERSION

IDENTITY_FILE = "identity.json"
LOCK_FILE = "agent.lock"


class IdentityInUse(StartupRefused):
    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            f"Another agent is running with the state in {state_dir}. Stop it, or give this one a directory of its own "
            "with CHIFFON_AGENT_STATE_DIR or [agent] state_dir."
        )


class CopyOfRunningAgent(StartupRefused):
    def __init__(self, state_dir: Path, pid: int) -> None:
        super().__init__(
            f"The agent whose state is in {state_dir} still runs, as process {pid}, so this is a copy of its state. "
            "Start this agent with an empty directory, in CHIFFON_AGENT_STATE_DIR or [agent] state_dir, and enrol it."
        )


class AgentRefused(StartupRefused):
    """Another process with the same identity still runs, with a copy of this one's state."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The orchestrator refused this agent: {reason}. Give each its own with CHIFFON_AGENT_STATE_DIR or [agent] "
            "state_dir, and enrol it, or remove identity.json from the copy."
        )


class IdentityUnusable(StartupRefused):
    """What is on disk is not the identity of this agent."""


class StateUnusable(StartupRefused):
    """The journal or the spool cannot be read, so it is unknown what an earlier life of the agent has left."""

    def __init__(self, state_dir: Path, error: OSError) -> None:
        super().__init__(f"The agent's state in {state_dir} cannot be read: {error.strerror or error}.")


@dataclass(frozen=True, slots=True)
class Identity:
    """The part of an agent's heartbeats that never changes.

    `schemas` are those of its own work types, `boot_id` is a random id of this process.
    """

    agent_id: UUID
    agent_type: str
    hostname: str
    version: str
    work_types: tuple[str, ...]
    slots: int
    started_at: datetime
    labels: Mapping[str, Any] = field(default_factory=dict)
    schemas: Mapping[str, JsonSchema] = field(default_factory=dict)
    boot_id: UUID = field(default_factory=uuid4)


@contextmanager
def open_identity(settings: AgentSettings, *, work_types: Iterable[str]) -> Iterator[Identity]:
    """Read or create the identity and keep it locked.

    Raises `IdentityInUse` when another process has it, and `IdentityUnusable` when the directory cannot be used.
    """
    directory = settings.state_dir
    try:
        make_private(directory)
        check_private(directory, "The agent's state directory")
        lock = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IdentityUnusable(f"The agent's state directory {directory} cannot be used: {error.strerror}.") from None
    try:
        # The kernel drops the lock with the process, however it ends, so there is never a stale one.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IdentityInUse(directory) from None
        yield Identity(
            agent_id=_read_or_create(directory / IDENTITY_FILE, settings.type),
            agent_type=settings.type,
            hostname=settings.name,
            version=VERSION,
            work_types=tuple(sorted(work_types)),
            slots=settings.slots,
            started_at=datetime.now(UTC),
            labels=settings.announced_labels,
        )
    finally:
        os.close(lock)


def _read_or_create(path: Path, agent_type: str) -> UUID:
    if not path.exists():
        agent_id = uuid4()
        _write(path, {"agent_id": str(agent_id), "agent_type": agent_type})
        return agent_id
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        agent_id, kept_type = UUID(kept["agent_id"]), kept["agent_type"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IdentityUnusable(f"{path} is not an agent's identity ({error}). Remove it to get a new one.") from None
    if kept_type != agent_type:
        raise IdentityUnusable(
            f"{path} belongs to an agent of type {kept_type!r}, not {agent_type!r}. Use another state directory."
        )
    return agent_id


def _write(path: Path, content: Mapping[str, str]) -> None:
    try:
        # For the agent alone, also where another user may pass through the directory to its workspaces.
        write_file(path, json.dumps(content).encode())
    except OSError as error:
        raise IdentityUnusable(f"{path} cannot be written: {error.strerror}.") from None
