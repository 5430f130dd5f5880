"""What `up` is made of: parts that run until they are stopped, and what is common to waiting for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from common.errors import StartupRefused
from common.urls import http_url

PAUSE = 0.05
# Where something can be reached that listens on what is no address of one host.
REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - compared


class Part(Protocol):
    """Something that runs until it is stopped."""

    @property
    def ended(self) -> "asyncio.Task[Any]":
        """Return the task that is done when the part is."""
        ...

    def failure(self) -> StartupRefused | None:
        """Return why a part that has ended did so although nobody asked it to; None if it left in good order."""
        ...


@dataclass(frozen=True, slots=True)
class Site:
    """Where the parts of one `up` find each other, and where they keep what they need."""

    host: str
    port: int
    database_url: str
    broker_url: str
    state_dir: Path
    agent_names: tuple[tuple[str, str], ...]
    """The type and the name of each agent."""
    slots: int | None = None
    signing_keys_dir: Path | None = None
    """Where the settings name a directory of signing keys; else there is one below `state_dir`."""
    checkpoints_file: Path | None = None
    artifacts_dir: Path | None = None
    services_file: Path | None = None
    compose_root: Path | None = None

    @property
    def artifacts(self) -> Path:
        """Where files that work keeps are stored, unless the settings name another directory."""
        return self.artifacts_dir or self.state_dir / "artifacts"

    @property
    def signing_keys(self) -> Path:
        return self.signing_keys_dir or self.state_dir / "keys"

    @property
    def trusted_keys(self) -> Path:
        """The public keys of the orchestrator, for its agents."""
        return self.state_dir / "trusted_keys.pem"

    @property
    def checkpoints(self) -> Path:
        """The file of the audit log's checkpoints, unless the settings name another."""
        return self.checkpoints_file or self.state_dir / "audit" / "checkpoints.jws"

    @property
    def url(self) -> str:
        return http_url(REACHABLE.get(self.host, self.host), self.port)

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

    @property
    def token_file(self) -> Path:
        return self.state_dir / "token"

    def agent_state(self, name: str) -> Path:
        return self.state_dir / "agents" / name


class Mode(Protocol):
    """How the parts are run; leaving a context stops what it started."""

    def orchestrator(self, site: Site) -> AbstractAsyncContextManager[Part]: ...

    def agents(self, site: Site) -> AbstractAsyncContextManager[Sequence[Part]]: ...


async def until(
    check: Callable[[], Awaitable[bool]], *, parts: Sequence[Part], timeout: timedelta, what: str, see: Path
) -> None:
    """Repeat a check until it is true.

    Raises the failure of a part that ends first, and `StartupRefused` after `timeout`, pointing to the logs in `see`.
    """
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            while not await check():
                for part in parts:
                    if part.ended.done() and (failure := part.failure()) is not None:
                        raise failure
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise StartupRefused(f"{what} did not happen within {timeout.total_seconds():g} s; see {see}") from None


async def first_failure(parts: Sequence[Part]) -> StartupRefused:
    """Wait until one of the parts ends that was not to, and return why. An agent that was drained just leaves."""
    running = list(parts)
    while True:
        await asyncio.wait([part.ended for part in running], return_when=asyncio.FIRST_COMPLETED)
        for part in [part for part in running if part.ended.done()]:
            if (failure := part.failure()) is not None:
                return failure
            running.remove(part)
