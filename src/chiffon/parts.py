"""What `up` is made of: parts that run until they are stopped, and what is common to waiting for them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from common.errors import StartupRefused

PAUSE = 0.05


class Part(Protocol):
    """Something that runs until it is stopped."""

    @property
    def ended(self) -> "asyncio.Task[Any]":
        """Return the task that is done when the part is."""
        ...

    def failure(self) -> StartupRefused:
        """Return the reason why it ended, for a part that ended although nobody asked it to."""
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

    @property
    def url(self) -> str:
        reachable = "127.0.0.1" if self.host in ("0.0.0.0", "::", "localhost") else self.host  # noqa: S104 - compared
        return f"http://{reachable}:{self.port}"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"

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
                    if part.ended.done():
                        raise part.failure()
                await asyncio.sleep(PAUSE)
    except TimeoutError:
        raise StartupRefused(f"{what} did not happen within {timeout.total_seconds():g} s; see {see}") from None


async def first_failure(parts: Sequence[Part]) -> StartupRefused:
    """Wait until one of the parts ends, and return why."""
    await asyncio.wait([part.ended for part in parts], return_when=asyncio.FIRST_COMPLETED)
    return next(part.failure() for part in parts if part.ended.done())
