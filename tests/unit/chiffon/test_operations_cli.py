"""The commands of people who run Chiffon: what they send, what they print, and their exit statuses."""

import json
import re
from uuid import uuid4

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator

FIRST, SECOND = "aaaa1111-0000-4000-8000-000000000001", "aaaa2222-0000-4000-8000-000000000002"

# chiffon work-types


def test_work_types_are_listed_with_their_agents(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    agents = [
        {"agent_id": str(uuid4()), "name": name, "hostname": "host", "agent_type": "infra"}
        for name in ("d", "c", "b", "a", "a")
    ]
    schema = {"type": "object"}
    fake.work_types = [
        {"name": "echo", "pool": "infra", "description": "Say\x1b it.\nAnd more.", "checked": True, "agents": agents},
        {"name": "own", "pool": None, "parameters": schema, "checked": False, "agents": []},
    ]

    assert run(["work-types", "--server", url]) == Exit.OK
    assert [line.split("  ") for line in _squeezed(capfd.readouterr().out)] == [
        ["TYPE", "POOL", "AGENTS", "DESCRIPTION"],
        ["echo", "infra", "5 (a, b, c, …)", "Say\\u001b it."],
        ["own", "-", "0", "-"],
    ]

    assert run(["work-types", "-o", "json", "--server", url]) == Exit.OK
    assert json.loads(capfd.readouterr().out)[1]["parameters"] == schema


def _squeezed(printed: str) -> list[str]:
    return [re.sub(" {2,}", "  ", line) for line in printed.splitlines()]


# chiffon agents


def test_agents_are_listed_with_what_keeps_work_from_them(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.add_agent("web-1", draining=True, drain_note="new\x1bkernel")
    fake.add_agent("web-2", paused_until="2026-11-22T12:00:00Z", pause_note="disk")
    fake.add_agent("web-3", tripped_until="2026-11-22T12:00:00Z")

    assert run(["agents", "--server", url]) == Exit.OK

    printed = capfd.readouterr().out
    assert "draining: new\\u001bkernel" in printed
    assert ":00: disk" in printed
    assert "failing; none until" in printed


@pytest.mark.parametrize("name", [FIRST, "aaaa1", "AAAA11", "web-1"])
def test_an_agent_is_named_by_its_id_the_beginning_of_it_or_its_host(
    fake: FakeOrchestrator, url: str, name: str
) -> None:
    fake.add_agent("web-1", FIRST)
    fake.add_agent("web-2", SECOND)

    assert run(["agents", "drain", name, "--note", "new kernel", "--server", url]) == Exit.OK

    assert fake.orders == [("drain", FIRST, {"note": "new kernel"})]


@pytest.mark.parametrize("name", ["aaaa", "shared", "nobody"])
def test_a_name_that_means_several_agents_or_none_is_wrong_usage(
    fake: FakeOrchestrator, url: str, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.add_agent("shared", FIRST)
    fake.add_agent("shared", SECOND)

    assert run(["agents", "resume", name, "--server", url]) == Exit.USAGE

    assert fake.orders == []
    assert name in capfd.readouterr().err


def test_an_agent_is_paused_for_some_minutes(fake: FakeOrchestrator, url: str) -> None:
    fake.add_agent("web-1", FIRST)

    assert run(["agents", "pause", "web-1", "--minutes", "30", "--note", "disk", "--server", url]) == Exit.OK
    assert run(["agents", "pause", "web-1", "--server", url]) == Exit.OK
    assert run(["agents", "resume", "web-1", "--server", url]) == Exit.OK

    assert fake.orders == [
        ("pause", FIRST, {"note": "disk", "minutes": 30}),
        ("pause", FIRST, {"note": "", "minutes": 5}),
        ("resume", FIRST, {}),
    ]


def test_an_id_that_no_agent_has_is_not_found(url: str) -> None:
    assert run(["agents", "drain", str(uuid4()), "--server", url]) == Exit.NOT_FOUND


# chiffon cancel --trace, chiffon rerun


def test_a_whole_trace_is_cancelled(fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id, status="running")
    trace_id = fake.tasks[task_id]["trace_id"]

    assert run(["cancel", "--trace", trace_id, "-o", "json", "--server", url]) == Exit.OK
    assert run(["cancel", "--trace", str(uuid4()), "--server", url]) == Exit.NOT_FOUND

    assert json.loads(capfd.readouterr().out)["cancelled"] == [task_id]


def test_cancel_takes_a_task_or_a_trace_and_not_both(url: str) -> None:
    assert run(["cancel", "--server", url]) == Exit.USAGE
    assert run(["cancel", str(uuid4()), "--trace", str(uuid4()), "--server", url]) == Exit.USAGE


def test_a_rerun_prints_the_id_of_the_new_task_alone_on_standard_output(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    old_id = str(uuid4())
    fake.add_task(old_id)

    assert run(["rerun", old_id, "--server", url]) == Exit.OK

    new_id = capfd.readouterr().out.strip()
    assert fake.tasks[new_id]["rerun_of"] == old_id


def test_the_outcome_of_a_rerun_is_the_exit_status(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    old_id = str(uuid4())
    fake.add_task(old_id)
    fake.outcome = {"status": "failed", "exit_code": 3}

    assert run(["rerun", old_id, "--wait", "--server", url]) == Exit.WORK_FAILED
    assert f"rerun of  {old_id}" in capfd.readouterr().out


def test_a_task_that_has_not_ended_is_not_run_again(fake: FakeOrchestrator, url: str) -> None:
    task_id = str(uuid4())
    fake.add_task(task_id, status="running")

    assert run(["rerun", task_id, "--server", url]) == Exit.CONFLICT


# chiffon dead-letters


def test_dead_letters_that_wait_are_listed(fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str]) -> None:
    fake.add_letter(17, reason="no\x1b[2JJSON")
    fake.add_letter(18, state="discarded")

    assert run(["dead-letters", "list", "--server", url]) == Exit.OK
    waiting = capfd.readouterr().out
    assert run(["dead-letters", "list", "--state", "all", "-o", "json", "--server", url]) == Exit.OK

    assert "\x1b" not in waiting
    assert [line.split()[0] for line in waiting.splitlines()] == ["ID", "17"]
    assert [letter["id"] for letter in json.loads(capfd.readouterr().out)["items"]] == [17, 18]


@pytest.mark.parametrize(
    ("body", "how", "shown"),
    [
        ('{"x": 1}', {"body_json": {"x": 1}}, '"x": 1'),
        ("he\x1bllo", {}, "he\\u001bllo"),
        ("/wA=", {"body_encoding": "base64"}, "/wA="),
        ("{", {"body_truncated": True}, "only the first MiB"),
    ],
)
def test_a_dead_letter_is_shown_with_its_body_and_nothing_that_a_terminal_obeys(
    fake: FakeOrchestrator,
    url: str,
    capfd: pytest.CaptureFixture[str],
    body: str,
    how: dict[str, object],
    shown: str,
) -> None:
    fake.add_letter(17, body, **how)

    assert run(["dead-letters", "show", "17", "--server", url]) == Exit.OK

    printed = capfd.readouterr().out
    assert shown in printed
    assert "\x1b" not in printed


def test_a_dead_letter_that_does_not_exist_is_not_found(url: str) -> None:
    assert run(["dead-letters", "show", "17", "--server", url]) == Exit.NOT_FOUND


@pytest.mark.parametrize("order", ["replay", "discard"])
def test_several_dead_letters_are_settled_and_each_is_answered(
    fake: FakeOrchestrator, url: str, capfd: pytest.CaptureFixture[str], order: str
) -> None:
    task_id = str(uuid4())
    fake.add_letter(17, replayed_as=task_id)

    assert run(["dead-letters", order, "17", "--server", url]) == Exit.OK
    assert task_id in capfd.readouterr().err
    assert run(["dead-letters", order, "17", "18", "--server", url]) == Exit.NOT_FOUND
    assert "No dead letter has this id." in capfd.readouterr().err
    assert [sent for _, _, sent in fake.orders] == [{"ids": [17]}, {"ids": [17, 18]}]


@pytest.mark.parametrize("numbers", [[], [str(number) for number in range(101)]], ids=len)
def test_1_to_100_dead_letters_are_settled_at_once(url: str, numbers: list[str]) -> None:
    assert run(["dead-letters", "replay", *numbers, "--server", url]) == Exit.USAGE
