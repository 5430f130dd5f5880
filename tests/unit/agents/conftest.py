"""The keepers that start the programs of these tests."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agents.processes.keepers import Keeper, Keepers, Launch

Begin = Callable[..., Awaitable[Keeper]]

# A child in the group of the program, one that left it, and one that left it without a parent and an environment.
FAMILY = "sleep 600 & setsid sleep 600 & setsid -f env -i /bin/sleep 600; wait"


@pytest.fixture
def keepers() -> Iterator[Keepers]:
    with Keepers() as keepers:
        yield keepers


@pytest.fixture
async def begin(keepers: Keepers) -> AsyncIterator[Begin]:
    """Have a script started by a keeper, which is closed at the end."""
    with ExitStack() as stack, Path(os.devnull).open("r+b") as nothing:

        async def begun(script: str = FAMILY, **changes: object) -> Keeper:
            argv = ["/bin/sh", "-c", script]
            launch = Launch(["/bin/sh"], argv, {"PATH": "/usr/bin:/bin"}, "/", **changes)  # type: ignore[arg-type]
            keeper = await keepers.start(launch, [nothing.fileno()] * 3)
            stack.callback(keeper.close)
            return keeper

        yield begun
