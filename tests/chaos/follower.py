"""A reader of the live feed that goes from one orchestrator to the next and resumes where it was."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

PAUSE_SECONDS = 0.3
# Heartbeats come every 15 s.
SILENCE_SECONDS = 20.0


class Follower:
    """Notes every event frame as it came, without hiding what came twice."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = urls
        self.seen: list[tuple[int, str, str | None]] = []
        self.connections = 0
        self.position = 0

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            url = self._urls[self.connections % len(self._urls)].replace("http:", "ws:")
            self.connections += 1
            try:
                async with connect(
                    f"{url}/api/v1/ws?after={self.position}",
                    proxy=None,
                    open_timeout=5,
                    close_timeout=1,
                    max_size=2**24,
                ) as socket:
                    while True:
                        async with asyncio.timeout(SILENCE_SECONDS):
                            self._note(json.loads(await socket.recv()))
            except (OSError, TimeoutError, WebSocketException):
                await asyncio.sleep(PAUSE_SECONDS)

    def _note(self, frame: dict[str, Any]) -> None:
        if frame["type"] == "event":
            event = frame["event"]
            self.position = event["seq"]
            self.seen.append((event["seq"], event["kind"], event["task_id"]))
