"""Wait for something to become true, instead of sleeping."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

Value = TypeVar("Value")


@overload
async def eventually(
    check: Callable[[], Coroutine[Any, Any, Value]], *, timeout: float = ..., every: float = ...
) -> Value: ...
@overload
async def eventually(check: Callable[[], Value], *, timeout: float = ..., every: float = ...) -> Value: ...
async def eventually(check: Callable[[], Any], *, timeout: float = 10.0, every: float = 0.02) -> Any:
    """Call `check` until it returns something truthy and return that; raise AssertionError after `timeout` seconds.

    An AssertionError that `check` raises means "not yet"; the last one is shown when the time is over.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    failure: AssertionError | None = None
    while True:
        try:
            value = check()
            result = await value if inspect.isawaitable(value) else value
            if result:
                return result
            failure = AssertionError(f"{check!r} still returns {result!r}")
        except AssertionError as error:
            failure = error
        if loop.time() >= deadline:
            raise AssertionError(f"did not become true within {timeout} s: {failure}") from failure
        await asyncio.sleep(every)
