"""What a patch, a service or a workspace does behind a repair's back changes nothing that nobody has seen."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from common.messages import ResultStatus
from tests.unit.agents.repairs.conftest import Repair
from tests.unit.agents.repairs.workshop import (
    COMPOSE,
    FIRST,
    KEY,
    PROJECT,
    SECOND,
    Workshop,
    container,
    diff_adding,
    diff_of,
    git,
)

PREPARE = ["analyze", "patch", "build"]


def built_from(workshop: Workshop) -> dict[str, str]:
    """Return the files of the copy that was built."""
    tree = workshop.store.worktree(KEY)
    paths = (path for path in tree.rglob("*") if path.is_file() and path.name != ".git")
    return {str(path.relative_to(tree)): path.read_text() for path in paths}


def name_env_file(workshop: Workshop, given: object) -> None:
    """Have the service take variables from a file, and commit that."""
    web = {**COMPOSE["services"]["web"], "env_file": given}
    compose = {"services": {**COMPOSE["services"], "web": web}}
    (workshop.workspace / "docker-compose.yml").write_text(json.dumps(compose))
    git(workshop.workspace, "commit", "--quiet", "--all", "--message=variables")


def images_of_web(workshop: Workshop) -> list[str]:
    return [one["image"] for one in workshop.played["containers"] if one["name"].startswith(f"{PROJECT}_web")]


@asynccontextmanager
async def answering(at_once: Callable[[], None]) -> AsyncIterator[str]:
    """Answer each request with 200, and do something before the answer. Yield the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        at_once()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/health"


@pytest.mark.parametrize("path", ["ignored", "deep/ignored"])
async def test_a_diff_that_names_what_git_ignores_is_refused(workshop: Workshop, repair: Repair, path: str) -> None:
    before = workshop.seen()

    done = await repair(patch={"diff": diff_of("app.txt", FIRST, SECOND) + diff_adding(path, "unseen")})

    assert done.told.message("patch") == (
        f"The diff names what git ignores, or sees no change in: {path}. Nothing was built."
    )
    assert workshop.seen() == before
    assert not workshop.has_called("build")


@pytest.mark.parametrize(
    ("way", "script"),
    [
        ("ignored", "echo unseen > ignored"),
        ("skipped", "git update-index --skip-worktree deep/notes.txt; echo unseen > deep/notes.txt"),
        ("assumed", "git update-index --assume-unchanged deep/notes.txt; echo unseen > deep/notes.txt"),
        ("link", "ln -s /etc/passwd ignored"),
    ],
)
async def test_what_commands_change_behind_the_back_of_git_is_not_built(
    workshop: Workshop, repair: Repair, way: str, script: str
) -> None:
    patch = {"commands": [["/bin/sh", "-c", f"echo sells plums > app.txt; {script}"]]}

    done = await repair(patch=patch, steps=PREPARE)

    assert done.outcome.status is ResultStatus.COMPLETED, (way, done.outcome.error_message)
    assert built_from(workshop) == {
        ".gitignore": "ignored\n",
        "app.txt": "sells plums\n",
        "deep/notes.txt": "a note\n",
        "docker-compose.yml": json.dumps(COMPOSE),
    }


async def test_a_patch_does_not_choose_the_variables_of_compose_by_a_file_that_git_ignores(
    workshop: Workshop, repair: Repair
) -> None:
    (workshop.workspace / ".gitignore").write_text(".env\n")
    git(workshop.workspace, "commit", "--quiet", "--all", "--message=ignore")
    (workshop.workspace / ".env").write_text("PLACE=here\n")

    await repair(patch={"commands": [["/bin/sh", "-c", "echo PLACE=/ > .env"]]}, steps=PREPARE)

    [build] = [call for call in workshop.calls if "build" in call]
    assert build[build.index("--env-file") + 1] == str(workshop.workspace / ".env")


@pytest.mark.parametrize("given", ["ignored", "./ignored", ["ignored"], [{"path": "ignored", "required": True}]])
async def test_a_file_of_variables_that_git_ignores_is_there_for_the_build_without_what_it_holds(
    workshop: Workshop, repair: Repair, given: object
) -> None:
    name_env_file(workshop, given)
    (workshop.workspace / "ignored").write_text("PASSWORD=secret\n")

    await repair(steps=PREPARE)

    assert built_from(workshop)["ignored"] == ""


async def test_a_service_has_as_many_containers_as_before(
    workshop: Workshop, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.deploying.VERIFY_SECONDS", 2.0)
    web, database = workshop.played["containers"]
    workshop.play(containers=[web, container("web", web["image"], 3), database], made=3)

    verified = await repair(profile=workshop.profile(restart_timeout_seconds=5))
    after_verified = images_of_web(workshop)
    rolled_back = await repair(patch={"diff": diff_of("app.txt", SECOND, "crashes\n")})

    assert verified.told.steps["verify"] == "succeeded", verified.told.message("verify")
    assert len(after_verified) == 2
    assert rolled_back.told.steps["rollback"] == "succeeded"
    assert images_of_web(workshop) == after_verified


async def test_a_service_that_answers_once_and_begins_anew_is_not_verified(
    workshop: Workshop, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.deploying.STEADY_SECONDS", 600.0)
    before = workshop.seen()

    def crash() -> None:
        web = next(one for one in workshop.played["containers"] if one["name"] == f"{PROJECT}_web_1")
        others = [one for one in workshop.played["containers"] if one != web]
        workshop.play(containers=[*others, {**web, "status": "exited"}])

    async with answering(crash) as url:
        done = await repair(profile=workshop.profile(healthcheck={"url": url}))

    assert "ended with exit code 3" in done.told.message("verify")
    assert done.told.steps["rollback"] == "succeeded"
    assert workshop.seen() == before


async def test_a_service_that_works_in_time_is_verified_when_that_has_stayed_so(
    workshop: Workshop, repair: Repair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.repairs.deploying.STEADY_SECONDS", 0.3)
    asked = list[None]()

    async with answering(lambda: asked.append(None)) as url:
        check = {"url": url, "timeout_seconds": 0.2, "interval_seconds": 0.1}
        done = await repair(profile=workshop.profile(healthcheck=check))

    assert done.told.steps["verify"] == "succeeded"
    assert len(asked) > 1


@pytest.mark.parametrize("script", ["echo sells plums > app.txt", "echo big > stray.bin"])
async def test_what_a_patch_changes_does_not_come_into_the_repository(
    workshop: Workshop, repair: Repair, script: str
) -> None:
    before = sorted((workshop.workspace / ".git" / "objects").rglob("*"))

    await repair(patch={"commands": [["/bin/sh", "-c", script]]})

    assert sorted((workshop.workspace / ".git" / "objects").rglob("*")) == before
    assert not (workshop.workspace / ".git" / "worktrees").exists()
