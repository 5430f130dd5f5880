"""Throughput: tasks that do nothing, each handed in by a call of its own, until every result is stored."""

from bench.report import Reading
from bench.sides import Side
from bench.sizes import Sizes

TABLE = "1. Throughput, one call each"


async def measure(side: Side, sizes: Sizes) -> list[Reading]:
    rate = await side.rate(sizes.tasks, callers=sizes.callers)
    return [Reading(TABLE, side.contender.name, rate, "tasks/s")]
