"""Throughput of the same tasks, handed in by the call for many that a contender has."""

from bench.report import Reading
from bench.sides import Side
from bench.sizes import Sizes

TABLE = "2. Throughput in bulk"


async def measure(side: Side, sizes: Sizes) -> list[Reading]:
    if not side.contender.has_bulk:
        return []
    rate = await side.rate(sizes.tasks, callers=sizes.callers, bulk=True)
    return [Reading(TABLE, side.contender.name, rate, "tasks/s")]
