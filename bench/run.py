"""Run the scenarios that were chosen: first the rounds in which everybody has a turn, then what is Chiffon's alone."""

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.compare import one_round
from bench.contenders import Contender
from bench.programs import ProgramFailed
from bench.report import Reading
from bench.scenarios import ALONE, LIMITS, TURNS, limits
from bench.services import Services
from bench.sizes import Sizes


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is measured: the scenarios by their names, who takes part, and the sizes."""

    scenarios: Sequence[str]
    contenders: Sequence[Contender]
    sizes: Sizes


async def run(services: Services, chosen: Chosen, folder: Path) -> AsyncIterator[Reading]:
    """Yield every reading as it is made."""
    turns = [turn for name, turn in TURNS.items() if name in chosen.scenarios]
    for _ in range(chosen.sizes.rounds):
        if turns:
            async for reading in one_round(services, chosen.contenders, turns, chosen.sizes, folder):
                yield reading
        if LIMITS in chosen.scenarios:
            for reading in await limits.measure(services, chosen.sizes):
                yield reading
    for name, scenario in ALONE.items():
        if name not in chosen.scenarios:
            continue
        try:
            async for reading in scenario(services, chosen.sizes, folder):
                yield reading
        except ProgramFailed as failure:
            print(f"{name}: {failure}", file=sys.stderr, flush=True)
