"""Of two demands on how far a program is shut in, the stricter holds for each limit by itself."""

from typing import Any

import pytest

from common.confinement import Confinement

# Each limit with a value that demands something, and a stricter one where there is one.
LIMITS: dict[str, tuple[Any, Any]] = {
    "network_off": (True, True),
    "sandbox": (True, True),
    "own_user": (True, True),
    "max_memory_bytes": (4 * 1024 * 1024, 2 * 1024 * 1024),
    "max_cpu_seconds": (20, 10),
    "max_open_files": (64, 32),
    "max_processes": (8, 4),
    "max_file_bytes": (1, 0),
}


def test_every_limit_is_tried() -> None:
    assert Confinement.model_fields.keys() == LIMITS.keys()


@pytest.mark.parametrize("name", LIMITS)
def test_the_stricter_of_two_demands_holds_whoever_makes_it(name: str) -> None:
    some, stricter = (Confinement(**{name: value}) for value in LIMITS[name])

    assert some.with_also(Confinement()) == Confinement().with_also(some) == some
    assert some.with_also(stricter) == stricter.with_also(some) == stricter
