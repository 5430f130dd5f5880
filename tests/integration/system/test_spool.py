"""`chiffon spool` with a whole Chiffon; it is a process of its own where it is killed or its end is looked at."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chiffon.spool.run import Plan, run_spool
from tests.eventually import eventually
from tests.integration.system.deployment import System, agent_here, open_system
from tests.services.ports import free_ports

FOLDERS = ("incoming", "processing", "outgoing", "failed")


pytestmark = pytest.mark.xdist_group("system/spool")


@pytest.fixture(scope="module")
async def orchestrator(module_ledger: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    """One with an agent; the tests that use it share both."""
    folder = tmp_path_factory.mktemp("spool")
    async with (
        open_system(module_ledger, module_ledger, folder) as running,
        agent_here(module_ledger, folder / "agent", slots=4),
    ):
        yield running


async def dispatched_since(orchestrator: System, moment: datetime) -> int:
    return len((await orchestrator.client.tasks(created_after=moment)).items)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FOLDERS:
        (tmp_path / "spool" / name).mkdir(parents=True)
    return tmp_path / "spool"


def drop(root: Path, name: str, content: bytes | None = None, /, **body: Any) -> bytes:
    content = json.dumps(body).encode() if content is None else content
    draft = root / f"{name}.tmp"
    draft.write_bytes(content)
    draft.rename(root / "incoming" / name)
    return content


def shell(script: str, **body: Any) -> dict[str, Any]:
    return {"work_type": "shell_script", "parameters": {"script": script}, **body}


def names(root: Path) -> dict[str, list[str]]:
    return {name: sorted(path.name for path in (root / name).iterdir()) for name in FOLDERS}


def results(root: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in (root / "outgoing").glob("*.json")]
    return {result["file"]: result for result in found}


@asynccontextmanager
async def spool(root: Path, url: str, *words: str) -> AsyncIterator[Process]:
    with (root / "log").open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "chiffon", "spool", str(root), "--server", url, *words),
            env=dict(os.environ),
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(10):
            await process.wait()


async def run_once(root: Path, url: str, *words: str) -> None:
    async with spool(root, url, "--once", *words) as process, asyncio.timeout(40):
        assert await process.wait() == 0


async def test_what_is_dropped_is_dispatched_and_what_cannot_be_is_set_aside_with_the_reason(
    orchestrator: System, root: Path, tmp_path: Path
) -> None:
    begin = datetime.now(UTC)
    drop(root, "good.json", **shell("echo fine", channel="mail", message_id="m1"))
    drop(root, "bad.json", **shell("exit 3"))
    drop(root, "unknown.json", work_type="nonsense")
    drop(root, "repair.json", work_type="compose_repair")
    drop(root, "torn.json", b'{"work_type": ')
    drop(root, "large.json", work_type="echo", parameters={"message": "x" * 3000})
    (root / "incoming" / "link.json").symlink_to(tmp_path / "elsewhere")
    (root / "incoming" / "folder.json").mkdir()
    (root / "incoming" / "being-written.json.tmp").write_text("{")

    await run_once(root, orchestrator.client.base_url, "--max-bytes", "2000")

    done = results(root)
    good, bad = done["good.json"], done["bad.json"]
    assert (good["status"], good["output"], good["channel"], good["message_id"]) == (
        "completed",
        "fine\n",
        "mail",
        "m1",
    )
    assert (bad["status"], bad["exit_code"]) == ("failed", 3)
    left = names(root)
    assert [name[:8] for name in left["outgoing"]] == ["file-bad", "mail-m1-"]
    assert (left["incoming"], left["processing"]) == (["being-written.json.tmp"], [])
    wrong = ("folder.json", "large.json", "link.json", "repair.json", "torn.json", "unknown.json")
    assert left["failed"] == sorted([*wrong, *(f"{name}.reason.json" for name in wrong)])
    refused = json.loads((root / "failed" / "unknown.json.reason.json").read_text())
    assert (refused["file"], refused["error_code"]) == ("unknown.json", 1001)
    planned = json.loads((root / "failed" / "repair.json.reason.json").read_text())
    assert "work_type: 'compose_repair' is only dispatched by a repair" in json.dumps(planned)
    assert await dispatched_since(orchestrator, begin) == 2


async def test_a_spool_that_is_killed_while_work_runs_runs_nothing_twice_and_writes_one_result(
    orchestrator: System, root: Path, tmp_path: Path
) -> None:
    starts, gate, begin = tmp_path / "starts", tmp_path / "gate", datetime.now(UTC)
    url = orchestrator.client.base_url
    drop(root, "a.json", **shell(f"echo run >> {starts}; while [ ! -e {gate} ]; do sleep 0.05; done; echo end"))
    async with spool(root, url) as process:
        await eventually(starts.exists, timeout=20)
        process.kill()
        await process.wait()
    assert names(root)["processing"] == ["a.json"]

    gate.touch()
    await run_once(root, url)

    left = names(root)
    assert (left["incoming"], left["processing"], left["failed"], len(left["outgoing"])) == ([], [], [], 1)
    assert results(root)["a.json"]["output"] == "end\n"
    assert starts.read_text() == "run\n"
    assert await dispatched_since(orchestrator, begin) == 1
    assert "spool.reconciled" in (root / "log").read_text()


async def test_files_of_one_key_run_one_after_another_and_others_side_by_side(
    orchestrator: System, root: Path, tmp_path: Path
) -> None:
    trail, other = tmp_path / "trail", tmp_path / "other"
    # The first of the key ends only when the file of no key runs, so side by side or never.
    scripts = {
        "1.json": shell(f"echo +1 >> {trail}; while [ ! -e {other} ]; do sleep 0.05; done; echo -1 >> {trail}"),
        "2.json": shell(f"echo +2 >> {trail}; echo -2 >> {trail}"),
        "3.json": shell(f"echo +3 >> {trail}; echo -3 >> {trail}"),
    }
    for place, (name, body) in enumerate(scripts.items()):
        drop(root, name, **body, ordering_key="k")
        os.utime(root / "incoming" / name, ns=(place, place))
    drop(root, "0.json", **shell(f"touch {other}"))

    async with asyncio.timeout(40):
        await run_spool(Plan(root, once=True), orchestrator.client.base_url)

    assert trail.read_text().split() == ["+1", "-1", "+2", "-2", "+3", "-3"]
    assert {result["status"] for result in results(root).values()} == {"completed"}


async def test_while_the_orchestrator_is_away_files_go_back_unchanged_and_are_done_when_it_is_there(
    ledger_url: str, root: Path, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    content = drop(root, "a.json", **shell("echo late"))
    async with spool(root, f"http://127.0.0.1:{port}"):
        await eventually(lambda: "spool.postponed" in (root / "log").read_text(), timeout=20)
        await eventually(lambda: names(root)["incoming"] == ["a.json"])
        assert (root / "incoming" / "a.json").read_bytes() == content

        async with open_system(ledger_url, ledger_url, tmp_path, port=port), agent_here(ledger_url, tmp_path / "agent"):
            await eventually(lambda: "a.json" in results(root), timeout=40)

    assert results(root)["a.json"]["output"] == "late\n"


async def test_a_second_spool_on_the_same_directory_is_refused(root: Path) -> None:
    first = asyncio.create_task(run_spool(Plan(root), "http://127.0.0.1:9"))
    try:
        await eventually((root / ".lock").exists, timeout=20)
        async with spool(root, "http://127.0.0.1:9") as second, asyncio.timeout(20):
            assert await second.wait() == 1
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
    assert "Another `chiffon spool` uses" in (root / "log").read_text()
