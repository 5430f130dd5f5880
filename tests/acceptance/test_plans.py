"""The plans that the pages show, run by `chiffon runs` on a `chiffon up`."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.deployment import Up, chiffon, up
from tests.architecture.source import ROOT

pytestmark = pytest.mark.xdist_group("acceptance/plans")

PAGES = ("docs/how-to/write-a-plan.md", "docs/how-to/keep-and-pass-files.md")
PLANS = {
    match["name"]: match["text"]
    for page in PAGES
    for match in re.finditer(
        r'^```toml\n(?P<text>name = "(?P<name>[^"]+)".*?)^```$',
        (ROOT / page).read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
}


@pytest.fixture(scope="module")
async def running() -> AsyncIterator[Up]:
    async with up("--agents", "1") as opened:
        yield opened


async def start(running: Up, tmp_path: Path, name: str, *flags: str) -> tuple[int, str]:
    path = tmp_path / "plan.toml"
    path.write_text(PLANS[name])
    status, out, err = await chiffon("runs", "start", str(path), *flags, "--server", running.url)
    assert "Traceback" not in err, err
    return status, out


async def test_a_plan_with_references_files_and_inputs_succeeds(running: Up, tmp_path: Path) -> None:
    status, out = await start(running, tmp_path, "release", "--input", "version=1.1", "--follow")

    assert status == 0, out
    assert re.search(r"^\S+ +check +succeeded", out, re.MULTILINE)
    assert re.search(r"tell +\| release 1\.1: succeeded$", out, re.MULTILINE)
    assert re.search(r"release +succeeded", out.splitlines()[-1])


async def test_what_a_step_kept_is_listed_and_downloaded(running: Up, tmp_path: Path) -> None:
    status, out = await start(running, tmp_path, "build and try", "--wait", "-o", "json")
    assert status == 0, out
    run_id = json.loads(out)["run_id"]

    status, out, err = await chiffon(
        "runs", "download", run_id, "--to", str(tmp_path / "kept"), "--server", running.url
    )

    assert status == 0, err
    assert out.splitlines() == [str(tmp_path / "kept" / "dist" / "app")]
    assert (tmp_path / "kept" / "dist" / "app").read_text() == "echo it works\n"


async def test_a_loop_whose_condition_never_holds_has_failed_after_its_last_round(running: Up, tmp_path: Path) -> None:
    status, out = await start(running, tmp_path, "until it is ready", "--wait", "-o", "json")

    run = json.loads(out)
    assert status == 10
    assert run["status"] == "failed"
    assert [step["number"] for step in [*run["earlier"], run["steps"][0]]] == [1, 2, 3, 4, 5]
    assert run["steps"][1]["status"] == "skipped"


async def test_what_succeeded_before_a_failure_is_undone(running: Up, tmp_path: Path) -> None:
    status, out = await start(running, tmp_path, "with a way back", "--follow", "--quiet")

    assert status == 13, out
    assert re.search(r"verify +failed", out)
    assert re.search(r"undo switch +succeeded", out)
    assert not Path("/tmp/switch-demo").exists()


async def test_a_run_waits_for_people_and_is_cancelled(running: Up, tmp_path: Path) -> None:
    status, out = await start(running, tmp_path, "ask first")
    assert status == 0
    run_id = out.strip()

    _, shown, _ = await chiffon("runs", "show", run_id, "--server", running.url)
    refused, _, why = await chiffon("runs", "approve", run_id, "--server", running.url)
    cancelled, _, _ = await chiffon("runs", "cancel", run_id, "--server", running.url)
    watched, _, _ = await chiffon("runs", "watch", run_id, "--server", running.url)

    assert re.search(r"deploy +awaiting_approval .*chiffon approvals show", shown)
    assert refused == 1, why
    assert cancelled == 0
    assert watched == 11


def test_every_plan_of_the_pages_is_tried() -> None:
    assert set(PLANS) == {"release", "build and try", "until it is ready", "with a way back", "ask first"}
