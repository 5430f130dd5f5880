"""How a program is shut in: what its executor asks for and the process module does."""

import os
import pwd
import resource
from dataclasses import dataclass
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
class Enclosure:
    """The walls around one program, all of which this host can build.

    `bubblewrap`: the program that builds the sandbox; it is used when `confinement` demands one. `hidden`: directories
    that are empty inside the sandbox.
    """

    confinement: Confinement = UNCONFINED
    user: User | None = None
    bubblewrap: str | None = None
    hidden: tuple[Path, ...] = ()

    @property
    def is_sandboxed(self) -> bool:
        return self.confinement.sandbox

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
        return variables


OPEN = Enclosure()
