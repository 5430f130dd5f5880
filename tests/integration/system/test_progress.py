"""A program's progress reaches status, list, events, WebSocket and terminal, over a bus and over HTTP."""

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect

from common.config import SharedSettings
from tests.eventually import eventually
from tests.integration.system.deployment import System

pytestmark = pytest.mark.xdist_group("system/progress")

WAYS = ["bus", "http"]


async def start_agent(system: System, way: str) -> None:
    if way == "http":
        await system.start_agent(shared=SharedSettings(), server_url=system.client.base_url)
    else:
        await system.start_agent()


async def events(socket: ClientConnection, *, until: str) -> AsyncIterator[dict[str, Any]]:
    """Yield what a reader is shown, up to the first event of a kind."""
    async for frame in socket:
        message = json.loads(frame)
        if message["type"] == "event":
            yield message["event"]
            if message["event"]["kind"] == until:
                return


def reporting(gate: Path) -> dict[str, str]:
    """Return work that is half done until it may end, and speaks of that."""
    return {
        "script": 'echo "50 half way" > "$CHIFFON_PROGRESS"; echo begun; '
        f'while [ ! -e {gate} ]; do sleep 0.05; done; echo "100 all of it" > "$CHIFFON_PROGRESS"; echo ended'
    }


async def half_way(system: System, task_id: UUID) -> bool:
    task = await system.client.status(task_id)
    return (task.progress, task.percent, task.status) == ("50% half way", 50, "running")


@pytest.mark.parametrize("way", WAYS)
async def test_status_list_events_and_websocket_show_progress_while_the_work_runs(
    system: System, tmp_path: Path, way: str
) -> None:
    await start_agent(system, way)
    gate, task_id, trace_id = tmp_path / "gate", uuid4(), uuid4()
    async with connect(f"{system.websocket}/ws/{trace_id}") as socket:
        await system.client.dispatch("shell_script", reporting(gate), task_id=task_id, trace_id=trace_id)

        await eventually(lambda: half_way(system, task_id), timeout=20)
        [listed] = (await system.client.tasks(trace_id=trace_id)).items
        gate.touch()
        [task] = await system.finished(task_id)
        live = [event async for event in events(socket, until="task.completed")]

    stored = [event for event in (await system.client.events(task_id)).items if event.kind == "task.progress"]
    said = [{"progress": "50% half way", "percent": 50}, {"progress": "100% all of it", "percent": 100}]
    assert (listed.progress, listed.percent) == ("50% half way", 50)
    assert (task.progress, task.percent) == ("100% all of it", 100)
    assert [event.data for event in stored] == said
    assert [event["data"] for event in live if event["kind"] == "task.progress"] == said
    assert live[-1]["kind"] == "task.completed"


class Terminal:
    """A command at a terminal of its own, and all that it has shown there."""

    def __init__(self, *arguments: str) -> None:
        self._master, theirs = os.openpty()
        os.set_blocking(self._master, False)
        command = [sys.executable, "-m", "chiffon", *arguments]
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
        os.close(theirs)
        self._shown = b""

    def shown(self) -> str:
        with suppress(OSError):  # nothing new, or the command has ended
            while data := os.read(self._master, 65_536):
                self._shown += data
        return self._shown.decode()

    async def ended(self) -> int:
        await eventually(lambda: self.shown() and self.process.poll() is not None, timeout=30)
        return self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    opened = Terminal(*arguments)
    try:
        yield opened
    finally:
        opened.close()


def on_screen(shown: str) -> list[str]:
    """Return the lines that a terminal is left with: what was cleared is gone."""
    visible = re.sub("\x1b\\[\\?7[lh]", "", shown)
    return [line.rpartition("\x1b[K")[2] for line in visible.replace("\r\n", "\n").split("\n")]


