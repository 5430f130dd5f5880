"""What is measured: a module for each scenario, here by their names."""

from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from bench.compare import Turn
from bench.report import Reading
from bench.scenarios import bulk, fleet, footprint, growth, latency, several, throughput, watching
from bench.services import Services
from bench.sizes import Sizes

Alone = Callable[[Services, Sizes, Path], AsyncIterator[Reading]]

LIMITS = "limits"
# In each of these every contender has a turn in each round.
TURNS: Mapping[str, Turn] = {"throughput": throughput.measure, "bulk": bulk.measure, "latency": latency.measure}
# These look at Chiffon alone.
ALONE: Mapping[str, Alone] = {
    "growth": growth.measure,
    "fleet": fleet.measure,
    "watching": watching.measure,
    "several": several.measure,
    "footprint": footprint.measure,
}
SCENARIOS = (*TURNS, LIMITS, *ALONE)
