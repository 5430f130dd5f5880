"""The plans that the pages show, run by `chiffon runs` on a `chiffon up`."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.deployment import Up, chiffon, up
from tests.architecture.source import ROOT
from tests.command_lines import said

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
async def running(prepared: Path) -> AsyncIterator[Up]:
    async with up("--agents", "1", on=prepared) as opened:
        yield opened


@dataclass
class Runs:
    """`chiffon runs`, in this process, on plans of the pages."""

    url: str
    folder: Path

    def start(self, name: str, *flags: str) -> tuple[int, str]:
        status, out, err = self("start", self.plan(name), *flags)
        assert "Traceback" not in err, err
        return status, out

    def plan(self, name: str) -> str:
        """Return the path of a file that holds a plan."""
        path = self.folder / "plan.toml"
        path.write_text(PLANS[name])
        return str(path)

    def __call__(self, *words: str) -> tuple[int, str, str]:
        """Run a command and return its exit status, its output and its messages."""
        return said("runs", *words, "--server", self.url)


@pytest.fixture
def runs(running: Up, tmp_path: Path) -> Runs:
    return Runs(running.url, tmp_path)


async def test_a_plan_with_references_files_and_inputs_succeeds(runs: Runs) -> None:
    words = (runs.plan("release"), "--input", "version=1.1", "--follow", "--server", runs.url)

    status, out, err = await chiffon("runs", "start", *words)

    assert (status, "Traceback" in err) == (0, False), out + err
    assert re.search(r"^\S+ +check +succeeded", out, re.MULTILINE)
    assert re.search(r"tell +\| release 1\.1: succeeded$", out, re.MULTILINE)
    assert re.search(r"release +succeeded", out.splitlines()[-1])


def test_what_a_step_kept_is_listed_and_downloaded(runs: Runs, tmp_path: Path) -> None:
    status, out = runs.start("build and try", "--wait", "-o", "json")
    assert status == 0, out
    run_id = json.loads(out)["run_id"]

    status, out, err = runs("download", run_id, "--to", str(tmp_path / "kept"))

    assert status == 0, err
    assert out.splitlines() == [str(tmp_path / "kept" / "dist" / "app")]
    assert (tmp_path / "kept" / "dist" / "app").read_text() == "echo it works\n"


def test_a_loop_whose_condition_never_holds_has_failed_after_its_last_round(runs: Runs) -> None:
    status, out = runs.start("until it is ready", "--wait", "-o", "json")

    ended = json.loads(out)
    assert status == 10
    assert ended["status"] == "failed"
    assert [step["number"] for step in [*ended["earlier"], ended["steps"][0]]] == [1, 2, 3, 4, 5]
    assert ended["steps"][1]["status"] == "skipped"


def test_what_succeeded_before_a_failure_is_undone(runs: Runs) -> None:
    status, out = runs.start("with a way back", "--follow", "--quiet")

    assert status == 13, out
    assert re.search(r"verify +failed", out)
    assert re.search(r"undo switch +succeeded", out)
    assert not Path("/tmp/switch-demo").exists()


def test_a_run_waits_for_people_and_is_cancelled(runs: Runs) -> None:
    status, out = runs.start("ask first")
    assert status == 0
    run_id = out.strip()

    _, shown, _ = runs("show", run_id)
    refused, _, why = runs("approve", run_id)
    cancelled, _, _ = runs("cancel", run_id)
    watched, _, _ = runs("watch", run_id)

    assert re.search(r"deploy +awaiting_approval .*chiffon approvals show", shown)
    assert refused == 1, why
    assert cancelled == 0
    assert watched == 11


def test_every_plan_of_the_pages_is_tried() -> None:
    assert set(PLANS) == {"release", "build and try", "until it is ready", "with a way back", "ask first"}
