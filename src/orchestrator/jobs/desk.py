"""Where claims wait for their answer: what arrives together is answered together, the rest when there is news."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta

from common.loop import Wake
from orchestrator.events.model import Event, Kind
from orchestrator.jobs.model import Wanted
from orchestrator.tasks.model import Task

Give = Callable[[Sequence[Wanted]], Awaitable[Sequence[Task | None]]]
HandBack = Callable[[Wanted, Task], Awaitable[None]]

# After these there may be something for somebody who waits.
NEWS = frozenset(
    (
        Kind.TASK_DISPATCHED,
        Kind.TASK_REQUEUED,
        Kind.TASK_COMPLETED,
        Kind.TASK_FAILED,
        Kind.TASK_CANCELLED,
        Kind.TASK_STOPPED,
        Kind.AGENT_RESUMED,
    )
)
# What comes without news: a retry that is due, a pause that is over, a lease that has run out.
LOOK = timedelta(seconds=1)
AT_ONCE = 256


class _Waiting:
    """One claim and its answer. `patient`: it waits until there is something; `left`: nobody hears its answer."""

    def __init__(self, wanted: Wanted, *, patient: bool) -> None:
        self.wanted = wanted
        self.patient = patient
        self.left = False
        self.answer: asyncio.Future[Task | None] = asyncio.get_running_loop().create_future()


class Desk:
    """Answers claims with `give`. What was given to somebody who has left, and cannot ask again, is handed back."""

    def __init__(self, give: Give, hand_back: HandBack) -> None:
        self._give = give
        self._hand_back = hand_back
        self._new: list[_Waiting] = []
        self._patient: list[_Waiting] = []
        self._returned: list[tuple[Wanted, Task]] = []
        self._bell = Wake()
        self._news = True
        self._looked_at = 0.0
        self._closed = False
        self._is_giving = False

    @property
    def listens(self) -> bool:
        """Whether anybody waits for news, or is about to."""
        return bool(self._patient or self._new or self._is_giving)

    def heard(self, events: Iterable[Event]) -> None:
        """Look again for those who wait, if any of this may concern them."""
        if self.listens and any(event.kind in NEWS for event in events):
            self._look()

    def close(self) -> None:
        """Answer everybody who waits, now and from now on, with what there is at once."""
        self._closed = True
        self._look()

    async def claim(self, wanted: Wanted, *, wait: timedelta) -> Task | None:
        """Return the task that a claim got; None when there is nothing for it, at once or until `wait` is over."""
        waiting = _Waiting(wanted, patient=wait > timedelta(0) and not self._closed)
        self._new.append(waiting)
        self._bell.ring()
        try:
            if waiting.patient:
                await asyncio.wait({waiting.answer}, timeout=wait.total_seconds())
                # It may be being answered just now, so that it is the desk that says no.
                waiting.patient = False
                self._bell.ring()
            return await asyncio.shield(waiting.answer)
        except asyncio.CancelledError:
            waiting.left = True
            if waiting.answer.done() and not waiting.answer.cancelled() and not waiting.answer.exception():
                self._return(waiting)
            raise

    async def run_once(self) -> None:
        """Wait for claims or for news, and answer those who are new, or all when there is news."""
        await (self._bell.wait(LOOK) if self._patient else self._bell.rung())
        while self._returned:
            await self._hand_back(*self._returned.pop())
        batch = self._take()
        self._is_giving = bool(batch)
        try:
            answers = await self._give([one.wanted for one in batch]) if batch else []
        except asyncio.CancelledError:
            for one in batch:
                one.answer.cancel()
            raise
        except Exception as failure:  # handed to every caller, so that none is left waiting
            for one in batch:
                if not one.left:
                    one.answer.set_exception(failure)
            return
        finally:
            self._is_giving = False
        for one, task in zip(batch, answers, strict=True):
            if task is not None or not one.patient or self._closed:
                one.answer.set_result(task)
                if one.left:
                    self._return(one)
            else:
                self._patient.append(one)

    def _look(self) -> None:
        self._news = True
        self._bell.ring()

    def _return(self, one: _Waiting) -> None:
        """Have what nobody heard of given to others; whoever chose the id of the claim can still ask for it."""
        task = one.answer.result()
        if task is not None and not one.wanted.repeatable:
            self._returned.append((one.wanted, task))
            self._bell.ring()

    def _take(self) -> list[_Waiting]:
        """Return whose turn it is; those who have waited longest come first."""
        now = asyncio.get_running_loop().time()
        if self._news or now - self._looked_at >= LOOK.total_seconds():
            turn, self._patient = self._patient, []
            self._news, self._looked_at = False, now
        else:
            turn = [one for one in self._patient if not one.patient or self._closed]
            self._patient = [one for one in self._patient if one.patient and not self._closed]
        turn, self._new = [one for one in turn + self._new if not one.left], []
        if len(turn) > AT_ONCE:
            self._new = turn[AT_ONCE:]
            self._bell.ring()
        return turn[:AT_ONCE]
