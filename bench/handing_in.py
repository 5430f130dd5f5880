"""What all programs that hand in tasks have in common, Chiffon's and the peers': arguments, and what they print."""

import argparse
import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Protocol


class HandsIn(Protocol):
    """Hands in tasks as a user's program would, and waits for their results."""

    def produce(self, count: int, callers: int, *, bulk: bool) -> None:
        """Hand in so many tasks, each by a call of its own unless `bulk`; returns when all have been taken."""
        ...

    def latency(self, count: int) -> list[float]:
        """Return for each of so many tasks, one after another, the seconds from the call to the known result."""
        ...


def main(program: HandsIn) -> None:
    """Do what the arguments say, and print one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["produce", "latency"])
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--bulk", action="store_true")
    chosen = parser.parse_args()
    if chosen.what == "produce":
        began = time.monotonic()
        program.produce(chosen.count, chosen.callers, bulk=chosen.bulk)
        print(json.dumps({"began": began, "ended": time.monotonic()}), flush=True)
    else:
        print(json.dumps({"seconds": program.latency(chosen.count)}), flush=True)


def shares(count: int, callers: int) -> list[int]:
    """Divide so many calls among the callers."""
    return [count // callers + (number < count % callers) for number in range(callers)]


async def in_tasks(call: Callable[[], Awaitable[object]], count: int, callers: int) -> None:
    """Make so many calls from so many tasks of this event loop."""

    async def run(share: int) -> None:
        for _ in range(share):
            await call()

    await asyncio.gather(*(run(share) for share in shares(count, callers)))