async def test_a_terminal_shows_the_newest_report_below_the_output_and_is_left_clean(
    system: System, tmp_path: Path
) -> None:
    await system.start_agent()
    gate, task_id = tmp_path / "gate", uuid4()
    await system.client.dispatch("shell_script", reporting(gate), task_id=task_id)
    with terminal("logs", "-f", str(task_id), "--server", system.client.base_url) as screen:
        await eventually(lambda: on_screen(screen.shown())[-1] == "50% half way", timeout=30)
        assert on_screen(screen.shown()) == ["begun", "50% half way"]
        gate.touch()
        assert await screen.ended() == 0

    assert on_screen(screen.shown()) == ["begun", "ended", f"Task {task_id}: completed", ""]


@pytest.mark.parametrize("command", ["dispatch", "status"])
async def test_waiting_at_a_terminal_shows_progress_until_the_end(system: System, tmp_path: Path, command: str) -> None:
    await system.start_agent()
    gate, task_id, server = tmp_path / "gate", uuid4(), ["--server", system.client.base_url]
    script = ["--param", f"script={json.dumps(reporting(gate)['script'])}"]
    arguments = ["dispatch", "shell_script", "--task-id", str(task_id), "--wait", *script, *server]
    if command == "status":
        await system.client.dispatch("shell_script", reporting(gate), task_id=task_id)
        arguments = ["status", str(task_id), "--wait", *server]
    with terminal(*arguments) as screen:
        await eventually(lambda: on_screen(screen.shown())[-1] == "50% half way", timeout=30)
        gate.touch()
        assert await screen.ended() == 0

    shown = on_screen(screen.shown())
    assert "50% half way" not in shown
    assert re.fullmatch("progress +100% all of it", next(line for line in shown if line.startswith("progress")))


async def test_without_a_terminal_waiting_prints_each_report_and_following_only_what_the_task_wrote(
    system: System, tmp_path: Path
) -> None:
    await system.start_agent()
    gate, task_id = tmp_path / "gate", uuid4()
    await system.client.dispatch("shell_script", reporting(gate), task_id=task_id)
    waiting = started(system, "status", str(task_id), "--wait", into=tmp_path / "waiting")
    following = started(system, "logs", "-f", str(task_id), into=tmp_path / "following")
    try:
        await eventually(lambda: "50%" in (tmp_path / "waiting.err").read_text(), timeout=30)
        await eventually(lambda: "begun" in (tmp_path / "following.out").read_text(), timeout=30)
        gate.touch()
        await eventually(lambda: None not in (waiting.poll(), following.poll()), timeout=30)
    finally:
        for process in (waiting, following):
            process.kill()
            process.wait()

    # The last report and the end may come so close together that only the end is seen.
    said = (tmp_path / "waiting.err").read_text().splitlines()
    assert said[0] == "Progress: 50% half way"
    assert said[1:] in ([], ["Progress: 100% all of it"])
    assert (tmp_path / "following.out").read_text() == "begun\nended\n"
    assert (tmp_path / "following.err").read_text() == f"Task {task_id}: completed\n"


def started(system: System, *arguments: str, into: Path) -> subprocess.Popen[bytes]:
    """Start a command whose output and errors go into two files."""
    command = [sys.executable, "-m", "chiffon", *arguments, "--server", system.client.base_url]
    with into.with_suffix(".out").open("wb") as out, into.with_suffix(".err").open("wb") as err:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)


async def test_the_list_of_tasks_shows_where_those_stand_that_run(system: System, tmp_path: Path) -> None:
    await system.start_agent()
    gate, task_id = tmp_path / "gate", uuid4()
    await system.client.dispatch("shell_script", reporting(gate), task_id=task_id)

    async def listed() -> str:
        listing = started(system, "tasks", "--limit", "1", into=tmp_path / "list")
        await eventually(lambda: listing.poll() is not None, timeout=30)
        return (tmp_path / "list.out").read_text()

    await eventually(lambda: half_way(system, task_id), timeout=20)
    while_it_runs = await listed()
    gate.touch()
    await system.finished(task_id)

    assert "50% half way" in while_it_runs
    assert "all of it" not in await listed()
