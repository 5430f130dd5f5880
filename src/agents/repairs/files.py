"""The files of a workspace: what they hold, and changing them so that a crash leaves the old content or the new.

No link is followed, on no part of the way below the workspace. Everything here blocks: call it in a thread.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agents.repairs.failures import StepFailed
from agents.repairs.state import Content
from common.durable import sync, write_all

MOST_FILE_BYTES = 64 * 1024 * 1024
_DRAFT = ".chiffon-new"
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _TOP | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def look_at(top: Path, path: str) -> tuple[Content, bytes] | None:
    """Return what a file is and what it holds; None when there is none. Raises `StepFailed` for what is no file."""
    try:
        with _folder_of(top, path) as folder:
            handle = os.open(Path(path).name, _FILE, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StepFailed(f"{path} cannot be read: {error.strerror}.") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise StepFailed(f"{path} is no regular file: a repair changes regular files only.")
    with os.fdopen(handle, "rb") as file:
        if found.st_size > MOST_FILE_BYTES:
            raise StepFailed(
                f"{path} has {found.st_size} bytes, and a repair changes files of at most {MOST_FILE_BYTES}."
            )
        data = file.read()
    mode = stat.S_IMODE(found.st_mode)
    return Content(sha256=hashlib.sha256(data).hexdigest(), mode=mode, uid=found.st_uid, gid=found.st_gid), data


def owner_of_new(top: Path, path: str) -> tuple[int, int]:
    """Return who a new file belongs to: the owner of the nearest directory that is there."""
    try:
        with _folder_of(top, path) as folder:
            found = os.fstat(folder)
    except FileNotFoundError:
        above = Path(path).parent
        if above == Path():
            raise
        return owner_of_new(top, str(above))
    return found.st_uid, found.st_gid


def folders_missing(top: Path, paths: Iterable[str]) -> list[str]:
    """Return the directories that must be made for files, the upper ones first."""
    missing = set[str]()
    for path in paths:
        parent = Path(path).parent
        while parent != Path() and not (top / parent).exists():
            missing.add(str(parent))
            parent = parent.parent
    return sorted(missing)


def write(top: Path, path: str, content: Content, data: bytes) -> None:
    """Have a file hold this, with its permissions and owner; it is on disk when this returns.

    Raises `OSError`, and `StepFailed` when a link on the way leads elsewhere.
    """
    with _folder_of(top, path, made_for=content) as folder:
        draft = _draft_of(path)
        with suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=folder)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            write_all(handle, data)
            if os.geteuid() == 0:
                os.fchown(handle, content.uid, content.gid)
            os.fchmod(handle, content.mode)
            sync(handle)
        finally:
            os.close(handle)
        os.replace(draft, Path(path).name, src_dir_fd=folder, dst_dir_fd=folder)
        sync(folder)


def remove(top: Path, path: str) -> None:
    """Remove a file, if it is there. Raises as `write`."""
    with suppress(FileNotFoundError), _folder_of(top, path) as folder:
        with suppress(FileNotFoundError):
            os.unlink(Path(path).name, dir_fd=folder)
        sync(folder)


def remove_draft(top: Path, path: str) -> None:
    """Remove what a crash left of writing a file."""
    with suppress(FileNotFoundError, NotADirectoryError), _folder_of(top, path) as folder:
        os.unlink(_draft_of(path), dir_fd=folder)


def remove_folders(top: Path, paths: Iterable[str]) -> None:
    """Remove directories that were made, as far as they are empty."""
    for path in sorted(paths, reverse=True):
        with suppress(OSError, StepFailed), _folder_of(top, path) as folder:
            os.rmdir(Path(path).name, dir_fd=folder)


def give_all(folder: Path, uid: int, gid: int) -> None:
    """Give a directory and all that is in it to a user. Raises `OSError`."""
    for above, folders, names in os.walk(folder):
        for name in (*folders, *names):
            os.chown(Path(above) / name, uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)


@contextmanager
def _folder_of(top: Path, path: str, *, made_for: Content | None = None) -> Iterator[int]:
    """Give the directory that a path of a workspace is in, open: what takes its place meanwhile is of no effect.

    `made_for`: whose the directories are that are made where there are none. Raises `OSError`, and `StepFailed` when a
    link on the way leads elsewhere.
    """
    folder = os.open(top, _TOP)
    try:
        for name in Path(path).parts[:-1]:
            inner = _open_folder(folder, name, path, made_for)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _open_folder(folder: int, name: str, path: str, made_for: Content | None) -> int:
    try:
        if name == "..":
            raise StepFailed(f"{path} leads out of the workspace.")
        return os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if made_for is None:
            raise
        return _make_folder(folder, name, made_for)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and _is_link(folder, name):
            raise StepFailed(
                f"{path} lies behind a symbolic link: a repair changes only what is in the workspace itself."
            ) from None
        raise


def _is_link(folder: int, name: str) -> bool:
    return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def _make_folder(folder: int, name: str, owner: Content) -> int:
    os.mkdir(name, 0o755, dir_fd=folder)
    made = os.open(name, _FOLDER, dir_fd=folder)
    try:
        os.fchmod(made, 0o755)
        if os.geteuid() == 0:
            os.fchown(made, owner.uid, owner.gid)
        sync(folder)
    except OSError:
        os.close(made)
        raise
    return made


def _draft_of(path: str) -> str:
    return f".{Path(path).name}{_DRAFT}"
