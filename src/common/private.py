"""Files and directories that belong to the user of this process alone."""

import grp
import os
import pwd
import stat
from pathlib import Path

from common.durable import sync_folder
from common.errors import StartupRefused

# For whatever a process of Chiffon makes, and for what the programs make that work runs.
OWN_UMASK, WORK_UMASK = 0o077, 0o022


class NotPrivate(StartupRefused):
    """Another user could change what this process relies on."""

    def __init__(self, what: str, path: Path, reason: str) -> None:
        super().__init__(f"{what} {path} {reason}, who could change what this process does. {_REMEDY}")


_REMEDY = "Only its user, or root, may own and write it: see chown, and chmod go-w; or name another."


def check_private(path: Path, what: str) -> None:
    """Raise `NotPrivate` when another user may write a file or directory; one that is not there is nobody else's.

    Raises `OSError` when that cannot be seen.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if found.st_uid not in (0, os.geteuid()):
        raise NotPrivate(what, path, f"belongs to {_user(found.st_uid)}")
    if found.st_mode & stat.S_IWOTH:
        raise NotPrivate(what, path, "can be written by every user")
    if found.st_mode & stat.S_IWGRP and not _is_own_group(found):
        raise NotPrivate(what, path, "can be written by its group")


def make_private(path: Path) -> None:
    """Make a directory for this user alone, and those above it that are not there.

    The names of those that were made are on disk when this returns. What root makes above it lets others pass through,
    to what root lets another user have in it. Raises `OSError`.
    """
    for folder in reversed(path.parents):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o711 if os.geteuid() == 0 else 0o700)
            sync_folder(folder.parent)
    is_new = not path.exists()
    path.mkdir(mode=0o700, exist_ok=True)
    if is_new:
        sync_folder(path.parent)


def _is_own_group(found: os.stat_result) -> bool:
    """Whether the group is that of the owner alone, which many systems make for each user."""
    try:
        group = grp.getgrgid(found.st_gid)
        return group.gr_name == _user(found.st_uid) and set(group.gr_mem) <= {group.gr_name}
    except KeyError:
        return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
