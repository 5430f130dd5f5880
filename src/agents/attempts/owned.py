"""The attempts that this agent owns right now, and how long it may believe in their leases."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

from agents.attempts.stopping import StopReason, StopSignal
from common.loop import Wake
from common.messages import GrantedTask

# How many orders to cancel are kept for a grant that they overtook.
REMEMBERED_CANCELS = 10_000


@dataclass(slots=True, eq=False)
class Attempt:
    """One granted task. Times are on the monotonic clock.

    `lease_until`: the lease has ended for certain only after this, counted from when it was asked for or renewed.
    `renew_at`: when the next renewal is due. `signature` and `credit` came with the grant and are not checked yet.
    `has_ended`: its result is on its way. `renewed` is set, if there is one, when the lease was renewed.
    """

    grant: GrantedTask
    lease_until: float
    renew_at: float
    signature: str | None = None
    credit: int | None = None
    stop: StopSignal = field(default_factory=StopSignal)
    has_ended: bool = False
    renewed: asyncio.Event | None = None

    @classmethod
    def granted(
        cls, grant: GrantedTask, *, asked_at: float, signature: str | None = None, credit: int | None = None
    ) -> "Attempt":
        lease = grant.lease_seconds
        return cls(grant, asked_at + lease, asked_at + lease / 3, signature, credit)

    @property
    def task_id(self) -> UUID:
        return self.grant.work.task_id

    @property
    def number(self) -> int:
        return self.grant.attempt


class Attempts:
    """All attempts from the grant until the result is with the broker.

    `LeaseRenewer` says in `looks_at` when it looks again; `sooner` rings when one is added that is due before.

    An order to cancel may overtake the grant that it is about, because they come from different places; it then meets
    the attempt when that is added.
    """

    def __init__(self) -> None:
        self._attempts: dict[tuple[UUID, int], Attempt] = {}
        self._stop_new: tuple[StopReason, float] | None = None
        self._cancelled: OrderedDict[tuple[UUID, int], None] = OrderedDict()
        self.looks_at = math.inf
        self.sooner = Wake()

    def __iter__(self) -> Iterator[Attempt]:
        return iter(list(self._attempts.values()))

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: Attempt) -> None:
        self._attempts[attempt.task_id, attempt.number] = attempt
        if self.was_cancelled(attempt.task_id, attempt.number):
            attempt.stop.order(StopReason.CANCELLED, grace=0)
        if self._stop_new is not None:
            reason, grace = self._stop_new
            attempt.stop.order(reason, grace=grace)
        if attempt.renew_at < self.looks_at:
            self.sooner.ring()

    def remove(self, attempt: Attempt) -> None:
        self._attempts.pop((attempt.task_id, attempt.number), None)

    def find(self, task_id: UUID, number: int) -> Attempt | None:
        return self._attempts.get((task_id, number))

    def cancel(self, task_id: UUID, number: int, *, grace: float) -> Attempt | None:
        """Stop an attempt and return it when this is the first order; one that is not here yet will not start."""
        attempt = self.find(task_id, number)
        if attempt is not None:
            return attempt if attempt.stop.order(StopReason.CANCELLED, grace=grace) else None
        self._cancelled[task_id, number] = None
        if len(self._cancelled) > REMEMBERED_CANCELS:
            self._cancelled.popitem(last=False)
        return None

    def was_cancelled(self, task_id: UUID, number: int) -> bool:
        """Say whether an order to cancel came when there was no such attempt."""
        return (task_id, number) in self._cancelled

    def stop_all(self, reason: StopReason, *, grace: float) -> None:
        """Stop all attempts, also those that are granted from now on."""
        self._stop_new = (reason, grace)
        for attempt in self:
            attempt.stop.order(reason, grace=grace)
