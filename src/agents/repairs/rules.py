"""The decisions of a repair, as pure functions of its profile, its diff and its state."""

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agents.repairs.state import ROLLBACK, Container, Content, End, Stage, Touched, Unit
from common.compose import ComposeRepairParameters, RepairStep, ServiceProfile
from common.messages import ResultStatus
from common.policy.patterns import Globs

MOST_NAMED = 5
FIRST_PAUSE = 0.25

REGULAR_MODES = frozenset({"000000", "100644", "100755"})

_SECRET_WORDS = frozenset(
    {
        "apikey",
        "auth",
        "credential",
        "credentials",
        "key",
        "keys",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "secret",
        "secrets",
        "token",
        "tokens",
    }
)
_BETWEEN_WORDS = re.compile(r"[^A-Za-z]+")
_COMMENT = re.compile(r"(?<!\S)#[^\n]*")
# On the line of the key, in brackets, or on lines of their own.
_ENV_FILE = re.compile(
    r"""\benv_file["']?[ \t]*:[ \t]*(\[[^\]]*\]|[^\s\[][^\n,}]*|"""
    r"""(?:\s*\n[ \t]*(?:-|path:|required:|format:)[^\n]*)+)"""
)
_WORD = re.compile(r"""[^\s"'\[\]{},]+""")
_VARIABLE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


class Part(StrEnum):
    """What is undone, in this order."""

    FILES = "files"
    IMAGE = "image"
    CONTAINER = "container"
    WORKTREE = "worktree"


def undo_of(stage: Stage) -> tuple[Part, ...]:
    """Return what must be undone of a repair that came so far, and no more than that."""
    parts = {
        Part.FILES: Stage.FILES,
        Part.IMAGE: Stage.IMAGE,
        Part.CONTAINER: Stage.CONTAINER,
        Part.WORKTREE: Stage.PATCHING,
    }
    return tuple(part for part, since in parts.items() if stage.has_reached(since))


def has_touched(stage: Stage) -> bool:
    """Say whether a repair that came so far may have changed more than a copy: the workspace, a name, a container."""
    return stage.has_reached(Stage.FILES)


def ending_of(unit: Unit) -> tuple[ResultStatus, str | None]:
    """Return how the task of a repair ends, and what is said about it."""
    if unit.end in (End.VERIFIED, End.PREPARED):
        return ResultStatus.COMPLETED, None
    undone = unit.report_of(ROLLBACK)
    said = "This host takes the repair back by itself." if unit.end is None or undone is None else undone.message
    return ResultStatus.FAILED, f"{unit.cause} {said}".strip()


class Restore(StrEnum):
    """What becomes of a touched file when the repair is undone."""

    WRITE = "write"
    REMOVE = "remove"
    NOTHING = "nothing"
    LEAVE = "leave"


def restore_of(now: Content | None, touched: Touched) -> Restore:
    """Say what restoring a file takes. What neither was there before nor is of the repair is of somebody else."""
    if _same(now, touched.before):
        return Restore.NOTHING
    if not _same(now, touched.after):
        return Restore.LEAVE
    return Restore.REMOVE if touched.before is None else Restore.WRITE


def _same(one: Content | None, other: Content | None) -> bool:
    return other is None if one is None else one.is_like(other)


def why_not_resumed(parameters: ComposeRepairParameters, known: Unit | None) -> str | None:
    """Say why this host cannot go on with an earlier task; None when it can."""
    if known is None or known.task_id != parameters.resumes:
        return f"This host keeps nothing of the task {parameters.resumes} any more: begin again with 'patch'."
    if known.profile.workspace != parameters.profile.workspace:
        return f"The task {parameters.resumes} was about another workspace: begin again with 'patch'."
    if parameters.diff_sha256 is not None and parameters.diff_sha256 != known.diff_sha256:
        return "The diff that this host holds is another one than was asked for, so nothing was done with it."
    if parameters.diff is not None and parameters.diff != known.shown:
        return "The diff that people were shown is not the one that this host told of, so nothing was done with it."
    needed, begin = (Stage.PATCHED, "patch") if parameters.steps[0] == "build" else (Stage.BUILT, "build")
    if not known.stage.has_reached(needed):
        return f"The task {parameters.resumes} did not come so far: begin again with {begin!r}."
    if known.end is End.VERIFIED:
        return f"The task {parameters.resumes} was verified: there is nothing to go on with."
    return None


def shown_diff(diff: bytes, hidden: Callable[[str], str]) -> list[str]:
    """Return the lines of a diff as people are shown them; `hidden` takes the secrets out of a text.

    Of the whole first, for a secret may have several lines; and of each line, as it leaves the host.
    """
    text = hidden(diff.decode(errors="replace").replace("\0", "\ufffd"))
    return [hidden(line) for line in text.removesuffix("\n").split("\n")]


def steps_of(parameters: ComposeRepairParameters, known: Unit | None) -> list[RepairStep]:
    """Return the steps to do: what was taken back is restarted before it is verified again."""
    steps = list(parameters.steps)
    return ["restart", *steps] if steps[0] == "verify" and known is not None else steps


def stage_resumed(first: RepairStep) -> Stage:
    """Return how far a repair has come that begins with a step."""
    match first:
        case "analyze" | "patch":
            return Stage.NEW
        case "build":
            return Stage.PATCHED
        case "restart" | "verify":
            return Stage.BUILT


def outside(paths: Iterable[str], profile: ServiceProfile) -> list[str]:
    """Return the paths, relative to the workspace, that a repair may not change."""
    allowed = Globs([f"/{glob}" for glob in profile.allowlist])
    return [path for path in paths if ".." in path.split("/") or not allowed.match(f"/{path}")]


