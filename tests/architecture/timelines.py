"""What happens when an agent or the broker is lost, in seconds at default settings: the tables of a page in the docs.

The times come from the defaults of the settings, from constants, and from the code that decides them.
"""

import math
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

from agents.attempts.owned import Attempt, Attempts
from agents.attempts.stopping import StopReason, StopSignal
from agents.link import reporter
from agents.over_http.leases import RENEWAL_PATIENCE
from agents.processes import deadlines
from agents.settings import AgentSettings
from agents.tasks.renew import REPEATED_AFTER, LeaseRenewer
from common import loop, postgres
from common.broker import rabbitmq, rabbitmq_connection
from common.broker.base import Broker, BrokerUnavailable
from common.broker.topology import FORGET_AGENTS_AFTER
from common.loop import Wake
from common.messages import GrantedTask, WorkRequest
from common.retry import Retry, RetryPolicy
from orchestrator.database import notifications
from orchestrator.leases.service import LeaseService
from orchestrator.loops.probe import MISSED
from orchestrator.loops.reap_leases import ReapLeases
from orchestrator.settings import OrchestratorSettings
from orchestrator.wiring import SECOND
from tests.fakes.clock import FakeClock

NOBODY = UUID(int=0)
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
# The broker is away for this long where it matters that it was; longer than a lease.
AWAY_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens between two moments, in seconds; `by`: the settings and the code that decide when."""

    earliest: float
    latest: float
    what: str
    by: str

    def row(self) -> str:
        earliest, latest = math.floor(self.earliest), math.ceil(self.latest)
        seconds = str(latest) if earliest == latest else f"{earliest} to {latest}"
        return f"| {seconds} | {self.what} | {self.by} |"


def lost_agent() -> str:
    """Return what becomes of an agent that is lost at 0, and of its task."""
    beat, offline = _agent("heartbeat_seconds"), _orchestrator("agent_offline_after_seconds")
    lease, renewal = _Lease(), _Lease().renewal
    taken = lease.end + SECOND.total_seconds()
    first, last = _first_retry()
    return _table(
        Step(-beat, 0, "The last heartbeat.", "`[agent] heartbeat_seconds`"),
        Step(-renewal, 0, "The last renewal that is answered.", "a third of `lease_seconds`; `agents/tasks/renew.py`"),
        Step(
            0,
            offline + SECOND.total_seconds(),
            "Work is leased to it while it has credit: nothing shows yet that it is gone. It waits in the agent's "
            "queue.",
            "`agent_offline_after_seconds`; `leases/queries.py`, `dispatch/queries.py`",
        ),
        Step(
            offline - beat,
            offline + SECOND.total_seconds(),
            "The agent is offline: no more work is leased to it, and the event `agent.status` says so. What waits in "
            "its queue and never reached it goes to other agents, without having used an attempt.",
            "`agent_offline_after_seconds`; `loops/watch_agents.py`, each second",
        ),
        Step(lease.end - renewal, lease.end, "The lease ends.", "`lease_seconds`"),
        Step(
            lease.end - renewal,
            taken,
            "The task is taken back: its attempt is `lost` with 5002, which the agent's circuit breaker counts. The "
            "task is `pending` while attempts remain; otherwise it is `failed`, and a dead letter.",
            "`loops/reap_leases.py`, each second",
        ),
        Step(
            lease.end - renewal + first,
            taken + last + SECOND.total_seconds(),
            "The next attempt is leased, if an agent has room for it.",
            "`common/retry.py`; `loops/give_work.py`, each second",
        ),
        Step(
            FORGET_AGENTS_AFTER.total_seconds(),
            FORGET_AGENTS_AFTER.total_seconds(),
            "RabbitMQ removes the agent's queues. The ledger keeps the agent: `chiffon agents` lists it as offline.",
            "`common/broker/topology.py`",
        ),
    )


def agent_cut_off() -> str:
    """Return what an agent does that lives and reaches nobody from 0 on."""
    lease = _Lease()
    return _table(
        Step(
            *lease.since(lease.stop),
            "Work gets SIGTERM.",
            "`lease_seconds`, `[agent] kill_grace_seconds`; `agents/tasks/renew.py`",
        ),
        Step(*lease.since(lease.kill), "Work gets SIGKILL.", "the same"),
        Step(
            *lease.since(lease.deadline),
            "Where the agent hangs, too, the keepers kill its programs.",
            "`agents/processes/deadlines.py`",
        ),
        Step(*lease.since(lease.end), "The lease ends.", "`lease_seconds`"),
    )


def lost_broker() -> str:
    """Return what happens from 0 on, when RabbitMQ goes away and closes its connections."""
    lease = _Lease()
    offline, beat = _orchestrator("agent_offline_after_seconds"), _agent("heartbeat_seconds")
    silence = MISSED * _orchestrator("probe_seconds")
    return _table(
        Step(
            0,
            0,
            "Dispatches are accepted; their tasks wait in the ledger. Nothing is leased. `/ready` says 503: `broker`.",
            "`leases/credits.py`; `readiness.py`",
        ),
        Step(
            0,
            rabbitmq_connection.LONGEST_PAUSE.total_seconds(),
            "Each process tries to connect, and waits that long between two tries.",
            "`common/broker/rabbitmq_connection.py`",
        ),
        Step(
            silence - _orchestrator("probe_seconds"),
            silence,
            "`/ready` says 503 also for `probe`.",
            f"{MISSED} times `probe_seconds`; `loops/probe.py`",
        ),
        Step(
            offline - beat,
            offline + SECOND.total_seconds(),
            "All agents are offline.",
            "`agent_offline_after_seconds`",
        ),
        Step(
            *lease.since(lease.stop),
            "Work that runs gets SIGTERM; its result goes to the spool.",
            "`agents/tasks/renew.py`",
        ),
        Step(*lease.since(lease.kill), "Work that still runs gets SIGKILL.", "the same"),
        Step(
            *lease.since(lease.end),
            "Leases end. No task is taken back while the broker is away.",
            "`lease_seconds`; `loops/reap_leases.py`",
        ),
    )


def broker_back() -> str:
    """Return what happens from 0 on, when RabbitMQ is back."""
    connected = rabbitmq_connection.LONGEST_PAUSE.total_seconds()
    again = loop.LONGEST_PAUSE.total_seconds()
    beat = _agent("heartbeat_seconds")
    second = SECOND.total_seconds()
    return _table(
        Step(0, connected, "Orchestrators and agents are connected.", "`common/broker/rabbitmq_connection.py`"),
        Step(
            0,
            connected + beat + second,
            "Tasks that waited are leased to agents that were heard since, and sent.",
            "`[agent] heartbeat_seconds`; `loops/give_work.py`, each second",
        ),
        Step(
            0,
            connected + 2 * beat + second,
            "Work that the broker lost on its way to an agent is sent once more.",
            "two heartbeats; `leases/service.py`",
        ),
        Step(
            0,
            connected + reporter.LONGEST_PAUSE.total_seconds(),
            "Results that waited arrive. Work that was stopped is tried again while attempts remain.",
            "`agents/link/reporter.py`",
        ),
        Step(
            0,
            connected + again + _orchestrator("probe_seconds"),
            "`/ready` says 200.",
            "`probe_seconds`; `loops/probe.py`",
        ),
        Step(0, connected + beat, "Agents are online.", "`[agent] heartbeat_seconds`"),
        Step(
            _reaped(back_for=0),
            _reaped(back_for=connected) + SECOND.total_seconds(),
            "Tasks whose agents were not heard since are taken back.",
            "`lease_seconds`; `loops/reap_leases.py`",
        ),
    )


def harmless_outage() -> str:
    """Return how long the broker may be away so that no running work is stopped."""
    lease = _Lease()
    seconds = lease.stop - lease.renewal - lease.repeat - rabbitmq_connection.LONGEST_PAUSE.total_seconds()
    return f"An outage of at most {seconds:g} seconds stops no work."


def silent_connections() -> str:
    """Return what happens when nothing passes over open connections from 0 on, and new ones work."""
    lease, (first, last) = _Lease(), _silence()
    heartbeat, asked = rabbitmq_connection.HEARTBEAT_SECONDS, notifications.CHECK_EVERY.total_seconds()
    patience = lease.end * RENEWAL_PATIENCE
    return _table(
        Step(
            first,
            last,
            "An agent or orchestrator that has not heard RabbitMQ opens a new connection. Where it is heard and does "
            f"not confirm a publish, that happens {rabbitmq.DEADLINE.total_seconds():g} seconds after the publish.",
            f"{rabbitmq_connection.SILENT_HEARTBEATS} times the AMQP heartbeat of {heartbeat} seconds; "
            "`common/broker/rabbitmq_connection.py`",
        ),
        Step(
            2 * heartbeat,
            3 * heartbeat,
            "RabbitMQ closes its end, and delivers again what was not acknowledged there.",
            "the same heartbeat; RabbitMQ",
        ),
        Step(
            postgres.SILENCE.total_seconds() + asked,
            asked + postgres.SILENCE.total_seconds() + loop.FIRST_PAUSE.total_seconds() + asked,
            "An orchestrator uses new sessions at PostgreSQL. Statements that wait in the old ones are ended, and what "
            "they were for is done again.",
            "`database/notifications.py`, `common/postgres.py`",
        ),
        Step(
            patience,
            lease.renewal + patience,
            "An agent over HTTP repeats a renewal that was not answered, over a new connection.",
            "an eighth of the lease; `agents/over_http/leases.py`",
        ),
    )


def kept_leases() -> str:
    """Return which leases last over connections that fall silent."""
    _, last = _silence()
    seconds = next(seconds for seconds in range(1, 3600) if _Lease(seconds).spare >= last)
    return (
        f"No work is stopped by that where `lease_seconds` is at least {seconds}. For shorter leases let RabbitMQ be "
        "heard more often:\nput `?heartbeat=2`, in seconds, behind `broker_url` of orchestrators and agents."
    )


def _silence() -> tuple[float, float]:
    """Return how long after RabbitMQ was last heard there is a new connection, at least and at most."""
    heartbeat = rabbitmq_connection.HEARTBEAT_SECONDS
    limit, look = rabbitmq_connection.SILENT_HEARTBEATS * heartbeat, rabbitmq_connection.LOOK.total_seconds()
    # RabbitMQ was heard when it sent its last heartbeat, which it does twice in the time.
    return limit - heartbeat / 2 - look, limit + look + rabbitmq_connection.FIRST_PAUSE.total_seconds()


class _Order(StopSignal):
    """Notes the grace of the order to stop, which needs no event loop then."""

    def __init__(self) -> None:
        super().__init__()
        self.grace = 0.0

    def order(self, reason: StopReason, *, grace: float) -> bool:
        self.grace = grace
        return False  # so that it is not logged


class _Lease:
    """The moments of a lease, of default length, by the agent that sent its last renewal at 0 and hears no answer."""

    def __init__(self, seconds: float | None = None) -> None:
        order, usual = _Order(), _orchestrator("lease_seconds")
        assert usual == _agent("lease_seconds"), "the page says one figure for both ways to the orchestrator"
        seconds = seconds or usual
        work = WorkRequest(task_id=NOBODY, work_type="echo")
        ids = {"claim_id": NOBODY, "trace_id": NOBODY, "request_id": NOBODY}
        grant = GrantedTask(work=work, attempt=1, lease_seconds=seconds, **ids)
        attempt = Attempt.granted(grant, asked_at=0.0)
        attempt.stop = order
        attempts = Attempts()
        attempts.add(attempt)
        renewer = LeaseRenewer(
            cast("Broker", None),
            NOBODY,
            attempts,
            FakeClock(),
            deadlines=deadlines.Deadlines(),
            kill_grace=timedelta(seconds=_agent("kill_grace_seconds")),
        )
        self.renewal = attempt.renew_at
        self.repeat = seconds * REPEATED_AFTER
        self.stop = renewer._stop_at(attempt)
        renewer._stop_overdue(self.stop)
        self.kill = self.stop + order.grace
        self.deadline = deadlines.deadline_of(attempt)
        self.end = attempt.lease_until

    @property
    def spare(self) -> float:
        """For how long renewals may be in vain, if the second that is sent after that is answered."""
        return self.stop - self.renewal - 2 * self.repeat

    def since(self, moment: float) -> tuple[float, float]:
        """Return when this is after a loss, before which the last renewal was sent at some time."""
        return moment - self.renewal, moment


class _Away:
    """A broker that does not answer, until it is back."""

    def __init__(self, clock: FakeClock, *, back_at: float) -> None:
        self._clock = clock
        self._back_at = back_at

    async def depth(self, queue: str) -> int:
        patience = rabbitmq.DEADLINE.total_seconds()
        left = self._back_at - self._clock.monotonic()
        if left > 0:
            self._clock.advance(seconds=min(left, patience))
            if left > patience:
                raise BrokerUnavailable("away")
        return 0


class _Reaped:
    """Leases, all of which have ended."""

    async def reap(self, *, limit: int) -> int:
        return 1


def _reaped(*, back_for: float) -> float:
    """Return how long after the broker's return tasks are taken back, when it is seen `back_for` seconds after that."""
    clock = FakeClock()
    returned = clock.monotonic() + AWAY_SECONDS
    broker = cast("Broker", _Away(clock, back_at=returned + back_for))
    grace = timedelta(seconds=_orchestrator("lease_seconds"))
    reaper = ReapLeases(cast("LeaseService", _Reaped()), broker, Wake(), clock, grace=grace)
    while not _result_of(reaper.run_once()):
        clock.advance(seconds=SECOND.total_seconds())
    return clock.monotonic() - returned


def _first_retry() -> tuple[float, float]:
    """Return how long the second attempt waits at least, and at most."""
    waits = []
    for chance in (0.0, 1.0):
        decision = RetryPolicy().decide(retryable=True, attempt=1, max_attempts=2, now=EPOCH, chance=chance)
        assert isinstance(decision, Retry)
        waits.append((decision.at - EPOCH).total_seconds())
    return waits[0], waits[1]


def _result_of(work: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return int(end.value)
    raise AssertionError("it waits for something")


def _orchestrator(name: str) -> float:
    return float(OrchestratorSettings.model_fields[name].default)


def _agent(name: str) -> float:
    return float(AgentSettings.model_fields[name].default)


def _table(*steps: Step) -> str:
    head = ["| seconds | what happens | decided by |", "| --- | --- | --- |"]
    return "\n".join([*head, *(step.row() for step in sorted(steps, key=lambda step: step.latest))])
