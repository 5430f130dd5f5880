"""The page on an agent's state directory lists what a real agent leaves there, and nothing else."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from agents import wiring
from agents.attempts import removal, workspace
from agents.disk.journal_file import JournalFile
from agents.executors import enforcement
from agents.executors.enclosure import Enclosure
from agents.gate.trust import remember_keys
from agents.identity.credential import Credential, keep_credential
from agents.processes.keepers import Keepers
from common.signing.keys import PrivateKey
from tests.eventually import eventually
from tests.integration.agents.conftest import StartAgent
from tests.integration.agents.scripted_orchestrator import ScriptedOrchestrator
from tests.spooled import spooled

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reference" / "agent-state.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<names>`[^|]+) \|[^|]+\| (?P<writers>[^|]+) \|", re.MULTILINE)
PARTS = {
    "<task_id>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<uuid>": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "<attempt>": r"[1-9][0-9]*",
    "<number>": r"[0-9]{12}",
    "<place>": r"[0-9]+",
    "<random>": r"\w+",
    "<sha256>": r"[0-9a-f]{64}",
}


def listed() -> dict[str, re.Pattern[str]]:
    """Return each name of the page with the pattern that it stands for; a folder's name ends with a slash.

    Not those of repairs, which tests of repairs compare.
    """
    names = [name for row in ROW.finditer(PAGE) for name in re.findall(r"`([^`]+)`", row["names"])]
    names = [name for name in names if not name.startswith("repairs/")]
    return {
        name: re.compile("".join(PARTS.get(part) or re.escape(part) for part in re.split(r"(<\w+>)", name)))
        for name in names
    }


class Seen:
    """Every name that was in the state directory at one of the moments in which it was looked at."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self.names: set[str] = set()

    def look(self) -> None:
        for folder, folders, files in os.walk(self._state_dir):  # what vanishes meanwhile is no error
            place = Path(folder).relative_to(self._state_dir)
            self.names.update((place / name).as_posix() for name in files)
            self.names.update(f"{(place / name).as_posix()}/" for name in folders)

    def before(self, owner: type, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Look whenever this method is called, before and after what it does."""
        original = getattr(owner, method)

        def looking(*arguments: Any, **named: Any) -> Any:
            self.look()
            try:
                return original(*arguments, **named)
            finally:
                self.look()

        monkeypatch.setattr(owner, method, looking)


async def test_the_page_lists_what_a_real_agent_leaves_in_its_state_directory(
    start_agent: StartAgent,
    orchestrator: ScriptedOrchestrator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state_dir, seen = tmp_path / "agent", Seen(tmp_path / "agent")
    # Whatever is written in full and then renamed, and whatever a program finds where it starts.
    seen.before(Path, "replace", monkeypatch)
    seen.before(Enclosure, "prepare", monkeypatch)
    monkeypatch.setattr(wiring, "JournalFile", partial(JournalFile, max_bytes=1))
    orchestrator.key, orchestrator.stores = PrivateKey.new(), False
    remember_keys(_made(state_dir), orchestrator.key.public.pem())
    keep_credential(state_dir, Credential(uuid4(), "infra", "cha_secret"))
    with Keepers() as keepers:
        await enforcement._problem(keepers, Enclosure(), within=_made(state_dir / wiring.WORKSPACES))

    first = await start_agent(signatures="required")
    tasks = [await orchestrator.shell("true", artifacts=["script"]) for _ in range(3)]
    for task in tasks:
        await orchestrator.ended(task)
    first.stop.set()
    await first.ended
    seen.look()
    _tear(state_dir / "spool")
    (state_dir / "work" / f"{uuid4()}-1").mkdir()
    monkeypatch.setattr(workspace, "remove_tree", _cannot)

    orchestrator.stores = True
    second = await start_agent(signatures="required")
    await eventually(lambda: list((state_dir / "work").glob(".aside-*")))
    seen.look()
    await eventually(lambda: spooled(state_dir) == [])
    monkeypatch.setattr(workspace, "remove_tree", removal.remove_tree)
    second.stop.set()
    await second.ended

    names = listed()
    unknown = sorted(name for name in seen.names if not any(one.fullmatch(name) for one in names.values()))
    never = sorted(name for name, one in names.items() if not any(map(one.fullmatch, seen.names)))
    assert not unknown, f"not on the page: {unknown}"
    assert not never, f"on the page, and never there: {never}"


def test_the_page_names_who_writes_each_file() -> None:
    for row in ROW.finditer(PAGE):
        writers = re.findall(r"`(agents/[^`]+)`", row["writers"])
        assert writers, row["names"]
        assert [one for one in writers if not (ROOT / "src" / one).is_file()] == []


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _tear(spool: Path) -> None:
    """Leave what a crash leaves: a line that ends in the middle behind a good one, and a file with nothing else."""
    last = max(spool.glob("*.jsonl"))
    with last.open("ab") as file:
        file.write(b'{"torn":')
    (spool / f"{int(last.stem) + 1:012}.jsonl").write_bytes(b'{"torn":')


def _cannot(folder: Path) -> None:
    raise PermissionError(13, "Permission denied", str(folder))
