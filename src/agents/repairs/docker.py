"""The commands of docker and compose that a repair runs, and their answers.

Containers are found by the labels that every version of compose gives them. `docker compose` and `docker-compose` take
the same words; what they print differs.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from agents.processes.lookup import find
from agents.repairs.failures import DockerAway, StepFailed
from agents.repairs.log import StepLog
from agents.repairs.programs import Programs, Ran
from agents.repairs.rules import default_image, images_in
from agents.repairs.state import Container
from common.compose import ServiceProfile

DOCKER = "docker"
# The commands of compose that a host may have, the newer one first.
COMPOSE_COMMANDS = ((DOCKER, "compose"), ("docker-compose",))
# Compose 2 before it joins the names of project and service by "_" in that of an image, as compose 1.
FIRST_MINOR = 8
DOCKER_SECONDS = 60.0
BUILD_SECONDS = 3600.0
_AWAY = (
    "cannot connect to the docker daemon",
    "couldn't connect to docker daemon",
    "is the docker daemon running",
    "error during connect",
)
_LABEL = "com.docker.compose"
# The images that a repair keeps, each with the key of its service as its tag, which is not too long for one.
CANDIDATE, BEFORE, NAMED = "chiffon-repair-candidate", "chiffon-repair-before", "chiffon-repair-named"


class ProgramFile(NamedTuple):
    """A program on disk; another one, or a newer one, differs in something."""

    path: str
    inode: int
    size: int
    modified_ns: int

    @classmethod
    def at(cls, path: str) -> Self:
        found = Path(path).stat()
        return cls(path, found.st_ino, found.st_size, found.st_mtime_ns)


Versions = dict[ProgramFile | None, str]


@dataclass(frozen=True, slots=True)
class Docker:
    """The docker daemon of this host, as the program `docker` finds it."""

    programs: Programs
    cwd: Path

    async def server_version(self) -> str:
        """Return the version of the daemon. Raises `DockerAway`."""
        ran = await self.programs.run(
            [DOCKER, "version", "--format", "{{.Server.Version}}"], cwd=self.cwd, seconds=DOCKER_SECONDS
        )
        if ran.code != 0 or not ran.text:
            raise DockerAway(f"Docker does not answer: {ran.errors.strip() or 'it says nothing'}")
        return ran.text

    async def containers(self, project: str, service: str) -> list[Container]:
        """Return the containers of a service, also those that do not run."""
        ids = await self._list(project, service, "{{.ID}}")
        if not ids:
            return []
        shown = await self._run("container", "inspect", *ids)
        if shown.code != 0 and "No such container" in shown.errors:  # one was removed in between
            return [one for one in _containers(shown.output) if one.id in ids]
        shown.check("Docker does not show the containers of the service")
        return _containers(shown.output)

    async def names(self, project: str, service: str) -> list[str]:
        """Return the names of the containers of a service, also of those that do not run."""
        return sorted(await self._list(project, service, "{{.Names}}"))

    async def image_id(self, name: str) -> str | None:
        """Return the id of an image; None when there is none of that name."""
        ran = await self._run("image", "inspect", "--format", "{{.Id}}", name)
        if ran.code != 0 and "no such image" in ran.errors.lower():
            return None
        ran.check(f"Docker does not show the image {name}")
        return ran.text

    async def tag(self, image: str, name: str) -> None:
        (await self._run("image", "tag", image, name)).check(f"Docker cannot name the image {image}")

    async def untag(self, name: str) -> None:
        """Take a name away, if there is such an image."""
        ran = await self._run("image", "rm", "--no-prune", name)
        if ran.code != 0 and "no such image" not in ran.errors.lower():
            ran.check(f"Docker cannot take the name {name} from its image")

    async def remove(self, containers: Sequence[str]) -> None:
        ran = await self._run("container", "rm", "--force", *containers)
        if ran.code != 0 and "no such container" not in ran.errors.lower():
            ran.check("Docker cannot remove the containers of the service")

    async def _list(self, project: str, service: str, form: str) -> list[str]:
        """Return what docker prints in a form for each container of a service."""
        labels = (f"{_LABEL}.project={project}", f"{_LABEL}.service={service}", f"{_LABEL}.oneoff=False")
        filters = (f"--filter=label={label}" for label in labels)
        ran = await self._run("ps", "--all", "--no-trunc", f"--format={form}", *filters)
        ran.check("Docker does not list the containers of the service")
        return ran.text.split()

    async def _run(self, *words: str) -> Ran:
        ran = await self.programs.run([DOCKER, *words], cwd=self.cwd, seconds=DOCKER_SECONDS)
        if ran.code != 0 and any(text in ran.errors.lower() for text in _AWAY):
            raise DockerAway(f"Docker does not answer: {ran.errors.strip()}")
        return ran


@dataclass(frozen=True, slots=True)
class Compose:
    """The compose of this host, for one service. `command` are its first words, `major` is its version."""

    programs: Programs
    command: Sequence[str]
    major: int
    profile: ServiceProfile
    service: str

    async def images(self) -> dict[str, str]:
        """Return the services in the compose files of the workspace, each with what compose calls its image."""
        words = ("config",) if self.major == 1 else ("config", "--format", "json")
        argv = self._argv(self._workspace, words=words)
        ran = await self.programs.run(argv, cwd=self._workspace, seconds=DOCKER_SECONDS)
        ran.check("The compose files cannot be read")
        found = images_in(ran.text) if self.major == 1 else _images_in_json(ran.text)
        return {
            service: image or default_image(self.profile.project, service, compose_major=self.major)
            for service, image in found.items()
        }

    def sources(self) -> list[bytes] | None:
        """Return what the files hold that `images` depends on; None when there may be more of them. Blocking."""
        files, variables = [self._workspace / name for name in self.profile.compose_files], self._workspace / ".env"
        if not all(map(_has_content, files)):
            return None
        texts = [file.read_bytes() for file in files]
        if any(word in text for text in texts for word in (b"extends", b"include")):
            return None
        return [*texts, variables.read_bytes() if _has_content(variables) else b""]

    async def build(self, place: Path, override: Path, log: StepLog) -> None:
        """Build the image of the service from the files in a directory; `override` says what it is called."""
        # What a build that fails has run would stay as a container; later versions leave none.
        words = ("build", *(("--force-rm",) if self.major == 1 else ()), self.service)
        argv = self._argv(place, override, words=words)
        ran = await self.programs.run(argv, cwd=place, seconds=BUILD_SECONDS, log=log)
        _check(ran, "The image cannot be built")

    async def up(self, log: StepLog, *, number: int, is_started: bool = True) -> None:
        """Make the containers of the service anew, of the image that is there, and of no other service.

        `number` of them; 0: as many as the compose files say.
        """
        begin = ("up", "--detach") if is_started else ("up", "--no-start")
        scale = ("--scale", f"{self.service}={number}") if number else ()
        words = (*begin, "--no-deps", "--no-build", "--force-recreate", *scale, self.service)
        argv = self._argv(self._workspace, words=words)
        seconds = self.profile.restart_timeout_seconds
        ran = await self.programs.run(argv, cwd=self._workspace, seconds=seconds, log=log)
        _check(ran, "Compose cannot restart the service")

    @property
    def _workspace(self) -> Path:
        return Path(self.profile.workspace)

    def _argv(self, place: Path, override: Path | None = None, *, words: Sequence[str]) -> list[str]:
        files = [place / name for name in self.profile.compose_files]
        variables = next((one for one in (place / ".env", self._workspace / ".env") if _has_content(one)), None)
        return [
            *self.command,
            "--project-name",
            self.profile.project,
            "--project-directory",
            str(place),
            *(() if variables is None else ("--env-file", str(variables))),
            *(word for file in (*files, *filter(None, [override])) for word in ("--file", str(file))),
            *words,
        ]


async def find_compose(
    programs: Programs, profile: ServiceProfile, cwd: Path, versions: Versions
) -> tuple[list[str], int, str]:
    """Return the command of compose, the first number of its version, and the version. Raises `StepFailed`.

    `versions` are those that programs have said before; new ones are added.
    """
    commands = COMPOSE_COMMANDS if profile.compose_command is None else (profile.compose_command,)
    problems = []
    for command in commands:
        program = await asyncio.to_thread(_program_of, command)
        try:
            version = versions.get(program) or await _version(programs, command, cwd)
        except StepFailed as problem:
            problems.append(str(problem))
            continue
        major, _, rest = version.partition(".")
        minor = rest.partition(".")[0]
        if major != "2" or not minor.isdecimal() or int(minor) >= FIRST_MINOR:
            if program is not None:
                versions[program] = version
            return list(command), int(major), version
        problems.append(f"{' '.join(command)} {version} calls images as no other does: take 2.{FIRST_MINOR} or newer.")
    raise StepFailed(f"This host has no compose that can be used. {' '.join(problems)}")


async def _version(programs: Programs, command: Sequence[str], cwd: Path) -> str:
    ran = await programs.run([*command, "version", "--short"], cwd=cwd, seconds=DOCKER_SECONDS)
    version = ran.text.removeprefix("v")
    if ran.code != 0 or not version.partition(".")[0].isdecimal():
        raise StepFailed(f"{' '.join(command)}: {ran.errors.strip() or ran.text or 'it says no version'}")
    return version


def _program_of(command: Sequence[str]) -> ProgramFile | None:
    """Return the file of a command that is one program, by what changes with it; a plugin of docker is none. Blocking.

    It is not asked again for its version: the older compose takes half a second to say it.
    """
    path = find(command[0]) if len(command) == 1 else None
    try:
        return None if path is None else ProgramFile.at(path)
    except OSError:
        return None


def override_of(service: str, candidate: str) -> str:
    """Return a compose file that gives the image of a service the name under which a repair keeps it."""
    return json.dumps({"services": {service: {"image": candidate}}})


def candidate_tag(key: str) -> str:
    return f"{CANDIDATE}:{key}"


def before_tag(key: str) -> str:
    return f"{BEFORE}:{key}"


def named_tag(key: str) -> str:
    """Return what keeps the image that had the name, where another one ran."""
    return f"{NAMED}:{key}"


def _check(ran: Ran, doing: str) -> None:
    if ran.code != 0 and any(text in ran.errors.lower() for text in _AWAY):
        raise DockerAway(f"Docker does not answer: {ran.errors.strip()}")
    ran.check(doing)


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _images_in_json(text: str) -> dict[str, str | None]:
    try:
        found = {str(service): shown.get("image") for service, shown in json.loads(text)["services"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise StepFailed("Compose shows its services in a way that is not known here.") from None
    return {service: image if isinstance(image, str) and image else None for service, image in found.items()}


def _containers(text: bytes) -> list[Container]:
    try:
        found = json.loads(text or b"[]")
        return sorted((_container(one) for one in found), key=lambda one: one.name)
    except (ValueError, LookupError, TypeError):
        raise StepFailed("Docker shows the containers of the service in a way that is not known here.") from None


def _container(shown: Mapping[str, Any]) -> Container:
    state = shown["State"]
    return Container(
        id=shown["Id"],
        name=shown["Name"].removeprefix("/"),
        image=shown["Image"],
        status=state["Status"],
        exit_code=state.get("ExitCode", 0),
        started_at=state.get("StartedAt", ""),
        health=(state.get("Health") or {}).get("Status", ""),
        restart_policy=shown.get("HostConfig", {}).get("RestartPolicy", {}).get("Name", ""),
        restarts=shown.get("RestartCount", 0),
    )
