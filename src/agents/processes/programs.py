"""Start the programs of one attempt, and know whether any of them may have run."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from agents.processes.keepers import Keeper, Keepers, Launch, NotBegun


class Programs:
    """A `Starter` for one attempt. `kill_at` says until when its lease holds: it is part of each launch, because an
    agent that is paused right after it gave one can send no deadline.
    """

    def __init__(self, keepers: Keepers, *, kill_at: Callable[[], float]) -> None:
        self._keepers = keepers
        self._kill_at = kill_at
        self._told = 0

    @property
    def may_have_run(self) -> bool:
        """Whether a keeper was told to start a program and did not say that it could not."""
        return self._told > 0

    async def start(self, launch: Launch, files: Sequence[int]) -> Keeper:
        """See `Keepers.start`."""
        try:
            return await self._keepers.start(replace(launch, kill_at=self._kill_at()), files, telling=self._tell)
        except NotBegun:
            self._told -= 1
            raise

    def _tell(self) -> None:
        self._told += 1
