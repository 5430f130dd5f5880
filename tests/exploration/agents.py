"""What an agent of the model does: on its own, and when something arrives."""

from collections.abc import Iterator
from typing import NamedTuple

from common.messages import ResultStatus
from tests.exploration.scope import Safeguard, Scope
from tests.exploration.state import (
    LEASE,
    SLOTS,
    Agent,
    Ask,
    Cancel,
    Grant,
    Heard,
    Kept,
    Lost,
    Message,
    Renew,
    Result,
    Running,
    Stored,
)


class Did(NamedTuple):
    """What became of an agent, what it sent, what it wrote down, and which task's process it started."""

    agent: Agent
    sent: tuple[Message, ...] = ()
    written: Result | None = None
    began: int | None = None


def asks(number: int, agent: Agent) -> Ask:
    """Return the heartbeat that an agent sends."""
    runs = None if agent.slot is None else agent.slot.task
    return Ask(number, agent.session, SLOTS + agent.ended, agent.received, agent.heard, runs)


def on_its_own(number: int, agent: Agent, scope: Scope) -> Iterator[tuple[str, Did]]:
    """Yield what an agent can do without anything arriving."""
    slot = agent.slot
    if slot is not None:
        yield "complete", _report(number, agent, slot, ResultStatus.COMPLETED, scope)
        yield "fail", _report(number, agent, slot, ResultStatus.FAILED, scope)
        if slot.renewals < scope.renewals:
            renewal = Renew(number, slot.task, slot.attempt, slot.renewals)
            renewing = slot._replace(renewals=slot.renewals + 1, renewed_ago=0)
            yield "renew", Did(agent._replace(slot=renewing), (renewal,))


def crash(number: int, agent: Agent, scope: Scope) -> Did:
    """Lose what is only in memory, start again, and report what the journal says was begun and has no end."""
    slot = agent.slot
    spool = agent.spool if scope.has(Safeguard.SPOOL) else frozenset[Result]()
    again = Agent(session=agent.session + 1, spool=spool, journal=agent.journal, orphans=agent.orphans)
    if slot is None:
        return Did(again)
    if not scope.has(Safeguard.GUARDIAN):
        again = again._replace(orphans=agent.orphans | {(slot.task, slot.attempt)})
    if not scope.has(Safeguard.JOURNAL):
        return Did(again)
    return _left_over(number, again, slot, scope)


def crash_at_the_end(number: int, agent: Agent, scope: Scope) -> Did:
    """Crash between the two halves of a report: the broker has what the disk has not."""
    slot = agent.slot
    did = crash(number, agent, scope)
    if slot is None:
        return did
    result = Result(number, slot.task, slot.attempt, ResultStatus.COMPLETED, started=True)
    # Its process has ended, so it leaves none behind.
    return did._replace(agent=did.agent._replace(orphans=agent.orphans), sent=(result, *did.sent))


def arrive(number: int, agent: Agent, message: Message, scope: Scope) -> Did:
    """Take in a message."""
    slot = agent.slot
    match message:
        case Grant():
            return _granted(number, agent, message, scope)
        case Heard() if message.session == agent.session:
            return Did(agent._replace(heard=max(agent.heard, message.granted)))
        case Kept() if slot is not None and _answers(slot, message):
            assert slot.renewed_ago is not None
            left = max(slot.left, LEASE - slot.renewed_ago)
            return Did(agent._replace(slot=slot._replace(left=left, renewed_ago=None)))
        case Lost() if slot is not None and (slot.task, slot.attempt) == (message.task, message.attempt):
            return _report(number, agent, slot, ResultStatus.FAILED, scope)
        case Cancel() if slot is not None and (slot.task, slot.attempt) == (message.task, message.attempt):
            return _report(number, agent, slot, ResultStatus.CANCELLED, scope)
        case Stored():
            kept = {one for one in agent.spool if (one.task, one.attempt) != (message.task, message.attempt)}
            return Did(agent._replace(spool=frozenset(kept)))
    return Did(agent)


def _granted(number: int, agent: Agent, grant: Grant, scope: Scope) -> Did:
    key = (grant.task, grant.attempt)
    if key in agent.seen and scope.has(Safeguard.GRANT_DEDUPE):
        return Did(agent)
    if key not in agent.seen and _is_of_earlier_life(agent, key, scope):
        return Did(agent)  # it was begun in an earlier life, and reported at the start of this one
    back = Result(number, grant.task, grant.attempt, ResultStatus.FAILED, started=False)
    known = agent._replace(seen=agent.seen | {key})
    is_own = grant.session == agent.session
    if not is_own and scope.has(Safeguard.SESSION):
        return Did(known, (back,))
    known = known._replace(received=agent.received + 1)
    # What another process sent, and when, this one does not know.
    left = LEASE - grant.age if is_own and scope.has(Safeguard.LEASE_FROM_ASKING) else LEASE
    if agent.slot is not None or (left <= 0 and scope.has(Safeguard.EXPIRED_GRANT)):
        return Did(known._replace(ended=known.ended + 1), (back,))
    running = Running(grant.task, grant.attempt, left)
    return Did(known._replace(slot=running, journal=known.journal | {key}), began=grant.task)


def _is_of_earlier_life(agent: Agent, key: tuple[int, int], scope: Scope) -> bool:
    if key in agent.journal and scope.has(Safeguard.JOURNAL):
        return True
    return any((one.task, one.attempt) == key for one in agent.spool)


def _answers(slot: Running, kept: Kept) -> bool:
    return (slot.task, slot.attempt, slot.renewals - 1) == (kept.task, kept.attempt, kept.number) and (
        slot.renewed_ago is not None
    )


def _report(number: int, agent: Agent, slot: Running, status: ResultStatus, scope: Scope) -> Did:
    """The process is gone: write down how it ended, and send that."""
    return _left_over(number, agent._replace(slot=None, ended=agent.ended + 1), slot, scope, status)


def _left_over(
    number: int, agent: Agent, slot: Running, scope: Scope, status: ResultStatus = ResultStatus.FAILED
) -> Did:
    result = Result(number, slot.task, slot.attempt, status, started=True)
    spool = agent.spool | {result} if scope.has(Safeguard.SPOOL_UNTIL_STORED) else agent.spool
    return Did(agent._replace(spool=spool), (result,), written=result)
