"""`chiffon demo-run`, and the commands of docs/tutorial/repair-a-service.md, on a real Docker."""

import asyncio
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from chiffon.client import Client
from common.plans.status import RunStatus
from tests.acceptance.deployment import environment, up
from tests.architecture.source import ROOT
from tests.eventually import eventually
from tests.services.docker import BASE_IMAGE, DockerDaemon
from tests.services.ports import free_ports

pytestmark = [pytest.mark.xdist_group("acceptance/docker"), pytest.mark.timeout(400)]

TUTORIAL = ROOT / "docs" / "tutorial" / "repair-a-service.md"
BLOCK = re.compile(r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LIMIT = 180
AUTHOR = {f"GIT_{who}_{what}": "ann" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture(scope="module")
def docker() -> Iterator[DockerDaemon]:
    daemon = DockerDaemon()
    yield daemon
    daemon.stop()


async def run(*words: str, variables: Mapping[str, str]) -> tuple[int, str]:
    """Run a command to its end and return its exit status and all that it printed."""
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment(**variables),
    )
    async with asyncio.timeout(LIMIT):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_demonstration_repairs_a_service_and_rolls_a_change_back(docker: DockerDaemon) -> None:
    status, out = await run(sys.executable, "-m", "chiffon", "demo-run", variables=docker.environment)

    assert status == 0, out
    first, second = out.split("2. Break it")
    assert re.search(r"verify +succeeded .*\n(?:.*\n)*.*rollback +skipped", first)
    assert re.search(r"verify +failed .*\n(?:.*\n)*.*rollback +succeeded", second)
    assert "As expected: repaired, then rolled back, and chiffon-demo-clock was not touched." in second
    assert "\x1b" not in out
    assert docker.docker("ps", "--all", "--quiet") == ""


async def awaits_approval(url: str) -> None:
    """Return when people are asked about a run."""
    async with Client(url) as client:

        async def is_there() -> bool:
            return bool((await client.runs(status=RunStatus.AWAITING_APPROVAL)).items)

        await eventually(is_there, timeout=LIMIT, every=0.2)


class Tutorial:
    """The commands of the tutorial, in a directory and at ports of their own."""

    def __init__(self, folder: Path, docker: DockerDaemon) -> None:
        good, bad = free_ports(2)
        self._own = {"/tmp": str(folder), "8008": str(good), "8009": str(bad), "docker compose": "docker-compose"}
        program = folder / "bin" / "chiffon"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m chiffon "$@"\n')
        program.chmod(0o755)
        path = f"{program.parent}:{environment()['PATH']}"
        self.variables: dict[str, Any] = {**docker.environment, **AUTHOR, "PATH": path}
        self.services = folder / "services.toml"
        self.shop = folder / "shop"

    def blocks(self, kind: str = "") -> list[str]:
        found = [match["text"] for match in BLOCK.finditer(TUTORIAL.read_text()) if match["kind"] == kind]
        for shown, own in self._own.items():
            found = [text.replace(shown, own) for text in found]
        return found

    async def run(self, text: str, url: str = "") -> tuple[int, str]:
        """Run a block as one types it: where a command fails, the others follow."""
        folder = self.shop if self.shop.exists() else self.shop.parent
        script = f"cd {folder}\n{text}"
        return await run("bash", "-c", script, variables={**self.variables, "CHIFFON_SERVER": url or "http://0"})


async def test_the_commands_of_the_tutorial_do_what_it_says(
    docker: DockerDaemon, tmp_path: Path, prepared: Path
) -> None:
    docker.docker("tag", BASE_IMAGE, "busybox")
    tutorial = Tutorial(tmp_path, docker)
    _, project, services, start, repair, commit, broken, look, left, *agreeing, clean_up = tutorial.blocks()
    people, asking, answering = agreeing
    settings: dict[str, Any] = {
        "CHIFFON_SERVICES_FILE": str(tutorial.services),
        "CHIFFON_AGENT_COMPOSE_ROOT": str(tutorial.shop),
    }
    assert " ".join(f"{name}={value}" for name, value in settings.items()) in start

    status, out = await tutorial.run(project)
    assert status == 0, out
    assert (await tutorial.run(services))[1].endswith("services.toml: 1 of 1 service is good\n")
    async with up("--agents", "1", on=prepared, **tutorial.variables, **settings) as running:
        status, out = await tutorial.run(repair, running.url)
        assert status == 0, out
        assert re.search(r"verify +succeeded", out)
        status, out = await tutorial.run(commit, running.url)
        assert re.search(r"succeeded +web", out)
        status, out = await tutorial.run(broken, running.url)
        assert out.endswith("exit status 13\n"), out
        assert re.search(r"rollback +succeeded", out)
        assert (await tutorial.run(look, running.url))[1] == "<p>It works.\n"
        status, out = await tutorial.run(left, running.url)
        assert status == 0, out
        assert "+exec httpd -f -p" in out
        assert "rolling back" in (tmp_path / "rollback.log").read_text()
    with tutorial.services.open("a") as file:
        file.write("".join(tutorial.blocks("toml")))
    async with up("--agents", "1", on=prepared, **tutorial.variables, **settings) as running:
        status, out = await tutorial.run(people, running.url)
        assert status == 0, out
        repair_once, looked = asking.strip().split("\n")
        status, out = await tutorial.run(repair_once, running.url)
        assert status == 0, out
        await awaits_approval(running.url)
        assert "awaiting_approval" in (await tutorial.run(looked, running.url))[1]
        status, out = await tutorial.run(answering, running.url)
        assert status == 0, out
        assert out.endswith("<p>It works well.\n"), out
    status, out = await tutorial.run(clean_up)
    assert status == 0, out
    assert docker.docker("images", "--quiet", "chiffon-repair-*") == ""
    assert docker.docker("ps", "--all", "--quiet") == ""
