"""Every exit status that docs/reference/cli.md names is that of what it stands for, and there is no other."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from chiffon import Client
from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
ID = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"
ECHO = ["dispatch", "echo", "--task-id", ID]

# The page's table, by hand: an answer of the orchestrator, and how a command ends that gets it.
ANSWERS = [
    (400, 1001, 2),
    (422, 1002, 2),
    (400, 2013, 2),
    (404, 2001, 3),
    (404, 2003, 3),
    (404, 2004, 3),
    (404, 2010, 3),
    (404, 2012, 3),
    (404, 3002, 3),
    (404, 4002, 3),
    (409, 1003, 5),
    (400, 2002, 5),
    (409, 2005, 5),
    (409, 2011, 5),
    (409, 3003, 5),
    (409, 3004, 5),
    (409, None, 5),
    (413, 2014, 1),
    (403, 3001, 1),
    (401, 4001, 1),
    (403, 4003, 1),
    (429, 4029, 1),
    (500, 9000, 1),
    (503, 9003, 1),
]


def documented() -> list[int]:
    table = PAGE.read_text(encoding="utf-8").partition("\n## Exit statuses\n")[2].partition("\n## ")[0]
    return [int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]


def ended_as(fake: FakeOrchestrator, **outcome: object) -> list[str]:
    fake.outcome = outcome
    return ["dispatch", "echo", "--wait"]


def taken(fake: FakeOrchestrator) -> list[str]:
    assert run([*ECHO, "--param", "message=a"]) == 0
    return [*ECHO, "--param", "message=b"]


def rolled_back(fake: FakeOrchestrator) -> list[str]:
    fake.runs.add(ID, status="rolled_back")
    return ["runs", "watch", ID]


def not_a_directory(_: FakeOrchestrator) -> list[str]:
    return ["keys", "list", "--directory", str(PAGE)]


# What is arranged for each, and the command line that ends so.
CASES: dict[int, Callable[[FakeOrchestrator], list[str]]] = {
    0: lambda fake: ended_as(fake, status="completed"),
    1: not_a_directory,
    2: lambda _: ["dispatch", "echo", "--no-such-option"],
    3: lambda _: ["status", ID],
    5: taken,
    6: lambda _: ["tasks", "--server", "NOBODY"],
    10: lambda fake: ended_as(fake, status="failed", exit_code=3),
    11: lambda fake: ended_as(fake, status="cancelled"),
    12: lambda fake: ended_as(fake, status="failed", error_code=5001),
    13: rolled_back,
    130: lambda _: ["tasks", "--server", "INTERRUPTED"],
}


def test_the_page_names_every_exit_status_and_each_has_a_case_here() -> None:
    assert documented() == sorted(Exit) == sorted(CASES)


@pytest.mark.parametrize("status", documented())
def test_a_documented_exit_status_is_that_of_what_it_stands_for(
    status: int, fake: FakeOrchestrator, url: str, nobody_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHIFFON_SERVER", url)
    command = CASES[status](fake)
    if "INTERRUPTED" in command:
        answer_with(monkeypatch, interrupted)

    assert run([{"NOBODY": nobody_url, "INTERRUPTED": url}.get(word, word) for word in command]) == status


@pytest.mark.parametrize(("http_status", "code", "status"), ANSWERS)
def test_an_answer_of_the_orchestrator_has_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, http_status: int, code: int | None, status: int
) -> None:
    body = {"error_message": "No."} | ({} if code is None else {"error_code": code})
    answer_with(monkeypatch, lambda _: httpx2.Response(http_status, json=body))

    assert run(["cancel", str(uuid4()), "--server", "http://127.0.0.1"]) == status


@pytest.mark.parametrize(
    "command", [["rerun", ID, "--wait"], ["logs", "-f", ID], ["dispatch", "echo", "--wait"], ["runs", "watch", ID]]
)
def test_ctrl_c_ends_what_waits_with_130_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: list[str]
) -> None:
    answer_with(monkeypatch, interrupted)

    assert run([*command, "--server", "http://127.0.0.1"]) == 130

    assert "the work goes on" in capfd.readouterr().err


def interrupted(_: httpx2.Request) -> httpx2.Response:
    raise KeyboardInterrupt


def answer_with(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx2.Request], httpx2.Response]) -> None:
    """Have every client of the command line get these answers."""
    monkeypatch.setattr("chiffon.cli.options.Client", partial(Client, transport=httpx2.MockTransport(answer)))
