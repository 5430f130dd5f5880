"""The processes that one program started, as far as they stayed in its process group."""

import os
import signal
from contextlib import suppress

from agents.process_table import members


class ProcessGroup:
    """Signals a group by the id of its leader.

    `has_keeper`: the leader only keeps a sandbox for the others, which would be killed with it; so it is not asked to
    end but ends with them.

    Once the leader is gone and the group was killed, the kernel may give the id to somebody else; so after `end`
    nothing is signalled any more.
    """

    def __init__(self, leader: int, *, has_keeper: bool = False) -> None:
        self._leader = leader
        self._has_keeper = has_keeper
        self._ended = False

    def terminate(self) -> None:
        """Ask all of them to end."""
        if self._has_keeper and not self._ended:
            for pid in members(self._leader):
                if pid != self._leader:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGTERM)
        else:
            self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)  # a stopped process takes no other signal

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """Kill all of them, for the last time."""
        self.kill()
        self._ended = True

    def _signal(self, number: signal.Signals) -> None:
        if not self._ended:
            with suppress(ProcessLookupError, PermissionError):  # gone, or only zombies left (macOS)
                os.killpg(self._leader, number)
