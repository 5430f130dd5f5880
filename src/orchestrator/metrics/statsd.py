"""Send metrics to StatsD: each in a datagram of its own, and none of them ever waited for.

What cannot be sent is lost. After an error nothing is tried for a while, longer with each error that follows.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from common.clock import Clock

log = logging.getLogger(__name__)

FIRST_PAUSE = timedelta(seconds=5)
LONGEST_PAUSE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Counted:
    """Something happened once more."""

    name: str

    @property
    def value(self) -> str:
        return "1|c"


@dataclass(frozen=True, slots=True)
class Timed:
    """Something took so long."""

    name: str
    duration: timedelta

    @property
    def value(self) -> str:
        return f"{max(self.duration, timedelta(0)) / timedelta(milliseconds=1):.4f}|ms"


Metric = Counted | Timed


def segment(text: str) -> str:
    """Return a text as a part of a metric's name, without what StatsD takes for something else."""
    shown = text.replace(" ", "_").replace("/", "-")
    return "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in shown) or "_"


class StatsD:
    """Sends metrics to one address; used in a `with` block that closes its socket."""

    def __init__(self, host: str, port: int, *, prefix: str, clock: Clock) -> None:
        self._host = host
        self._port = port
        self._prefix = prefix.rstrip(".")
        self._clock = clock
        self._socket: socket.socket | None = None
        self._address: Any = None
        self._pause = FIRST_PAUSE
        self._silent_until = clock.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    @property
    def is_open(self) -> bool:
        """Whether what is sent now would go anywhere."""
        return self._socket is not None

    async def open(self) -> None:
        """Look the address up, unless it is known or the last error is too recent."""
        if self._socket is not None or self._clock.monotonic() < self._silent_until:
            return
        try:
            found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, self._address = found[0]
            self._socket = socket.socket(family, kind, protocol)
            self._socket.setblocking(False)
        except (OSError, UnicodeError) as error:
            self._be_silent(error)

    def send(self, *metrics: Metric) -> None:
        """Send metrics, or lose them."""
        for metric in metrics:
            if self._socket is None:
                return
            name = metric.name if not self._prefix else f"{self._prefix}.{metric.name}"
            try:
                self._socket.sendto(f"{name}:{metric.value}".encode(), self._address)
            except BlockingIOError:
                continue  # the host has no room for it just now
            except OSError as error:
                self._be_silent(error)
            else:
                self._pause = FIRST_PAUSE

    def _be_silent(self, error: Exception) -> None:
        log.warning("metrics.not_sent", extra={"error": repr(error), "again_in_seconds": self._pause.total_seconds()})
        self._close()
        self._silent_until = self._clock.monotonic() + self._pause.total_seconds()
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
