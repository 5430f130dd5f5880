"""`chiffon runs artifacts`, `download` and `upload`: what they send, write and print."""

import re
from pathlib import Path
from typing import Any

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from tests.unit.chiffon.fake_orchestrator import FakeOrchestrator
from tests.unit.chiffon.fake_runs import squeezed

RUN = "3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11"
TASK, APPROVAL = "0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60", "5f3c1d2e-4f60-4c5e-9a0b-0b8f5a0e6d0c"


@pytest.fixture(autouse=True)
def _server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_SERVER", url)


def test_what_a_run_or_a_task_keeps_is_listed(fake: FakeOrchestrator, capfd: pytest.CaptureFixture[str]) -> None:
    fake.runs.add(RUN)
    kept = fake.runs.add_artifact(RUN, "patch.diff", b"+b\n", type="patch_diff")
    fake.runs.add_artifact(RUN, "build.log", b"", stored_at=None, missing="the disk is full")
    of_task = fake.runs.add_artifact(TASK, "dist/x.whl", b"wheel")

    assert run(["runs", "artifacts", RUN]) == Exit.OK
    assert run(["runs", "artifacts", TASK]) == Exit.OK
    assert run(["runs", "artifacts", APPROVAL]) == Exit.NOT_FOUND

    head, diff, log, _, wheel = squeezed(capfd.readouterr().out)
    assert head == "ARTIFACT PATH TYPE BYTES SHA-256 TASK WHY NOT"
    assert diff == f"{kept['artifact_id']} patch.diff patch_diff 3 {kept['sha256']} {kept['task_id']} -"
    assert log.endswith("the disk is full")
    assert wheel.startswith(f"{of_task['artifact_id']} dist/x.whl - 5 ")


def test_files_are_downloaded_below_their_paths(
    fake: FakeOrchestrator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fake.runs.add(RUN)
    fake.runs.add_artifact(RUN, "patch.diff", b"+b\n")
    fake.runs.add_artifact(RUN, "dist/x.whl", b"wheel" * 100_000)
    fake.runs.add_artifact(RUN, "build.log", b"", stored_at=None, missing="the disk is full")

    assert run(["runs", "download", RUN, "--to", str(tmp_path)]) == Exit.OK

    files = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == {
        "patch.diff": b"+b\n",
        "dist/x.whl": b"wheel" * 100_000,
    }
    assert capfd.readouterr().out.splitlines() == [str(tmp_path / "patch.diff"), str(tmp_path / "dist/x.whl")]


def test_one_file_is_downloaded_in_place_of_what_was_there(fake: FakeOrchestrator, tmp_path: Path) -> None:
    fake.runs.add(RUN)
    fake.runs.add_artifact(RUN, "patch.diff", b"+b\n")
    fake.runs.add_artifact(RUN, "build.log", b"built\n")
    (tmp_path / "patch.diff").write_text("an older and longer one\n")

    assert run(["runs", "download", RUN, "patch.diff", "--to", str(tmp_path)]) == Exit.OK
    assert run(["runs", "download", RUN, "verify.log", "--to", str(tmp_path)]) == Exit.NOT_FOUND

    assert [path.name for path in tmp_path.iterdir()] == ["patch.diff"]
    assert (tmp_path / "patch.diff").read_bytes() == b"+b\n"


@pytest.mark.parametrize(
    ("claimed", "exit_status"),
    [
        ({"sha256": "0" * 64}, Exit.ERROR),
        ({"size": 2}, Exit.ERROR),
        ({"size": 4}, Exit.ERROR),
        ({"stored_at": None}, Exit.NOT_FOUND),
        ({"path": "../x"}, Exit.ERROR),
    ],
)
def test_what_is_not_whole_or_leads_out_leaves_nothing_behind(
    fake: FakeOrchestrator, tmp_path: Path, claimed: dict[str, Any], exit_status: Exit
) -> None:
    fake.runs.add(RUN)
    artifact = fake.runs.add_artifact(RUN, "x", b"abc", **claimed)
    folder = tmp_path / "to"
    folder.mkdir()

    assert run(["runs", "download", RUN, artifact["path"], "--to", str(folder)]) == exit_status

    assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["to"]


def test_a_download_does_not_follow_a_link_out_of_its_folder(fake: FakeOrchestrator, tmp_path: Path) -> None:
    fake.runs.add(RUN)
    fake.runs.add_artifact(RUN, "dist/x", b"abc")
    (tmp_path / "outside").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "dist").symlink_to(tmp_path / "outside")

    assert run(["runs", "download", RUN, "--to", str(tmp_path / "to")]) == Exit.ERROR

    assert list((tmp_path / "outside").iterdir()) == []


def test_a_file_is_handed_in_and_its_digest_stands_alone_on_standard_output(
    fake: FakeOrchestrator, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = b"site" * 200_000
    (tmp_path / "site.tar").write_bytes(content)

    assert run(["runs", "upload", str(tmp_path / "site.tar")]) == Exit.OK
    assert run(["runs", "upload", str(tmp_path / "none")]) == Exit.ERROR

    assert fake.runs.uploaded == [content]
    assert re.fullmatch(r"[0-9a-f]{64}\n", capfd.readouterr().out)
