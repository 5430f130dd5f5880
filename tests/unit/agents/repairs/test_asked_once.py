"""A repair asks git, docker and compose once for what does not change, and again for what may have."""

import json

import pytest

from common.messages import ResultStatus
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import COMPOSE, CRASHES, FIRST, Workshop, git

COMMANDS = ("version", "config", "build", "up")


def asked_of_compose(workshop: Workshop) -> list[str]:
    """Return what the compose of the host was asked to do."""
    return [next(word for word in call if word in COMMANDS) for call in workshop.calls if call[0] == "docker-compose"]


async def test_compose_is_asked_for_its_services_and_images_once(workshop: Workshop, repair: Repair) -> None:
    await repair(patch=CRASHES)

    assert asked_of_compose(workshop) == ["version", "config", "build", "up", "up"]


@pytest.mark.parametrize(
    ("name", "added"),
    [
        ("docker-compose.yml", {"x-other": 1}),
        ("docker-compose.yml", {"services": {**COMPOSE["services"], "web": {"build": ".", "image": "shop/new:1"}}}),
    ],
)
async def test_compose_is_asked_again_when_the_patch_has_changed_its_files(
    workshop: Workshop, repair: Repair, name: str, added: dict[str, object]
) -> None:
    text = json.dumps({**COMPOSE, **added})

    done = await repair(patch={"commands": [["/bin/sh", "-c", f"echo '{text}' > {name}"]]})

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert asked_of_compose(workshop) == ["version", "config", "build", "config", "up"]


@pytest.mark.parametrize("word", ["extends", "include"])
async def test_compose_is_asked_again_when_its_files_name_others(workshop: Workshop, repair: Repair, word: str) -> None:
    (workshop.workspace / "docker-compose.yml").write_text(json.dumps({**COMPOSE, f"x-{word}": "other.yml"}))

    await repair()

    assert asked_of_compose(workshop) == ["version", "config", "build", "config", "up"]


async def test_compose_is_asked_again_when_variables_have_changed(workshop: Workshop, repair: Repair) -> None:
    (workshop.workspace / ".gitignore").write_text("ignored\n.env\n")
    git(workshop.workspace, "commit", "--all", "--quiet", "--message=second")
    variables = workshop.workspace / ".env"
    variables.write_text("TAG=1\n")

    await repair(patch={"commands": [["/bin/sh", "-c", f"echo sells plums > app.txt; echo TAG=2 > {variables}"]]})

    assert asked_of_compose(workshop) == ["version", "config", "build", "config", "up"]


async def test_a_copy_that_was_cut_off_while_git_made_it_is_made_anew(workshop: Workshop, repair: Repair) -> None:
    copy = workshop.store.worktree("shop.web")
    await repair(steps=["analyze", "patch", "build"])
    git(workshop.workspace, "worktree", "lock", str(copy))
    (copy / ".git").unlink()
    (copy / "app.txt").write_text("left\n")

    done = await repair()

    assert done.outcome.status is ResultStatus.COMPLETED, done.outcome.error_message
    assert workshop.worktrees() == []
    assert FIRST not in workshop.seen().files["app.txt"]
