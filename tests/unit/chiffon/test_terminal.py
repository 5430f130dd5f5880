"""Whatever agents, callers and programs write, a terminal shows it and obeys none of it.

Every command runs against a client whose every answer has the same hostile text in every text that it holds.
"""

import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from enum import Enum
from inspect import isasyncgenfunction, signature
from types import SimpleNamespace, TracebackType, UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import pytest
from pydantic import BaseModel

from chiffon.cli import console, options
from chiffon.cli.app import run
from chiffon.cli.console import CLEAR, CLEAR_LINES, WITHOUT_WRAPPING
from chiffon.cli.outcome import explain_failure
from chiffon.client import Client
from chiffon.errors import ApiError
from common.visible import is_hidden
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

ID = "7f3c2b1e-1d2f-4c59-9a5e-6a7d1f0c9b11"
FORGED = "status     completed"
HOSTILE = f"web\x1b[2J\x1b]52;c;Zm9v\x07\n{FORGED}\r\x9b31m\u202e\u200b\u2028\x85[red]x[/red]\u0000"
TRICKS = ("\x1b", "\x9b", "\x07", "\r", "\u202e", "\u200b", "\u2028", "\x85", "\x00")

COMMANDS = {
    "agents": ["agents"],
    "capacity": ["agents", "capacity"],
    "pause": ["agents", "pause", ID],
    "tasks": ["tasks"],
    "status": ["status", ID],
    "wait": ["status", ID, "--wait"],
    "why": ["why", ID],
    "work types": ["work-types"],
    "dead letters": ["dead-letters", "list"],
    "dead letter": ["dead-letters", "show", "1"],
    "replay": ["dead-letters", "replay", "1"],
    "approvals": ["approvals", "list"],
    "approval": ["approvals", "show", ID],
    "queue": ["ops", "queue"],
    "executions": ["ops", "executions"],
    "audit": ["audit", "query"],
    "watch": ["watch"],
    "identities": ["identities"],
    "tokens": ["tokens"],
    "whoami": ["whoami"],
    "fan-out": ["dispatch", "echo", "--on", "all"],
    "fan-out waits": ["dispatch", "echo", "--on", "all", "--wait"],
    "rerun": ["rerun", ID, "--wait"],
    "runs": ["runs", "list"],
    "run": ["runs", "show", ID, "--earlier"],
    "run goes": ["runs", "watch", ID],
    "run tried again": ["runs", "retry", ID, "-f"],
    "run cancelled": ["runs", "cancel", ID],
    "artifacts": ["runs", "artifacts", ID],
}
# Their output has lines of its own, below what is said of the task, or as the only thing that is said.
SHOWS_OUTPUT = {"status", "wait", "rerun", "dead letter", "approval"}


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "dumb")  # rich writes no sequences of its own
    monkeypatch.setenv("COLUMNS", "1000")  # nothing that is to be seen is cut off
    terminal = Terminal()
    monkeypatch.setattr(console, "sys", SimpleNamespace(stdout=terminal, stderr=terminal))
    return terminal


@pytest.fixture
def hostile_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "Client", HostileClient)


