"""The ratios by which Chiffon is judged."""

import pytest
from bench.contenders import PEERS
from bench.ratios import Ratio, as_rows, markdown, ratios
from bench.report import Figure

IN_POSTGRESQL = ("Procrastinate", "PgQueuer")
TABLES = {
    "1. Throughput, one call each": {"Chiffon": 900.0, "Taskiq": 1200.0, "PgQueuer": 450.0, "Procrastinate": 300.0},
    "2. Throughput in bulk": {"Chiffon": 3000.0, "PgQueuer": 1500.0, "Procrastinate": 400.0},
    "3. Latency when idle, p50": {"Chiffon": 12.0, "Taskiq": 4.0, "PgQueuer": 3.0},
    "4. Physical limits": {"publish and confirm": 9000.0, "one message in, one out": 6000.0},
}


def test_every_ratio_names_whom_chiffon_is_compared_with() -> None:
    assert ratios(_figures(TABLES), in_postgresql=IN_POSTGRESQL) == {
        "one call each ÷ best peer": Ratio(0.75, "Taskiq", 1200.0, "x"),
        "one call each ÷ best peer that keeps tasks and results in PostgreSQL": Ratio(2.0, "PgQueuer", 450.0, "x"),
        "bulk ÷ best peer": Ratio(2.0, "PgQueuer", 1500.0, "x"),
        "idle, p50 ÷ Taskiq": Ratio(3.0, "Taskiq", 4.0, "x"),
        "one call each ÷ one message in, one out": Ratio(0.15, "one message in, one out", 6000.0, "x"),
        "bulk ÷ one message in, one out": Ratio(0.5, "one message in, one out", 6000.0, "x"),
    }


@pytest.mark.parametrize("title", TABLES)
def test_without_a_table_its_ratios_are_left_out(title: str) -> None:
    everything = ratios(_figures(TABLES), in_postgresql=IN_POSTGRESQL)
    others = {name: rows for name, rows in TABLES.items() if name != title}

    found = ratios(_figures(others), in_postgresql=IN_POSTGRESQL)

    assert len(found) < len(everything)
    assert found.items() <= everything.items()


def test_a_run_of_chiffon_alone_has_no_ratio_to_a_peer() -> None:
    alone = {"1. Throughput, one call each": {"Chiffon": 900.0}, "2. Throughput in bulk": {"Chiffon": 3000.0}}

    assert ratios(_figures(alone), in_postgresql=IN_POSTGRESQL) == {}


def test_a_round_in_which_chiffon_failed_has_no_ratios() -> None:
    assert ratios(_figures({"1. Throughput, one call each": {"Taskiq": 1200.0}}), in_postgresql=IN_POSTGRESQL) == {}


def test_the_table_of_ratios_says_what_the_other_reached() -> None:
    found = {"bulk ÷ best peer": Ratio(0.756, "Dramatiq", 1234.5, "tasks/s")}

    assert markdown(found).splitlines() == [
        "### Ratios",
        "",
        "|  | Chiffon ÷ it | it |",
        "| --- | --- | --- |",
        "| bulk ÷ best peer | 0.76 | Dramatiq: 1,234 tasks/s |",
    ]


def test_the_picture_of_ratios_names_the_other_once() -> None:
    best, given = Ratio(0.75, "Dramatiq", 1200.0, "tasks/s"), Ratio(3.0, "Taskiq", 4.0, "ms")

    assert as_rows({"bulk ÷ best peer": best, "idle, p50 ÷ Taskiq": given}) == {
        "bulk ÷ best peer (Dramatiq)": Figure(0.75, 0.75, 0.75, 1, "times"),
        "idle, p50 ÷ Taskiq": Figure(3.0, 3.0, 3.0, 1, "times"),
    }


def test_the_peers_that_keep_tasks_in_a_broker_are_not_among_those_of_postgresql() -> None:
    in_postgresql = {peer.name for peer in PEERS if peer.in_postgresql}

    assert in_postgresql == {"Procrastinate", "DBOS", "Absurd", "PgQueuer", "Chancy"}


def _figures(tables: dict[str, dict[str, float]]) -> dict[str, dict[str, Figure]]:
    return {
        title: {name: Figure(value, value, value, 1, "x") for name, value in rows.items()}
        for title, rows in tables.items()
    }
