"""What a program is before it begins: bound to the life of the agent, and shut in.

The child does this between fork and exec, in `preexec_fn`. That runs Python in the child of a process with threads,
which is dangerous for what takes a lock that another thread held at the fork. So everything is looked up and computed
beforehand; the child only makes system calls, through `PyDLL`, which keeps the interpreter's lock instead of giving it
up and taking it again, and nothing is imported or logged. A tool in front of the program (`setpriv`, `prlimit`) is not
on every host, and changes what is said about a program that cannot be started.

- PR_SET_PDEATHSIG lets the program die with the agent, also when that is killed without a chance to clean up. The
  signal belongs to the thread that forked: that is the event loop's, which lives as long as the agent. It reaches the
  program itself and not what that started; the rest is found by the guardian. A change of user takes it away, so it
  comes last.
- PR_SET_NO_NEW_PRIVS: no program that it starts has more rights than it has; setuid bits do nothing.
- Without a network means a network namespace of its own. Root would find its way back to the host's, so it loses the
  right to any capability. Others need a user namespace around it, in which they are who they were.
"""

import ctypes
import os
import resource
import signal
from collections.abc import Callable

from agents.executors.enclosure import Enclosure

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
HIGHEST_CAPABILITY = 63

# None where there is no such function.
_libc = ctypes.PyDLL(None, use_errno=True)
_prctl = getattr(_libc, "prctl", None)
_unshare = getattr(_libc, "unshare", None)

Step = Callable[[], object]


def can_unshare() -> bool:
    return _unshare is not None


def entering(enclosure: Enclosure) -> Step:
    """Return what the child calls before it becomes the program; it raises rather than leave a wall out."""
    steps: list[Step] = [lambda: os.umask(0o077)]
    if enclosure.confinement.network_off and not enclosure.is_sandboxed:
        steps.append(_without_network())
    steps += [_limited(number, value) for number, value in enclosure.limits]
    if (user := enclosure.user) is not None:
        groups, gid, uid = list(user.groups), user.gid, user.uid
        steps += [
            lambda: os.setgroups(groups),
            lambda: os.setresgid(gid, gid, gid),
            lambda: os.setresuid(uid, uid, uid),
        ]
    if _prctl is not None:
        steps += [_no_new_rights, _dies_with(os.getpid())]

    def enter() -> None:
        for step in steps:
            step()

    return enter


def _limited(number: int, value: int) -> Step:
    def limit() -> None:
        _, most = resource.getrlimit(number)
        lower = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(number, (lower, lower))

    return limit


def _no_new_rights() -> None:
    assert _prctl is not None
    if _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")


def _dies_with(parent: int) -> Step:
    prctl, sigkill = _prctl, int(signal.SIGKILL)
    assert prctl is not None

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, sigkill, 0, 0, 0)
        if os.getppid() != parent:  # it died before this was asked for, so nobody would ever send the signal
            os.kill(os.getpid(), sigkill)

    return ask


def _without_network() -> Step:
    unshare, prctl = _unshare, _prctl
    uid, gid = os.geteuid(), os.getegid()
    maps = [("setgroups", b"deny"), ("uid_map", b"%d %d 1" % (uid, uid)), ("gid_map", b"%d %d 1" % (gid, gid))]

    def leave() -> None:
        flags = CLONE_NEWNET if uid == 0 else CLONE_NEWNET | CLONE_NEWUSER
        if unshare is None or prctl is None or unshare(flags) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        if uid == 0:
            for capability in range(HIGHEST_CAPABILITY + 1):
                # Those that a new user needs on its way are dropped with the user.
                prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            return
        for name, text in maps:
            file = os.open(f"/proc/self/{name}", os.O_WRONLY)
            os.write(file, text)
            os.close(file)

    return leave
