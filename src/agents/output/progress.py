"""Report how far an attempt is: the newest report, at most one in a second, and the last one before the result."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from common.progress import LONGEST_MESSAGE, on_one_line, parsed, report

EVERY_SECONDS = 1.0
# As much of a line is read: what is shown of it is far shorter.
LONGEST_LINE = 4 * LONGEST_MESSAGE

HandIn = Callable[[str], asyncio.Future[None]]


class Progress:
    """The reports of one attempt. Use it as a context manager.

    `hand_in` brings one to the orchestrator, behind those before it, and returns what is done when it is stored there.
    While one is on its way, later ones replace each other. `hidden` takes the secrets out of a text.
    """

    def __init__(self, hand_in: HandIn, *, hidden: Callable[[str], str]) -> None:
        self._hand_in = hand_in
        self._hidden = hidden
        self._newest = ""
        self._sent = ""
        self._sent_at = float("-inf")
        self._on_its_way: asyncio.Future[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._is_over = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @property
    def has_sent(self) -> bool:
        """Whether a report went ahead of the result."""
        return bool(self._sent)

    def say(self, message: str, percent: float | None = None) -> None:
        """Report where the work stands."""
        # Secrets are looked for in what is left of the text, and before it is cut.
        text = report(self._hidden(on_one_line(message)), percent)
        if text and not self._is_over:
            self._newest = text
            self._send_when_due()

    def read(self, content: bytes) -> None:
        """Report the last line of what a program has written that says something."""
        # Hidden as a whole first: a secret may have several lines.
        text = self._hidden(content.decode("utf-8", "replace"))
        for written in reversed(text.splitlines()):
            if line := on_one_line(written[:LONGEST_LINE]):
                self.say(*parsed(line))
                return

    def finish(self) -> None:
        """Send the last report if it was not sent yet; nothing is reported after that."""
        self._end()
        if self._newest != self._sent:
            self._send()

    def _end(self) -> None:
        self._is_over = True
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _send_when_due(self) -> None:
        if self._is_over or self._newest == self._sent or self._on_its_way is not None or self._due is not None:
            return
        loop = asyncio.get_running_loop()
        if (due_at := self._sent_at + EVERY_SECONDS) > loop.time():
            self._due = loop.call_at(due_at, self._be_due)
        else:
            self._send()

    def _be_due(self) -> None:
        self._due = None
        self._send_when_due()

    def _send(self) -> None:
        self._sent, self._sent_at = self._newest, asyncio.get_running_loop().time()
        self._on_its_way = self._hand_in(self._newest)
        self._on_its_way.add_done_callback(self._arrived)

    def _arrived(self, sent: asyncio.Future[None]) -> None:
        self._on_its_way = None
        if not sent.cancelled():  # an agent that stops gives up what waits
            sent.exception()  # known: one report less costs nothing
        self._send_when_due()
