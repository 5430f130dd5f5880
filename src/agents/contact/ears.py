"""Open new connections and consumers when this agent has gone deaf; see `hearing`."""

import logging
from collections.abc import Callable
from datetime import timedelta

from agents.contact.hearing import Hearing
from agents.tasks.availability import Availability
from common.broker.base import Broker
from common.clock import Clock
from common.errors import StartupRefused
from common.loop import Health, Wake, keep_running

log = logging.getLogger(__name__)


class AgentDeaf(StartupRefused):
    """Reconnecting did not help for as long as `deaf_exit_seconds` allows; a new process may."""

    def __init__(self) -> None:
        super().__init__(
            "This agent can publish but has heard nothing for longer than CHIFFON_AGENT_DEAF_EXIT_SECONDS. Check that "
            "an orchestrator is running, and start the agent again."
        )


class Ears:
    """Looks as often as the agent beats. `gave_up`: the agent is to end."""

    def __init__(
        self,
        broker: Broker,
        hearing: Hearing,
        availability: Availability,
        clock: Clock,
        *,
        every: timedelta,
        health: Health,
    ) -> None:
        self._broker = broker
        self._hearing = hearing
        self._availability = availability
        self._clock = clock
        self._every = every
        self._health = health
        self.gave_up = False

    async def run(self, *reopen: Callable[[], None]) -> None:
        """Look until cancelled; each of `reopen` opens a consumer anew."""
        never = Wake()

        async def look() -> None:
            await never.wait(self._every)
            now = self._clock.monotonic()
            if self._hearing.must_reconnect(now=now):
                await self._broker.reconnect()
                # Consumers too, and not only what is under them: who is deaf cannot tell which of them has died.
                for one in reopen:
                    one()
            if self._hearing.must_give_up(now=now):
                self.gave_up = True
                self._availability.changed.ring()

        await keep_running("ears", look, health=self._health)
