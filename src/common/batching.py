"""Do together what arrived together.

The first item is handled at once; what arrives meanwhile is the next batch. So an idle system answers without delay
and a loaded one spends one statement, or one message, on many items. What nobody waits for may wait for others to go
with.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = timedelta(0)


class _Together(Generic[Result]):
    """Stands in the place of a future for each of several items that were handed in together.

    One worker handles them in their order, so results come in that order, too. `all` has them when the last is there.
    """

    def __init__(self, count: int) -> None:
        self.all: asyncio.Future[list[Result | BaseException]] = asyncio.get_running_loop().create_future()
        self._results: list[Result | BaseException] = []
        self._count = count

    def done(self) -> bool:
        return self.all.done()

    def cancel(self) -> bool:
        return self.all.cancel()

    def set_exception(self, failure: BaseException) -> None:
        self.all.set_exception(failure)

    def add(self, result: Result | BaseException) -> None:
        self._results.append(result)
        if len(self._results) == self._count:
            self.all.set_result(self._results)


class Batcher(Generic[Item, Result]):
    """Calls `handle` with all the items that arrived while the last call ran, at most `limit` of them.

    `handle` returns one result per item, in the same order; a result that is an exception is raised to the caller of
    that item only, and an exception that `handle` raises reaches every caller of the batch. `gather`: how long items
    gather after a batch of several.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Item]], Awaitable[Sequence[Result | BaseException]]],
        *,
        limit: int,
        gather: timedelta = AT_ONCE,
    ) -> None:
        self._handle = handle
        self._limit = limit
        self._gather = gather
        self._waiting: deque[tuple[Item, asyncio.Future[Result] | _Together[Result]]] = deque()
        self._due = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None
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
        self._end_patience()
        while self._waiting:
            self._waiting.popleft()[1].cancel()

    async def submit(self, item: Item) -> Result:
        """Hand in one item and wait for its result."""
        return await self.hand_in(item)

    async def submit_all(self, items: Sequence[Item]) -> list[Result | BaseException]:
        """Hand in many items and wait for all their results, which come in the same order.

        A result that is an exception is returned, since the others count. An exception that `handle` raises is raised
        at once, and items that were not handled yet are dropped.
        """
        if not items:
            return []
        together: _Together[Result] = _Together(len(items))
        self._waiting.extend((item, together) for item in items)
        self._due.set()
        return await together.all

    def hand_in(self, item: Item, *, within: timedelta = AT_ONCE) -> asyncio.Future[Result]:
        """Hand in one item; its result comes later.

        It goes with the next that cannot wait, and `within` this time in any case.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, done))
        if not within or len(self._waiting) >= self._limit:
            self._due.set()
        elif self._patience is None:
            self._patience = loop.call_later(within.total_seconds(), self._due.set)
        return done

    def hurry(self) -> None:
        """Let nothing wait any longer."""
        self._due.set()

    async def _work(self) -> None:
        while True:
            await self._due.wait()
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            if not self._waiting:
                self._due.clear()
                self._end_patience()
            # Nobody wants any more what its caller has given up.
            wanted = [(item, done) for item, done in batch if not done.done()]
            if wanted:
                await self._settle(wanted)
            if self._gather and len(batch) > 1 and len(self._waiting) < self._limit:
                await asyncio.sleep(self._gather.total_seconds())

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    async def _settle(self, batch: list[tuple[Item, asyncio.Future[Result] | _Together[Result]]]) -> None:
        try:
            results = await self._handle([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, done in batch:
                done.cancel()
            raise
        except Exception as failure:  # handed to every caller, so that none is left waiting
            for _, done in batch:
                if not done.done():
                    done.set_exception(failure)
            return
        for (_, done), result in zip(batch, results, strict=True):
            if done.done():
                continue
            if isinstance(done, _Together):
                done.add(result)
            elif isinstance(result, BaseException):
                done.set_exception(result)
            else:
                done.set_result(result)
