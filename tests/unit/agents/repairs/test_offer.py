"""A host offers repairs when it has a place for them, and the programs that they need."""

from pathlib import Path

import pytest

from agents.executors.base import Host
from agents.executors.compose import ComposeExecutor
from agents.executors.registry import executors
from agents.processes.keepers import Keepers
from agents.repairs.docker import Versions, find_compose
from agents.repairs.failures import StepFailed
from agents.repairs.programs import Programs
from common.compose import ServiceProfile
from tests.unit.agents.repairs.workshop import Workshop


def host_of(workshop: Workshop) -> Host:
    return Host(compose_root=workshop.root, state_dir=workshop.state_dir)


def make_program(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_a_host_with_a_compose_root_and_the_programs_offers_repairs(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agents.executors.compose.PLUGIN_FOLDERS", ())
    monkeypatch.setenv("HOME", str(workshop.folder))

    known = executors(host_of(workshop))

    assert known["compose_repair"].labels() == {"compose": "docker-compose"}


def test_the_newer_compose_is_announced_where_there_is_one(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = workshop.folder / "plugins"
    plugins.mkdir()
    make_program(plugins, "docker-compose", "true")
    monkeypatch.setattr("agents.executors.compose.PLUGIN_FOLDERS", (str(plugins),))

    executor = ComposeExecutor.offer(host_of(workshop))

    assert executor is not None
    assert executor.labels() == {"compose": "docker compose"}


@pytest.mark.parametrize("missing", ["docker", "docker-compose", "git"])
def test_without_a_program_repairs_are_not_offered(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr("agents.executors.compose.PLUGIN_FOLDERS", ())
    monkeypatch.setenv("HOME", str(workshop.folder))
    monkeypatch.setenv("PATH", str(workshop.bin))
    make_program(workshop.bin, "git", "true")
    (workshop.bin / missing).unlink()

    assert ComposeExecutor.offer(host_of(workshop)) is None


def test_without_a_compose_root_repairs_are_not_offered(workshop: Workshop) -> None:
    assert ComposeExecutor.offer(Host(state_dir=workshop.state_dir)) is None
    assert ComposeExecutor.offer(Host(compose_root=workshop.root / "missing", state_dir=workshop.state_dir)) is None


class TestFindingCompose:
    @pytest.fixture
    def programs(self, workshop: Workshop, keepers: Keepers) -> Programs:
        return Programs(keepers, workshop.environment, workshop.folder)

    @staticmethod
    def profile(command: list[str] | None = None) -> ServiceProfile:
        return ServiceProfile(project="shop", workspace="/srv/shop", allowlist=["a"], compose_command=command)

    async def test_the_older_one_is_found_where_there_is_no_newer(self, workshop: Workshop, programs: Programs) -> None:
        found = await find_compose(programs, self.profile(), workshop.folder, {})

        assert found == (["docker-compose"], 1, "1.29.2")

    async def test_the_newer_one_comes_first(self, workshop: Workshop, programs: Programs) -> None:
        make_program(workshop.bin, "docker", '[ "$1 $2" = "compose version" ] && echo v2.24.6')

        found = await find_compose(programs, self.profile(), workshop.folder, {})

        assert found == (["docker", "compose"], 2, "2.24.6")

    async def test_one_that_calls_images_as_no_other_does_is_not_used(
        self, workshop: Workshop, programs: Programs
    ) -> None:
        make_program(workshop.bin, "docker", '[ "$1 $2" = "compose version" ] && echo v2.7.0')

        found = await find_compose(programs, self.profile(), workshop.folder, {})
        with pytest.raises(StepFailed, match=r"docker compose 2\.7\.0 calls images"):
            await find_compose(programs, self.profile(["docker", "compose"]), workshop.folder, {})

        assert found == (["docker-compose"], 1, "1.29.2")

    async def test_a_profile_says_which_one(self, workshop: Workshop, programs: Programs) -> None:
        own = workshop.bin / "own-compose"
        make_program(workshop.bin, "own-compose", "echo 5.0.1")

        found = await find_compose(programs, self.profile([str(own), "--ansi=never"]), workshop.folder, {})

        assert found == ([str(own), "--ansi=never"], 5, "5.0.1")

    async def test_why_there_is_none(self, workshop: Workshop, programs: Programs) -> None:
        with pytest.raises(StepFailed, match=r"no compose that can be used. The program 'not-there' was not found"):
            await find_compose(programs, self.profile(["not-there"]), workshop.folder, {})

    async def test_a_program_is_asked_once_and_again_when_it_is_another(
        self, workshop: Workshop, programs: Programs
    ) -> None:
        versions: Versions = {}
        for version in ("1.29.1", "1.29.2"):
            make_program(workshop.bin, "docker-compose", f"echo asked >> {workshop.folder}/asked; echo {version}")
            for _ in range(2):
                found = await find_compose(programs, self.profile(), workshop.folder, versions)

                assert found == (["docker-compose"], 1, version)
        assert (workshop.folder / "asked").read_text().split() == ["asked", "asked"]

    async def test_a_program_that_fails_is_asked_again(self, workshop: Workshop, programs: Programs) -> None:
        versions: Versions = {}
        make_program(workshop.bin, "docker-compose", f"test -e {workshop.folder}/mended && echo 1.29.2")
        with pytest.raises(StepFailed, match="it says no version"):
            await find_compose(programs, self.profile(), workshop.folder, versions)
        (workshop.folder / "mended").touch()

        found = await find_compose(programs, self.profile(), workshop.folder, versions)

        assert found == (["docker-compose"], 1, "1.29.2")
