"""Turn a child of the keeper into the program: shut in, bound to the life of its keeper, with three files open.

The keeper has one thread and nothing of the agent, so the child may run Python between `fork` and `exec`. A tool in
front of the program (`setpriv`, `prlimit`) is not on every host, and changes what is said about a program that cannot
be started.

- PR_SET_PDEATHSIG lets the program die with its keeper, also when that is killed without a chance to clean up. It
  reaches the program itself and not what that started; the rest falls to the guardian. A change of user takes it away,
  so it comes last.
- PR_SET_NO_NEW_PRIVS: no program that it starts has more rights than it has; setuid bits do nothing.
- Without a network means a network namespace of its own. Root would find its way back to the host's, so it loses the
  right to any capability. Others need a user namespace around it, in which they are who they were.
"""

import ctypes
import errno
import os
import resource
import signal
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
HIGHEST_CAPABILITY = 63
# What Python ignores, and a program would inherit.
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
# Signals of a service manager or a terminal reach all processes; guardian and keepers must end after the programs.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
NOT_FOUND = 127

# None where there is no such function.
_libc = ctypes.CDLL(None, use_errno=True)
prctl = getattr(_libc, "prctl", None)
unshare = getattr(_libc, "unshare", None)


class Step(StrEnum):
    """Where the start of a program failed: it is the fault of the program in the last step only."""

    FORK = "fork"
    SHUT_IN = "shut_in"
    BEGIN = "begin"


class NotStarted(Exception):
    def __init__(self, step: Step, number: int) -> None:
        super().__init__(step, number)
        self.step = step
        self.errno = number


def start(launch: Mapping[str, Any], files: list[int]) -> int:
    """Fork and become the program that the launch describes; return its id. Raises `NotStarted`.

    `files` become its standard input, output and errors; it has no other.
    """
    keeper = os.getpid()
    told, tell = os.pipe()
    try:
        pid = os.fork()
    except OSError as error:
        raise NotStarted(Step.FORK, error.errno or errno.EAGAIN) from None
    if pid == 0:
        _become(launch, files, tell, keeper)
    os.close(tell)
    with open(told, "rb") as report:  # noqa: PTH123 - a descriptor
        said = report.read().decode().split()  # nothing, once the program has begun
    if said:
        os.waitpid(pid, 0)
        raise NotStarted(Step(said[0]), int(said[1]))
    return pid


def _become(launch: Mapping[str, Any], files: list[int], tell: int, keeper: int) -> NoReturn:
    step = Step.SHUT_IN
    try:
        os.setsid()
        for number in (*IGNORED, *IGNORED_BY_PYTHON):
            signal.signal(number, signal.SIG_DFL)
        for standard, file in enumerate(files):
            os.dup2(file, standard)
        _shut_in(launch, keeper)
        step = Step.BEGIN
        # As the program's user, who gets nowhere that it may not go by itself.
        os.chdir(launch["cwd"])
        _execute(launch)
    except OSError as error:
        os.write(tell, f"{step} {error.errno or errno.EAGAIN}".encode())
    except (ValueError, MemoryError):
        os.write(tell, f"{step} {errno.EINVAL}".encode())
    finally:
        os._exit(NOT_FOUND)


def _execute(launch: Mapping[str, Any]) -> NoReturn:
    """Become the first of the paths that can be run; raises `OSError`, for the first that is there but cannot."""
    problem: OSError | None = None
    for path in launch["paths"]:
        try:
            os.execve(path, launch["argv"], launch["env"])  # noqa: S606 - what the work asks for
        except OSError as error:
            if problem is None or problem.errno in (errno.ENOENT, errno.ENOTDIR):
                problem = error
    raise problem or FileNotFoundError(errno.ENOENT, "no path")


def _shut_in(launch: Mapping[str, Any], keeper: int) -> None:
    """Build the walls; raises `OSError` rather than leave one out."""
    os.umask(launch["umask"])
    if launch["network_off"]:
        _leave_network()
    for number, value in launch["limits"]:
        _, most = resource.getrlimit(number)
        lower = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(number, (lower, lower))
    if launch["user"] is not None:
        groups, gid, uid = launch["user"]
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    if prctl is not None:
        if prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:  # it died before this was asked for, so the signal would never come
            os.kill(os.getpid(), signal.SIGKILL)


def _leave_network() -> None:
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNET if uid == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if unshare is None or prctl is None or unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if uid == 0:
        for capability in range(HIGHEST_CAPABILITY + 1):
            # Those that a new user needs on its way are dropped with the user.
            prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:  # noqa: PTH123 - pathlib loads slowly
            file.write(text)
