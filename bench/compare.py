"""Let everybody have a turn in each round: on the same two servers, with a virtual host and a database of their own."""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import mkdtemp

from bench.contenders import Contender
from bench.programs import Place, ProgramFailed
from bench.report import Reading
from bench.services import Services
from bench.sides import Side, at_work
from bench.sizes import Sizes

Turn = Callable[[Side, Sizes], Awaitable[list[Reading]]]


async def one_round(
    services: Services, contenders: Sequence[Contender], turns: Sequence[Turn], sizes: Sizes, folder: Path
) -> AsyncIterator[Reading]:
    """Yield what is read when each contender does everything once. Who fails has no figures in this round."""
    for contender in contenders:
        try:
            async with place(services, folder, contender.name) as own, at_work(contender, own) as side:
                for turn in turns:
                    for reading in await turn(side, sizes):
                        yield reading
        except ProgramFailed as failure:
            print(f"{contender.name}: {failure}", file=sys.stderr, flush=True)


@asynccontextmanager
async def place(services: Services, folder: Path, name: str) -> AsyncIterator[Place]:
    """Yield an empty place, whose database is dropped at the end, so that nobody works beside what another left."""
    database_url = await services.database()
    own = Path(mkdtemp(prefix=name.replace(" ", "-") + "-", dir=folder))
    try:
        yield Place(services.vhost(), database_url, own)
    finally:
        await services.postgres.drop_database(database_url)
