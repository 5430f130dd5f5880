"""A program that has started is not stopped again and again by a look at everything that it consists of."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from common.garbage import look_rarely, settle


class Knot:
    """Refers to itself, so that only a look for garbage frees it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before, was_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    yield
    gc.set_threshold(*before)
    if not was_frozen:
        gc.unfreeze()


async def test_what_a_program_starts_with_is_not_looked_at_again_and_what_comes_later_is() -> None:
    started, frozen = asyncio.Event(), gc.get_freeze_count()
    program = [[number] for number in range(20_000)]
    settling = asyncio.create_task(settle(started))
    await asyncio.sleep(0)
    # What a worker of the tests has frozen before is not looked at: it may be a million objects.
    assert gc.get_freeze_count() == frozen
    at_the_start = len(gc.get_objects())

    started.set()
    await settling
    assert len(gc.get_objects()) < at_the_start / 10
    assert gc.get_freeze_count() >= frozen + len(program)
    Knot()

    assert gc.collect() > 0


async def test_work_in_flight_does_not_bring_about_a_look_at_everything() -> None:
    started = asyncio.Event()
    started.set()
    look_rarely()
    await settle(started)
    looks = gc.get_stats()[2]["collections"]

    for _ in range(2_000):
        in_flight = [[number] for number in range(1_000)]
        del in_flight

    assert gc.get_stats()[2]["collections"] == looks