class HostileClient:
    """Answers as `Client` does, with the hostile text wherever an answer has a text."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(Client, name)
        wanted = get_type_hints(method)["return"]

        async def one(*_: object, **options: Any) -> Any:
            if "progress" in signature(method).parameters:
                options["progress"](HOSTILE)
            return made(wanted)

        async def several(*_: object, **__: object) -> AsyncIterator[Any]:
            yield made(get_args(wanted)[0])

        return several if isasyncgenfunction(method) or get_origin(wanted) is AsyncIterator else one


def made(kind: Any) -> Any:
    """Return a value of a type, whose every text is the hostile one."""
    origin, arguments = get_origin(kind), get_args(kind)
    match origin:
        case None:
            return _plain(kind)
        case _ if origin is Annotated:
            return made(arguments[0])
        case _ if origin is Literal:
            return arguments[0]
        case _ if origin in (Union, UnionType):
            return made(str if str in arguments else arguments[0])
        case _ if origin is dict:
            return {made(arguments[0]): made(arguments[1])}
        case _:
            return [made(arguments[0])]


def _plain(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        hints = get_type_hints(kind)
        return kind.model_construct(**{name: made(hints[name]) for name in kind.model_fields})
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind))
    if isinstance(kind, type) and issubclass(kind, tuple):
        return kind(*(made(hint) for hint in get_type_hints(kind).values()))
    values = {bool: True, int: 1, float: 1.0, UUID: UUID(ID), datetime: datetime(2026, 11, 30, tzinfo=UTC)}
    return values.get(kind, HOSTILE)


def without_our_own(printed: str) -> str:
    begin, end = WITHOUT_WRAPPING.split("{}")
    for count in range(1, 20):
        printed = printed.replace(CLEAR_LINES.format(count), "")
    return printed.replace(CLEAR, "").replace(begin, "").replace(end, "")


@pytest.mark.usefixtures("hostile_server")
@pytest.mark.parametrize("name", COMMANDS)
def test_a_terminal_obeys_nothing_of_what_others_wrote(name: str, terminal: Terminal) -> None:
    run(COMMANDS[name])

    printed = without_our_own(terminal.getvalue())
    assert "Traceback" not in printed
    assert "[red]x[/red]" in printed
    assert not any(trick in printed for trick in TRICKS)
    assert not any(is_hidden(one) for one in printed if one not in "\n\t")
    if name not in SHOWS_OUTPUT:
        assert not any(line.startswith(FORGED) for line in printed.split("\n"))


@pytest.mark.usefixtures("hostile_server")
@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("fan-out waits", "wait", "rerun", "pause")])
def test_json_on_a_terminal_hides_nothing_and_keeps_each_value(name: str, terminal: Terminal) -> None:
    run([*COMMANDS[name], "-o", "json"])

    printed = terminal.getvalue().split("\n")[0]  # below it may stand what is said of a refusal
    document = json.loads(printed)
    assert not any(is_hidden(one) for one in printed)
    assert HOSTILE in _texts(document)


def _texts(value: Any) -> list[Any]:
    match value:
        case dict():
            return [text for pair in value.items() for one in pair for text in _texts(one)]
        case list():
            return [text for one in value for text in _texts(one)]
        case _:
            return [value]


def test_an_error_of_the_server_is_one_line_for_its_message_and_for_each_field(terminal: Terminal) -> None:
    explain_failure(ApiError(422, HOSTILE, error_code=1002, problems=[{"field": HOSTILE, "message": HOSTILE}]))

    assert len(terminal.getvalue().splitlines()) == 2
    assert not any(trick in terminal.getvalue() for trick in TRICKS)


@pytest.mark.parametrize(
    ("message", "fields", "lines"),
    [
        ("a: no", ["a"], ["chiffon: a: no [1002]"]),
        ("a: no; b: no", ["a", "b"], ["chiffon: 2 fields are not usable [1002]", "  a: no", "  b: no"]),
        ("It is too much.", ["a"], ["chiffon: It is too much. [1002]", "  a: no"]),
        ("It is too much.", [], ["chiffon: It is too much. [1002]"]),
    ],
)
def test_what_an_answer_says_of_a_field_is_printed_once(
    message: str, fields: list[str], lines: list[str], terminal: Terminal
) -> None:
    problems = [{"field": field, "message": "no"} for field in fields]

    explain_failure(ApiError(422, message, error_code=1002, problems=problems))

    assert terminal.getvalue().splitlines() == lines


@pytest.mark.parametrize("words", [["status", HOSTILE], ["tasks", f"--{HOSTILE}"], ["agents", "pause", ID, HOSTILE]])
def test_an_argument_that_the_parser_refuses_is_shown_on_one_line(words: list[str], terminal: Terminal) -> None:
    assert run(words) == 2

    assert len(terminal.getvalue().splitlines()) == 1
    assert not any(trick in terminal.getvalue() for trick in TRICKS)


def test_a_fault_of_the_program_shows_its_traceback_and_obeys_nothing(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setattr(options, "Client", fail)

    assert run(["tasks"]) == 1

    assert "RuntimeError" in terminal.getvalue()
    assert not any(trick in terminal.getvalue() for trick in TRICKS)


OUTPUT = "\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07a\tb \u202e\n"


@pytest.mark.parametrize("command", [["logs", ID], ["logs", "-f", ID], ["status", ID]])
def test_output_on_a_terminal_keeps_its_lines_and_with_raw_everything(
    fake: FakeOrchestrator, url: str, terminal: Terminal, command: list[str]
) -> None:
    fake.output = [("stdout", OUTPUT)]
    fake.add_task(ID, output=OUTPUT)

    run([*command, "--server", url])
    shown = without_our_own(terminal.getvalue())
    terminal.seek(0)
    terminal.truncate()
    run([*command, "--raw", "--server", url])

    assert "red\n\\u001b]0;title\\u0007a\tb \\u202e\n" in shown
    assert not any(trick in shown for trick in TRICKS)
    assert OUTPUT in terminal.getvalue()


def test_a_pipe_gets_every_character_that_a_program_wrote(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.output = [("stdout", OUTPUT)]
    fake.add_task(ID)

    run(["logs", ID, "--server", url])

    assert capfd.readouterr().out == OUTPUT
