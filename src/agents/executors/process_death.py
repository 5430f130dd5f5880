"""Let a program die with the agent that started it, also when that is killed without a chance to clean up.

The kernel does it: PR_SET_PDEATHSIG, asked for by the child between fork and exec. The ways to ask, and why this one:

- `setpriv --pdeathsig` in front of the program needs a tool that not every host has, changes what is said about a
  program that cannot be started, and does not notice when the parent died before it asked.
- `preexec_fn` runs Python in the child of a process with threads, which is dangerous for what takes a lock that another
  thread held at the fork. This function takes none: the C function is looked up beforehand, `PyDLL` keeps the
  interpreter's lock instead of giving it up and taking it again, and nothing is imported, logged or opened.

The signal belongs to the thread that forked: that is the event loop's, which lives as long as the agent. It reaches the
program itself and not what that started; the rest of the group is found by the journal when the agent comes back.
"""

import ctypes
import os
import signal
from collections.abc import Callable

PR_SET_PDEATHSIG = 1

# None where there is no such function.
_prctl = getattr(ctypes.PyDLL(None), "prctl", None)


def dies_with_this_process() -> Callable[[], None] | None:
    """Return what the child calls before it becomes the program; None where the kernel has no such thing."""
    if _prctl is None:
        return None
    prctl, parent, sigkill = _prctl, os.getpid(), int(signal.SIGKILL)

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, sigkill)
        if os.getppid() != parent:  # it died before this was asked for, so nobody would ever send the signal
            os.kill(os.getpid(), sigkill)

    return ask