def within(paths: Iterable[str], places: Sequence[str]) -> list[str]:
    """Return the paths that are one of the places, or below it."""
    return [path for path in paths if any(path == place or path.startswith(f"{place}/") for place in places)]


def named(paths: Sequence[str]) -> str:
    """Return some of the paths, to stand in a sentence."""
    more = len(paths) - MOST_NAMED
    return ", ".join(paths[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


class Standing(StrEnum):
    GOOD = "good"
    WAIT = "wait"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the containers of a service stand. `text` says why, for people."""

    standing: Standing
    text: str


def judge(containers: Sequence[Container], *, image: str | None, number: int = 1) -> Verdict:
    """Say how the containers of a service stand; `image` is the id that they must have, if that is known.

    `number`: how many there must be at least.
    """
    if not containers:
        return Verdict(Standing.WAIT, "The service has no container.")
    found = [_judge_one(one, image) for one in containers]
    for standing in (Standing.BAD, Standing.WAIT):
        if (worst := next((one for one in found if one.standing is standing), None)) is not None:
            return worst
    if len(containers) < number:
        return Verdict(Standing.WAIT, f"The service has {len(containers)} of its {number} containers.")
    return Verdict(Standing.GOOD, "; ".join(one.text for one in found))


def _judge_one(container: Container, image: str | None) -> Verdict:
    name = container.name
    if image is not None and container.image != image:
        return Verdict(Standing.BAD, f"The container {name} has another image than the one that was built.")
    if container.status in ("exited", "dead"):
        comes_back = container.restart_policy in ("always", "unless-stopped") or (
            container.restart_policy == "on-failure" and container.exit_code != 0
        )
        standing = Standing.WAIT if comes_back and container.status == "exited" else Standing.BAD
        return Verdict(standing, f"The container {name} ended with exit code {container.exit_code}.")
    if container.status != "running":
        return Verdict(Standing.WAIT, f"The container {name} is {container.status}.")
    if container.health not in ("", "none", "healthy"):
        return Verdict(Standing.WAIT, f"The container {name} is running, and its health is {container.health}.")
    return Verdict(Standing.GOOD, f"The container {name} is running{' and healthy' * (container.health == 'healthy')}.")


def is_steady(earlier: Sequence[Container], now: Sequence[Container]) -> bool:
    """Return whether the same containers run since then, and none of them began anew."""
    return [(one.id, one.started_at, one.restarts) for one in earlier] == [
        (one.id, one.started_at, one.restarts) for one in now
    ]


def pause_before(look: int, longest: float) -> float:
    """Return the seconds before a look, counted from 0: ever longer, up to the longest."""
    return min(longest, FIRST_PAUSE * 2.0 ** min(look, 32))


def back_as_before(unit: Unit, now: Sequence[Container]) -> Verdict:
    """Say whether the containers are what they were before the repair."""
    if not unit.containers:
        return Verdict(Standing.WAIT if now else Standing.GOOD, "The service has no container, as before.")
    if not now:
        return Verdict(Standing.WAIT, "The service has no container.")
    if len(now) != len(unit.containers):
        return Verdict(Standing.WAIT, f"The service has {len(now)} containers, and had {len(unit.containers)}.")
    for one in now:
        if unit.image_before is not None and one.image != unit.image_before:
            return Verdict(Standing.WAIT, f"The container {one.name} does not have its previous image.")
        if was_up(unit) and not one.was_up:
            return Verdict(Standing.WAIT, f"The container {one.name} is {one.status}.")
    return Verdict(Standing.GOOD, "The service has its previous image, and its containers are as before.")


def was_up(unit: Unit) -> bool:
    """Return whether the service ran before the repair."""
    return any(one.was_up for one in unit.containers)


def secret_values(variables: Mapping[str, str]) -> list[str]:
    """Return the values of variables that are named like secrets."""
    return [value for name, value in variables.items() if not _SECRET_WORDS.isdisjoint(_words(name))]


def _words(name: str) -> list[str]:
    return _BETWEEN_WORDS.sub(" ", name).lower().split()


def variables_in(text: str) -> dict[str, str]:
    """Return the variables of a file such as `.env`, as far as they are on one line."""
    found = (_VARIABLE.fullmatch(line) for line in text.splitlines())
    return {one[1]: _unquoted(one[2]) for one in found if one is not None}


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def env_files_in(text: str) -> list[str]:
    """Return the paths that a compose file gives as `env_file`, as far as they are below its project and spelt out.

    Among them may be other words that stand beside a path, which name no file.
    """
    words = (word for given in _ENV_FILE.findall(_COMMENT.sub("", text)) for word in _WORD.findall(given))
    paths = (posixpath.normpath(word) for word in words if word != "-" and not word.endswith(":"))
    return list(dict.fromkeys(path for path in paths if not path.startswith(("/", "..")) and path != "."))


def images_in(config: str) -> dict[str, str | None]:
    """Return the services in what `docker-compose config` prints, which has one line for each key.

    Each has the image that it names, or None.
    """
    found: dict[str, str | None] = {}
    service, is_of_services = "", False
    for line in config.splitlines():
        indent = len(line) - len(line.lstrip(" "))
        key, _, value = line.strip().partition(":")
        if indent == 0:
            is_of_services = key == "services"
        elif indent == 2 and is_of_services:
            service = _unquoted(key)
            found[service] = None
        elif indent == 4 and is_of_services and key == "image":
            found[service] = _unquoted(value.strip()) or None
    return found


def default_image(project: str, service: str, *, compose_major: int) -> str:
    """Return what compose calls the image of a service that names none."""
    return f"{project}{'_' if compose_major == 1 else '-'}{service}"
