"""Every case: its name, and what a worker promises in it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chiffon.conformance import cases_of_faults as faults
from chiffon.conformance import cases_of_leases as leases
from chiffon.conformance import cases_of_work as work
from chiffon.conformance.stage import Stage


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is tried. `needs_process`: the kit must be able to start, kill and end the worker itself."""

    name: str
    promise: str
    play: Callable[[Stage], Awaitable[None]]
    needs_process: bool = False


CASES = (
    Case("completes", "takes a job, does it and says complete with its result", work.completes),
    Case("once-in-order", "does each of many jobs once, in the order in which it gets them", work.once_in_order),
    Case("reports-failure", "says fail with errorMessage and whether another attempt may help", work.reports_failure),
    Case("unknown-work", "fails a payload that it does not understand, and goes on", work.unknown_work),
    Case("own-types", "takes only the types that it was told to take", work.own_types),
    Case("idle", "asks at a measured pace while there is nothing", work.idle),
    Case("unknown-fields", "does not mind fields that it does not know", work.unknown_fields),
    Case("heartbeats", "renews its lease in time while a long job runs", leases.heartbeats),
    Case("cancelled", "stops a cancelled job and says so", leases.cancelled),
    Case("lease-lost", "stops work whose lease cannot be renewed, and never reports it", leases.lease_lost),
    Case(
        "refused-heartbeat", "stops and is silent about an attempt that is no longer its own", leases.refused_heartbeat
    ),
    Case("frozen", "does no harm when it was stopped past its lease and continues", leases.frozen, needs_process=True),
    Case(
        "killed", "is started anew after a kill -9 and does the job that comes back", leases.killed, needs_process=True
    ),
    Case("lost-claim", "asks with the same claimId when the answer to a claim was lost", faults.lost_claim),
    Case("lost-complete", "repeats complete when its answer was lost", faults.lost_complete),
    Case("lost-fail", "repeats fail when its answer was lost", faults.lost_fail),
    Case("busy", "repeats what was answered 503", faults.busy),
    Case("away", "waits for a server that is away, at a measured pace, and goes on", faults.away),
    Case("leaves-idle", "leaves at SIGTERM while it waits for work", faults.leaves_idle, needs_process=True),
    Case("leaves-at-work", "finishes or hands back its job at SIGTERM", faults.leaves_at_work, needs_process=True),
    Case(
        "leaves-between",
        "hands back or does a job that it got while it was told to leave",
        faults.leaves_between,
        needs_process=True,
    ),
)
