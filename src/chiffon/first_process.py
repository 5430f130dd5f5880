"""The duties of process 1 in a container: collect orphans that have ended, and hand signals on.

The kernel makes process 1 the parent of every orphan, such as one of `docker exec`; without this they would stay as
zombies for as long as the container runs. So process 1 starts the command as its child and does nothing else.
"""

import os
import signal
from contextlib import suppress
from types import FrameType

HANDED_ON = frozenset(
    (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)
)


def become_init() -> None:
    """Return at once, but in a child when this is process 1, which then never returns."""
    if os.getpid() != 1:
        return
    # What comes before there is a handler waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, HANDED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
        return

    def hand_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in HANDED_ON:
        signal.signal(number, hand_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDED_ON)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
