"""Do together what arrived together.

The first item is handled at once; what arrives meanwhile is the next batch. So an idle system answers without delay
and a loaded one spends one statement, or one message, on many items.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Calls `handle` with all the items that arrived while the last call ran, at most `limit` of them.

    `handle` returns one result per item, in the same order; a result that is an exception is raised to the caller of
    that item only, and an exception that `handle` raises reaches every caller of the batch.
    """

    def __init__(
        self, handle: Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]], *, limit: int
    ) -> None:
        self._handle = handle
        self._limit = limit
        self._waiting: asyncio.Queue[tuple[Item, asyncio.Future[Result]]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work(), name="batcher")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        while not self._waiting.empty():
            self._waiting.get_nowait()[1].cancel()

    async def submit(self, item: Item) -> Result:
        """Hand in one item and wait for its result."""
        return await self.hand_in(item)

    def hand_in(self, item: Item) -> asyncio.Future[Result]:
        """Hand in one item; its result comes later."""
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((item, done))
        return done

    async def _work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._limit and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            # Nobody wants any more what its caller has given up.
            wanted = [(item, done) for item, done in batch if not done.done()]
            if wanted:
                await self._settle(wanted)

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._handle([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Exception as failure:  # handed to every caller, so that none is left waiting
            results = [failure] * len(batch)
        for (_, done), result in zip(batch, results, strict=True):
            if done.done():
                continue
            if isinstance(result, BaseException):
                done.set_exception(result)
            else:
                done.set_result(result)
