"""Watching: many WebSockets at once, and what one that stops to read does to the others."""

from collections.abc import AsyncIterator
from pathlib import Path

from bench.report import Reading
from bench.scenarios.feed import Audience, follow
from bench.services import Services
from bench.sizes import Sizes

TABLE = "7. Watching"


async def measure(services: Services, sizes: Sizes, folder: Path) -> AsyncIterator[Reading]:
    few, many, rate, seconds = max(1, sizes.readers // 5), sizes.readers, sizes.reader_rate, sizes.seconds
    audiences = (
        Audience(few, rate, seconds),
        Audience(many, rate, seconds),
        Audience(many, rate, seconds, own_traces=True),
        Audience(few, rate, seconds, own_traces=True),
        # So fast that by half time the stuck one has fallen behind by more than is kept for a reader: then nothing may
        # grow any more.
        Audience(10, 10 * rate, seconds, stuck=1),
    )
    for _ in range(sizes.rounds):
        for audience in audiences:
            for reading in await follow(services, folder, TABLE, audience):
                yield reading
