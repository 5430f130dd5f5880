"""What an agent of the model does: on its own, and when something arrives."""

from collections.abc import Iterator
from typing import NamedTuple

from common.messages import ResultStatus
from tests.exploration.scope import Safeguard, Scope
from tests.exploration.state import (
    LEASE,
    Agent,
    Asking,
    Cancel,
    Claim,
    Grant,
    Kept,
    Lost,
    Message,
    Refusal,
    Renew,
    Result,
    Running,
    Stored,
    Ticket,
)


class Did(NamedTuple):
    """What became of an agent, what it sent, what it wrote down, and which task's process it started."""

    agent: Agent
    sent: tuple[Message, ...] = ()
    written: Result | None = None
    began: int | None = None


def take(number: int, agent: Agent, ticket: Ticket) -> Did:
    """Ask for the task of a ticket."""
    claim = 10 * number + agent.asked
    asking = Asking(ticket.task, ticket.fence, claim)
    return Did(agent._replace(slot=asking, asked=agent.asked + 1), (Claim(number, ticket.task, ticket.fence, claim),))


def on_its_own(number: int, agent: Agent, scope: Scope) -> Iterator[tuple[str, Did]]:
    """Yield what an agent can do without anything arriving; a ticket is taken by `take`."""
    slot = agent.slot
    if isinstance(slot, Asking):
        yield "give up asking", Did(agent._replace(slot=None))
    elif isinstance(slot, Running):
        yield "complete", _report(number, agent, slot, ResultStatus.COMPLETED, scope)
        yield "fail", _report(number, agent, slot, ResultStatus.FAILED, scope)
        if slot.renewals < scope.renewals:
            renewal = Renew(number, slot.task, slot.fence, slot.renewals)
            renewing = slot._replace(renewals=slot.renewals + 1, renewed_ago=0)
            yield "renew", Did(agent._replace(slot=renewing), (renewal,))


def crash(number: int, agent: Agent, scope: Scope) -> Did:
    """Lose what is only in memory, start again, and report what the journal says was begun and has no end."""
    slot = agent.slot
    spool = agent.spool if scope.has(Safeguard.SPOOL) else frozenset[Result]()
    again = agent._replace(slot=None, seen=frozenset(), spool=spool)
    if not isinstance(slot, Running):
        return Did(again)
    if not scope.has(Safeguard.GUARDIAN):
        again = again._replace(orphans=agent.orphans | {(slot.task, slot.fence)})
    if not scope.has(Safeguard.JOURNAL):
        return Did(again)
    return _report(number, again, slot, ResultStatus.FAILED, scope)


def crash_at_the_end(number: int, agent: Agent, scope: Scope) -> Did:
    """Crash between the two halves of a report: the broker has what the disk has not."""
    slot = agent.slot
    did = crash(number, agent, scope)
    if not isinstance(slot, Running):
        return did
    result = Result(number, slot.task, slot.attempt, slot.fence, ResultStatus.COMPLETED, started=True)
    # Its process has ended, so it leaves none behind.
    return did._replace(agent=did.agent._replace(orphans=agent.orphans), sent=(result, *did.sent))


def arrive(number: int, agent: Agent, message: Message, scope: Scope) -> Did:
    """Take in a message."""
    slot = agent.slot
    match message:
        case Grant():
            return _granted(number, agent, message, scope)
        case Refusal() if isinstance(slot, Asking) and slot.claim == message.claim:
            return Did(agent._replace(slot=None))
        case Kept() if isinstance(slot, Running) and _answers(slot, message):
            assert slot.renewed_ago is not None
            left = max(slot.left, LEASE - slot.renewed_ago)
            return Did(agent._replace(slot=slot._replace(left=left, renewed_ago=None)))
        case Lost() if isinstance(slot, Running) and (slot.task, slot.fence) == (message.task, message.fence):
            return _report(number, agent, slot, ResultStatus.FAILED, scope)
        case Cancel() if isinstance(slot, Running) and (slot.task, slot.fence) == (message.task, message.fence):
            return _report(number, agent, slot, ResultStatus.CANCELLED, scope)
        case Stored():
            kept = {one for one in agent.spool if (one.task, one.fence) != (message.task, message.fence)}
            return Did(agent._replace(spool=frozenset(kept)))
    return Did(agent)


def _granted(number: int, agent: Agent, grant: Grant, scope: Scope) -> Did:
    slot = agent.slot
    if grant.claim in agent.seen and scope.has(Safeguard.GRANT_DEDUPE):
        return Did(agent)
    known = agent._replace(seen=agent.seen | {grant.claim})
    if isinstance(slot, Asking) and slot.claim == grant.claim:
        left = LEASE - slot.age if scope.has(Safeguard.LEASE_FROM_ASKING) else LEASE
        if left > 0 or not scope.has(Safeguard.EXPIRED_GRANT):
            running = Running(grant.task, grant.attempt, grant.fence, left)
            journal = known.journal | {(grant.task, grant.fence)}
            return Did(known._replace(slot=running, journal=journal), began=grant.task)
        known = known._replace(slot=None)
    elif slot is None and not scope.has(Safeguard.GRANT_DEDUPE):
        return Did(known._replace(slot=Running(grant.task, grant.attempt, grant.fence, LEASE)), began=grant.task)
    if (grant.task, grant.fence) in agent.journal and scope.has(Safeguard.JOURNAL):
        return Did(known)  # it was begun in an earlier life, and reported at the start of this one
    if any((one.task, one.fence) == (grant.task, grant.fence) for one in agent.spool):
        return Did(known)
    back = Result(number, grant.task, grant.attempt, grant.fence, ResultStatus.FAILED, started=False)
    return Did(known, (back,))


def _answers(slot: Running, kept: Kept) -> bool:
    return (slot.task, slot.fence, slot.renewals - 1) == (kept.task, kept.fence, kept.number) and (
        slot.renewed_ago is not None
    )


def _report(number: int, agent: Agent, slot: Running, status: ResultStatus, scope: Scope) -> Did:
    """The process is gone: write down how it ended, and send that."""
    result = Result(number, slot.task, slot.attempt, slot.fence, status, started=True)
    spool = agent.spool | {result} if scope.has(Safeguard.SPOOL_UNTIL_STORED) else agent.spool
    return Did(agent._replace(slot=None, spool=spool), (result,), written=result)
