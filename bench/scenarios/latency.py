"""Latency when nothing else is to do: from the call to the result that the caller knows."""

from bench.report import Reading, percentile
from bench.sides import Side
from bench.sizes import Sizes

SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def title(share: str) -> str:
    """Return the title of the table of one of the shares."""
    return f"3. Latency when idle, {share}"


async def measure(side: Side, sizes: Sizes) -> list[Reading]:
    seconds = await side.latencies(max(1, sizes.timed // sizes.rounds))
    return [
        Reading(title(name), side.contender.name, percentile(seconds, share) * 1000, "ms")
        for name, share in SHARES.items()
    ]
