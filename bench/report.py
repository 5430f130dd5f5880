"""What was read in all rounds, and how it is told: medians with their range, and ratios to Chiffon."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

CHIFFON = "Chiffon"


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure of one round: in which table it stands, of whom or of what it is, and its unit."""

    table: str
    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure over all rounds."""

    median: float
    lowest: float
    highest: float
    rounds: int
    unit: str


Tables = Mapping[str, Mapping[str, Figure]]


def figures(readings: Iterable[Reading]) -> dict[str, dict[str, Figure]]:
    """Return the figures of each table by name, in the order in which they were first read."""
    found: dict[str, dict[str, list[Reading]]] = defaultdict(lambda: defaultdict(list))
    for reading in readings:
        found[reading.table][reading.name].append(reading)
    return {title: {name: _figure(several) for name, several in rows.items()} for title, rows in found.items()}


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def markdown(title: str, rows: Mapping[str, Figure], *, base: Figure | None, notes: Mapping[str, str]) -> str:
    """Return one table. `base` is the figure that the others are compared with, `notes` what is to be said of each."""
    head = ["", "median", "lowest", "highest", "unit", f"{CHIFFON} ÷ it", "what it does not do"]
    lines = [
        [
            name,
            *(number(value) for value in (figure.median, figure.lowest, figure.highest)),
            figure.unit,
            f"{base.median / figure.median:.2f}" if base is not None and figure.median else "",
            notes.get(name, ""),
        ]
        for name, figure in rows.items()
    ]
    used = [column for column in range(len(head)) if any(line[column] for line in lines)]
    return table(title, *([line[column] for column in used] for line in (head, *lines)))


def table(title: str, head: Sequence[str], *lines: Sequence[str]) -> str:
    """Return a table as Markdown, under its title."""
    rows = (head, ["---"] * len(head), *lines)
    return f"### {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def number(value: float) -> str:
    """Return a figure as tables show it: three digits, or all of them before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def as_json(tables: Tables) -> dict[str, Any]:
    return {title: {name: asdict(figure) for name, figure in rows.items()} for title, rows in tables.items()}


def _figure(several: Sequence[Reading]) -> Figure:
    values = [reading.value for reading in several]
    return Figure(statistics.median(values), min(values), max(values), len(values), several[0].unit)
