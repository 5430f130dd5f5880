"""Tell the keepers until when the leases of their attempts hold, so that they kill in time if the agent cannot."""

from agents.attempts.owned import Attempt
from agents.processes.keepers import Keeper


class Deadlines:
    def __init__(self) -> None:
        self._keepers: dict[Attempt, list[Keeper]] = {}

    def hold(self, attempt: Attempt, keeper: Keeper) -> None:
        """Have a program killed when the lease of its attempt nears its end."""
        self._keepers.setdefault(attempt, []).append(keeper)
        keeper.kill_at(deadline_of(attempt))

    def renewed(self, attempt: Attempt) -> None:
        """Pass on that the lease of an attempt now ends later."""
        for keeper in self._keepers.get(attempt, ()):
            keeper.kill_at(deadline_of(attempt))

    def done(self, attempt: Attempt) -> None:
        """Forget an attempt that has ended."""
        self._keepers.pop(attempt, None)


def deadline_of(attempt: Attempt) -> float:
    """Return when the keepers of an attempt kill, on the monotonic clock.

    That is after the agent's own kill, a tenth of the lease before its end (see `LeaseRenewer`), and before that end.
    """
    return attempt.lease_until - attempt.grant.lease_seconds / 20
