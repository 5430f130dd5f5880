"""The commands that docs/how-to/run-on-many-machines.md shows, on a `chiffon up` with two agents."""

import re
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.deployment import Up, up
from tests.architecture.source import ROOT
from tests.command_lines import said

pytestmark = pytest.mark.xdist_group("acceptance/many_machines")

PAGE = "docs/how-to/run-on-many-machines.md"
COMMANDS = re.findall(
    r"^(?:ID=\$\()?(chiffon dispatch .*?)\)?$", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE
)


@pytest.fixture(scope="module")
async def running(prepared: Path) -> AsyncIterator[Up]:
    async with up("--agents", "2", on=prepared, CHIFFON_AGENT_LABELS='{"zone": "eu", "role": "web"}') as opened:
        yield opened


@pytest.fixture(scope="module")
def names(running: Up) -> list[str]:
    status, out, _ = said("agents", "--agent-type", "infra", "--server", running.url)
    assert status == 0
    return [line.split()[0] for line in out.splitlines()[1:]]


def test_the_page_shows_commands() -> None:
    assert len(COMMANDS) == 5


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_runs_on_both_agents(running: Up, names: list[str], command: str) -> None:
    """What runs is `true`, for the page's programs are made up; so are its agents, but not what chooses them."""
    _, *words = shlex.split(command)
    options = words[: words.index("--")]
    options = [",".join(names) if word == "web-1,web-2" else word for word in options]
    wait = [] if "--wait" in options else ["--wait"]

    status, out, err = said(*options, *wait, "--server", running.url, "--", "true")

    assert status == 0, err
    rows = [line.split()[:3] for line in out.splitlines()[1:]]
    assert sorted(rows) == [[name, "completed", "0"] for name in sorted(names)]
