"""What this host can enforce: tried once at the start, announced, and asked before anything runs."""

import asyncio
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from agents.executors.enclosure import Enclosure, User
from agents.executors.process import Command, run_process
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keepers
from agents.processes.lookup import find
from agents.processes.program import unshare
from agents.stopping import StopSignal
from common.confinement import EVERYWHERE, UNCONFINED, Confinement
from common.errors import StartupRefused
from common.messages import Stream

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
    bubblewrap: str | None = None
    hidden: tuple[Path, ...] = ()
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
        enclosure = self._known[demanded] = Enclosure(confinement, self.user, self.bubblewrap, self.hidden)
        return enclosure


async def probe(
    keepers: Keepers, *, run_as: str | None, least: Confinement, workspaces: Path, hidden: tuple[Path, ...] = ()
) -> Enforcement:
    """Try what this host can do. Raises `ConfinementUnusable` when that is less than the settings demand.

    `workspaces` is where programs run; another user is let through to it.
    """
    user = None if run_as is None else _user(run_as)
    if user is not None:
        await _let_through(keepers, user, workspaces)
    possible = set(EVERYWHERE)
    if os.geteuid() != 0 or user is not None:  # the kernel lets root have as many processes as it likes
        possible.add("max_processes")
    if user is not None and user.uid != os.geteuid():
        possible.add("own_user")
    bubblewrap = find("bwrap")
    network_off, sandbox = await asyncio.gather(
        _works(keepers, Enclosure(Confinement(network_off=True), user)) if unshare is not None else _no(),
        _works(keepers, Enclosure(Confinement(network_off=True, sandbox=True), user, bubblewrap))
        if bubblewrap
        else _no(),
    )
    if network_off:
        possible.add("network_off")
    if sandbox:
        possible.add("sandbox")
    if missing := least.demands - possible:
        raise ConfinementUnusable(
            f"[agent.confinement] demands what this host cannot enforce: {', '.join(sorted(missing))}. "
            "See docs/how-to/confine-work.md for what each of them needs."
        )
    return Enforcement(frozenset(possible), least, user, bubblewrap, hidden)


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
    if not await _works(keepers, Enclosure(user=user), within=workspaces):
        raise ConfinementUnusable(
            f"[agent] run_as: the user {user.name!r} cannot reach {workspaces}. Give the agent a state_dir in a place "
            "that everybody may pass through, such as /var/lib/chiffon."
        )


def _let_pass(workspaces: Path) -> None:
    workspaces.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Passing through is no reading: what lies beside the workspaces is the agent's own, file by file.
    for folder in (workspaces.parent, workspaces):
        folder.chmod(0o711)


async def _no() -> bool:
    return False


async def _works(keepers: Keepers, enclosure: Enclosure, *, within: Path | None = None) -> bool:
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
            finished = await run_process(keepers, command, write=_ignored, stop=StopSignal())
        except (CannotStart, OSError):
            return False
    return finished.returncode == 0


async def _ignored(_stream: Stream, _data: bytes) -> None:
    pass
