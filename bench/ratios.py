"""Chiffon's figures ÷ those that it is judged by: the best peers', Taskiq's, and what the machine can do at most."""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.contenders import TASKIQ
from bench.report import CHIFFON, Figure, Tables, number, table
from bench.scenarios import bulk, latency, limits, throughput

TITLE = "Ratios"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Chiffon's median ÷ the median of another, which is named."""

    value: float
    other: str
    median: float
    unit: str


def ratios(tables: Tables, *, in_postgresql: Container[str]) -> dict[str, Ratio]:
    """Return the ratios by what they compare; one that lacks a figure is left out.

    `in_postgresql` names the peers of which PostgreSQL keeps the tasks as well as their results.
    """
    single, many = tables.get(throughput.TABLE, {}), tables.get(bulk.TABLE, {})
    idle, machine = tables.get(latency.title("p50"), {}), tables.get(limits.TABLE, {})
    alike = {name: figure for name, figure in single.items() if name in in_postgresql}
    compared = {
        "one call each ÷ best peer": (single, _best(single)),
        "one call each ÷ best peer that keeps tasks and results in PostgreSQL": (single, _best(alike)),
        "bulk ÷ best peer": (many, _best(many)),
        "idle, p50 ÷ Taskiq": (idle, _named(idle, TASKIQ)),
        "one call each ÷ one message in, one out": (single, _named(machine, limits.IN_AND_OUT)),
        "bulk ÷ one message in, one out": (many, _named(machine, limits.IN_AND_OUT)),
    }
    return {
        what: Ratio(rows[CHIFFON].median / figure.median, name, figure.median, figure.unit)
        for what, (rows, others) in compared.items()
        for name, figure in others.items()
        if CHIFFON in rows and figure.median
    }


def markdown(found: Mapping[str, Ratio]) -> str:
    """Return the ratios as a table."""
    lines = ([what, f"{one.value:.2f}", f"{one.other}: {number(one.median)} {one.unit}"] for what, one in found.items())
    return table(TITLE, ["", "Chiffon ÷ it", "it"], *lines)


def as_json(found: Mapping[str, Ratio]) -> dict[str, Any]:
    return {what: asdict(one) for what, one in found.items()}


def as_rows(found: Mapping[str, Ratio]) -> dict[str, Figure]:
    """Return the ratios as the figures of a table, as a picture needs them."""
    return {
        what if what.endswith(one.other) else f"{what} ({one.other})": Figure(
            one.value, one.value, one.value, rounds=1, unit="times"
        )
        for what, one in found.items()
    }


def _best(rows: Mapping[str, Figure]) -> dict[str, Figure]:
    peers = [name for name in rows if name != CHIFFON]
    return {name: rows[name] for name in sorted(peers, key=lambda name: rows[name].median)[-1:]}


def _named(rows: Mapping[str, Figure], name: str) -> dict[str, Figure]:
    return {name: rows[name]} if name in rows else {}
