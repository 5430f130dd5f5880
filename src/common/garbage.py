"""When a program looks for garbage.

Almost everything is freed at once, without being looked for; only what refers to itself in a circle is not. The look
stops everything else, and one at all objects takes longer the more there are: seconds, when a server has thousands of
connections. Python looks after so few new objects that the work in flight is taken for something that stays.
"""

import asyncio
import gc

# New objects until the young are looked at, and how many such looks until the older ones are.
THRESHOLDS = (20_000, 20, 20)


def look_rarely() -> None:
    """Look as rarely as fits a program that makes many objects and drops few, such as one that starts."""
    gc.set_threshold(*THRESHOLDS)


def keep_all() -> None:
    """Look once, and never again at the objects that are left."""
    gc.collect()
    gc.freeze()


async def settle(started: asyncio.Event) -> None:
    """Once a program has started, never look again at the objects that have come with the start."""
    await started.wait()
    keep_all()
