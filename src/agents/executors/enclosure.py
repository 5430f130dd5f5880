"""How a program is shut in: what its executor asks for and the process module does."""

import os
import pwd
import resource
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from common.confinement import UNCONFINED, Confinement

# In the workspace; a dot, so that a listing shows what the program itself made.
TEMPORARY = ".tmp"

_LIMITS = {
    "max_memory_bytes": resource.RLIMIT_AS,
    "max_cpu_seconds": resource.RLIMIT_CPU,
    "max_open_files": resource.RLIMIT_NOFILE,
    "max_processes": resource.RLIMIT_NPROC,
    "max_file_bytes": resource.RLIMIT_FSIZE,
}


@dataclass(frozen=True, slots=True)
class User:
    """Who programs run as, where not as the agent itself."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str

    @classmethod
    def named(cls, name: str) -> Self:
        """Look up a user of this host. Raises `KeyError`."""
        entry = pwd.getpwnam(name)
        groups = tuple(os.getgrouplist(name, entry.pw_gid))
        return cls(name, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The files that a sandboxed program sees beside the system and its workspace.

    `bubblewrap`: the program that builds it. `hidden`: what stays empty also where it lies inside what is shown.
    """

    bubblewrap: str
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Enclosure:
    """The walls around one program, all of which this host can build; `sandbox` counts if `confinement` demands it."""

    confinement: Confinement = UNCONFINED
    user: User | None = None
    sandbox: Sandbox | None = None

    @property
    def is_sandboxed(self) -> bool:
        return self.confinement.sandbox

    def showing(self, readable: Iterable[Path]) -> Self:
        """Return the same walls, behind which these paths can be read, too."""
        if self.sandbox is None:
            return self
        return replace(self, sandbox=replace(self.sandbox, readable=(*self.sandbox.readable, *readable)))

    @property
    def limits(self) -> list[tuple[int, int]]:
        """The kernel's limits; no program leaves a core file, which could hold secrets."""
        limits = [(resource.RLIMIT_CORE, 0)]
        for name, number in _LIMITS.items():
            value = getattr(self.confinement, name)
            if value is not None:
                limits.append((number, value))
        return limits

    def prepare(self, workspace: Path) -> dict[str, str]:
        """Give the workspace to whoever the program runs as; return the variables that follow from that. Blocking."""
        temporary = workspace / TEMPORARY
        temporary.mkdir(mode=0o700, exist_ok=True)
        variables = {"TMPDIR": str(temporary)}
        if self.user is not None:
            for path in (temporary, *workspace.iterdir(), workspace):
                os.chown(path, self.user.uid, self.user.gid, follow_symlinks=False)
            variables |= {"HOME": self.user.home, "USER": self.user.name, "LOGNAME": self.user.name}
        if self.is_sandboxed:
            variables["HOME"] = str(workspace)  # the user's own is not there
        return variables


OPEN = Enclosure()
