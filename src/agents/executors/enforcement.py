"""What this host can enforce: tried once at the start, announced, and asked before anything runs."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.attempts.stopping import StopSignal
from agents.executors.enclosure import Enclosure, Sandbox, User
from agents.executors.process import Command, run_process
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keepers
from agents.processes.lookup import find
from agents.processes.program import unshare
from common.confinement import EVERYWHERE, UNCONFINED, Confinement
from common.errors import StartupRefused
from common.messages import Stream

log = logging.getLogger(__name__)

TRIAL_SECONDS = 10.0
# Policies demand the same few things again and again.
MOST_KNOWN = 64


class CannotConfine(Exception):
    """Work demands what this host cannot enforce."""

    def __init__(self, missing: frozenset[str]) -> None:
        super().__init__(f"This agent's host cannot enforce what is demanded: {', '.join(sorted(missing))}.")


class ConfinementUnusable(StartupRefused):
    """The agent's own settings demand what its host cannot enforce."""


@dataclass(frozen=True, slots=True)
class Enforcement:
    """`possible`: the names of what can be demanded. `least`: what the host's settings demand for all work."""

    possible: frozenset[str] = EVERYWHERE
    least: Confinement = UNCONFINED
    user: User | None = None
    sandbox: Sandbox | None = None
    _known: dict[Confinement, Enclosure] = field(default_factory=dict, init=False, compare=False, repr=False)

    def enclosure(self, demanded: Confinement) -> Enclosure:
        """Return the walls for work that demands this. Raises `CannotConfine`."""
        known = self._known.get(demanded)
        if known is not None:
            return known
        confinement = self.least.with_also(demanded)
        if missing := confinement.demands - self.possible:
            raise CannotConfine(missing)
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        enclosure = self._known[demanded] = Enclosure(confinement, self.user, self.sandbox)
        return enclosure


async def probe(
    keepers: Keepers,
    *,
    run_as: str | None,
    least: Confinement,
    workspaces: Path,
    readable: Sequence[Path] = (),
    writable: Sequence[Path] = (),
    hidden: Sequence[Path] = (),
) -> Enforcement:
    """Try what this host can do. Raises `ConfinementUnusable` when that is less than the settings demand.

    `workspaces` is where programs run; another user is let through to it. `readable` and `writable` are shown in the
    sandbox, without what is `hidden`.
    """
    _check_named("sandbox_readable", readable, hidden)
    _check_named("sandbox_writable", writable, hidden)
    user = None if run_as is None else _user(run_as)
    if user is not None:
        await _let_through(keepers, user, workspaces)
    possible = set(EVERYWHERE)
    if os.geteuid() != 0 or user is not None:  # the kernel lets root have as many processes as it likes
        possible.add("max_processes")
    if user is not None and user.uid != os.geteuid():
        possible.add("own_user")
    bubblewrap = find("bwrap")
    sandbox = None if bubblewrap is None else Sandbox(bubblewrap, tuple(readable), tuple(writable), tuple(hidden))
    trials: dict[str, Enclosure] = {}
    if unshare is not None:
        trials["network_off"] = Enclosure(Confinement(network_off=True), user)
    if sandbox is not None:
        trials["sandbox"] = Enclosure(Confinement(network_off=True, sandbox=True), user, sandbox)
    problems = await asyncio.gather(*(_problem(keepers, enclosure) for enclosure in trials.values()))
    for name, problem in zip(trials, problems, strict=True):
        if problem is None:
            possible.add(name)
        else:
            log.warning("confinement.not_possible", extra={"demand": name, "reason": problem})
    if missing := least.demands - possible:
        raise ConfinementUnusable(
            f"[agent.confinement] demands what this host cannot enforce: {', '.join(sorted(missing))}. "
            "See docs/how-to/confine-work.md for what each of them needs."
        )
    return Enforcement(frozenset(possible), least, user, sandbox)


def _user(name: str) -> User | None:
    try:
        user = User.named(name)
    except KeyError:
        raise ConfinementUnusable(f"[agent] run_as: this host has no user {name!r}.") from None
    if os.geteuid() not in (0, user.uid):
        raise ConfinementUnusable(
            f"[agent] run_as: only an agent that runs as root may run programs as {name!r}. Start it as root, or start "
            "it as that user and leave run_as out."
        )
    return None if user.uid == os.geteuid() else user


async def _let_through(keepers: Keepers, user: User, workspaces: Path) -> None:
    await asyncio.to_thread(_let_pass, workspaces)
    if await _problem(keepers, Enclosure(user=user), within=workspaces) is not None:
        raise ConfinementUnusable(
            f"[agent] run_as: the user {user.name!r} cannot reach {workspaces}. Give the agent a state_dir in a place "
            "that everybody may pass through, such as /var/lib/chiffon."
        )


def _let_pass(workspaces: Path) -> None:
    workspaces.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Passing through is no reading: what lies beside the workspaces is the agent's own, file by file.
    for folder in (workspaces.parent, workspaces):
        folder.chmod(0o711)


def _check_named(setting: str, paths: Sequence[Path], hidden: Sequence[Path]) -> None:
    for path in paths:
        if not path.exists():
            raise ConfinementUnusable(f"[agent] {setting}: {path} does not exist.")
        for own in hidden:
            if path.resolve().is_relative_to(own.resolve()):
                raise ConfinementUnusable(f"[agent] {setting}: {path} belongs to the agent's own {own}. Name another.")


async def _problem(keepers: Keepers, enclosure: Enclosure, *, within: Path | None = None) -> str | None:
    """Return why no program can run behind these walls; None when one can."""
    output = bytearray()

    async def write(_stream: Stream, data: bytes) -> None:
        output.extend(data)

    with tempfile.TemporaryDirectory(prefix="chiffon-", dir=within) as folder:
        workspace = Path(folder)
        command = Command(
            argv=["/bin/sh", "-c", 'cd "$0"', folder],
            cwd=workspace,
            env=enclosure.prepare(workspace),
            stdin=b"",
            max_duration_seconds=TRIAL_SECONDS,
            kill_grace_seconds=0,
            enclosure=enclosure,
        )
        try:
            finished = await run_process(keepers, command, write=write, stop=StopSignal())
        except (CannotStart, OSError) as error:
            return str(error)
    return None if finished.returncode == 0 else output.decode(errors="replace").strip() or str(finished.ending)
