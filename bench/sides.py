"""One contender at work: its worker runs, and its program hands in tasks and times them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg

from bench.contenders import Contender
from bench.counting import counted, until
from bench.programs import Place, ProgramFailed, finished

WARM_UP = 200
LONGEST = 600.0


class Side:
    """A contender that is ready."""

    def __init__(
        self, contender: Contender, place: Place, known: Mapping[str, str], db: "asyncpg.Connection[Any]"
    ) -> None:
        self.contender = contender
        self._environment = {**place.environment(), **contender.variables, **known}
        self._log = place.folder / "caller.log"
        self._db = db

    async def rate(self, count: int, *, callers: int, bulk: bool = False) -> float:
        """Hand in so many tasks, and return how many a second it were until every result was stored.

        Raises `ProgramFailed` when they take too long.
        """
        stored = self.contender.stored
        wanted = count + (0 if stored is None else await counted(self._db, stored))
        flags = ["--count", str(count), "--callers", str(callers), *(["--bulk"] if bulk else [])]
        try:
            async with asyncio.timeout(LONGEST):
                times = await self._run("produce", *flags)
                ended = times["ended"] if stored is None else await until(self._db, stored, wanted)
        except TimeoutError:
            raise ProgramFailed(f"{count} results were not there after {LONGEST:.0f} s; see {self._log}") from None
        return float(count / (ended - times["began"]))

    async def latencies(self, count: int) -> list[float]:
        """Return the seconds from the call to the known result, for each of so many tasks one after another."""
        said = await self._run("latency", "--count", str(count))
        seconds: list[float] = said["seconds"]
        return seconds

    async def _run(self, *arguments: str) -> Any:
        return await finished(
            [self.contender.python, "-m", self.contender.module, *arguments], self._environment, self._log
        )


@asynccontextmanager
async def at_work(contender: Contender, place: Place) -> AsyncIterator[Side]:
    """Run a contender as long as the block runs; it is warm. Raises `ProgramFailed`."""
    async with AsyncExitStack() as stack:
        db = await asyncpg.connect(place.database_url)
        stack.push_async_callback(db.close)
        known = await stack.enter_async_context(contender.works(contender, place))
        side = Side(contender, place, known, db)
        await side.rate(WARM_UP, callers=4)
        yield side
