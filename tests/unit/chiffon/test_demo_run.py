"""The demonstration of repairs: what it needs, and the project that it makes."""

import struct
import subprocess
from pathlib import Path

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from chiffon.demo import compose_project
from chiffon.demo.compose_project import SCRIPT, SERVICE, Missing, Project, Tools, find_tools, is_static
from common.services import parse_services

DYNAMIC, STATIC = 3, 1


def make_program(*segments: int) -> bytes:
    """Return the head of an ELF program with segments of these kinds."""
    head = bytearray(b"\x7fELF\x02\x01".ljust(64, b"\x00"))
    struct.pack_into("<Q", head, 32, 64)
    struct.pack_into("<HH", head, 54, 56, len(segments))
    return bytes(head) + b"".join(struct.pack("<I", kind).ljust(56, b"\x00") for kind in segments)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = Project("demo", tmp_path / "project", 4001, 4002, Tools(["docker-compose"], tmp_path / "busybox"))
    (tmp_path / "busybox").write_bytes(make_program(STATIC))
    made._write()
    return made


def test_what_the_machine_lacks_is_said_all_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(compose_project, "BUSYBOX", ())

    assert run(["demo-run"]) == Exit.ERROR

    first, *lines = capfd.readouterr().err.splitlines()
    assert first == "chiffon: The demonstration needs Docker Compose, and this machine lacks:"
    assert [line.split(":")[0].strip() for line in lines] == ["docker", "docker compose", "git", "busybox"]


async def test_a_daemon_that_does_not_answer_is_named_with_what_docker_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\necho 'Is the docker daemon running?' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")

    with pytest.raises(Missing) as refused:
        await find_tools()

    assert "docker: the daemon does not answer, so start it: Is the docker daemon running?" in str(refused.value)


@pytest.mark.parametrize(
    ("program", "static"),
    [
        (make_program(STATIC, 2), True),
        (make_program(STATIC, DYNAMIC), False),
        (make_program(), False),
        (make_program(STATIC)[:100], True),
        (make_program(STATIC, 2)[:100], False),
        (b"#!/bin/sh\n", False),
        (b"", False),
    ],
)
def test_a_program_that_needs_no_libraries_is_told_from_others(program: bytes, static: bool) -> None:
    assert is_static(program) is static


def test_the_project_is_a_service_that_can_be_repaired(project: Project) -> None:
    services = parse_services(project.services_file(), source="services.toml")

    assert list(services) == [SERVICE]
    assert services[SERVICE].workspace == str(project.folder)


def test_each_change_applies_to_what_the_one_before_has_left(project: Project) -> None:
    failing = project.script

    for diff in (project.repairing(), project.breaking()):
        before = project.script
        subprocess.run(["git", "apply", "-"], input=diff.encode(), cwd=project.folder, check=True)
        assert project.script != before

    assert failing != project.script
    assert (project.folder / SCRIPT).read_text().count("\n") == 2
