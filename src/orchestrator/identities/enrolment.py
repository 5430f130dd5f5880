"""How an agent becomes known: an administrator names it, and a token that works once gets it its own credential."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from common.errors import ChiffonError, Conflict, ErrorCode, TooManyRequests
from common.rest.identities import PrincipalKind, Role, TokenPurpose
from orchestrator.database.pool import Pool, transaction
from orchestrator.events import queries as events
from orchestrator.events.model import Kind, NewEvent
from orchestrator.http.addresses import counted_as
from orchestrator.identities import queries
from orchestrator.identities.model import NewPrincipal
from orchestrator.identities.rates import Rates
from orchestrator.identities.rules import check_name, pinned
from orchestrator.identities.service import (
    IdentityIsDisabled,
    IdentityTaken,
    Issued,
    add,
    created,
    issue,
    token_created,
)
from orchestrator.identities.tokens import digest_of, purpose_of

log = logging.getLogger(__name__)

# Enrolments under way, each with a connection to the database: wrong tokens cannot use up the others.
MOST_AT_ONCE = 2


class EnrolmentRefused(ChiffonError):
    """The token lets nobody become an agent; why, only the log says."""

    code = ErrorCode.ENROLMENT_REFUSED

    def __init__(self) -> None:
        super().__init__("This enrolment token is not known, has been used, or has run out. Ask for a new one.")


@dataclass(frozen=True, slots=True)
class Invitation:
    """What an agent needs to enrol: it was given an id, and a token that works once."""

    agent_id: UUID
    agent_type: str
    labels: Mapping[str, Any]
    issued: Issued


@dataclass(frozen=True, slots=True)
class Credential:
    """What an agent has got: it proves with the secret that it is the agent with this id."""

    agent_id: UUID
    agent_type: str
    secret: str = field(repr=False)
    trusted_keys: Sequence[str] = ()


class EnrolmentService:
    """Invites agents and lets them in. `trusted_keys` returns what an agent is to believe from then on."""

    def __init__(
        self,
        pool: Pool,
        *,
        failures_per_second: float,
        trusted_keys: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._trusted_keys = trusted_keys
        self._clock = clock
        self._enrolling = asyncio.Semaphore(MOST_AT_ONCE)
        self._failures = Rates(per_second=failures_per_second, burst=10 * failures_per_second)

    async def invite(
        self, name: str, agent_type: str, *, labels: Mapping[str, Any] | None = None, lasts: timedelta, by: str
    ) -> Invitation:
        """Give an agent its id and a token that works once; any earlier one, if it was not used, works no more.

        The pool and the `labels` are pinned: the agent cannot change them, nor can a second invitation.
        Raises `InvalidField`, and `Conflict` when the name is another identity's or the agent has enrolled.
        """
        check_name(name)
        fixed = pinned(labels or {})
        async with transaction(self._pool) as db:
            told: list[NewEvent] = []
            agent = await queries.lock_named(db, name)
            if agent is None:
                new = NewPrincipal(
                    uuid4(),
                    PrincipalKind.AGENT,
                    name,
                    frozenset({Role.AGENT}),
                    agent_id=uuid4(),
                    agent_type=agent_type,
                    labels=fixed,
                )
                agent = await add(db, new, by=by)
                told.append(created(agent, by=by))
            if agent.agent_id is None or agent.agent_type != agent_type:
                raise IdentityTaken(name)
            if agent.labels != fixed:
                raise Conflict(
                    f"The agent {name!r} was invited with other labels, which do not change. Choose another name."
                )
            if agent.disabled_at is not None:
                raise IdentityIsDisabled(name)
            if await queries.is_enrolled(db, agent.principal_id):
                raise Conflict(f"The agent {name!r} has enrolled. Disable it, and enrol its host under a new name.")
            await queries.revoke_enrolments(db, agent.principal_id, by=by)
            issued = await issue(db, agent, TokenPurpose.ENROLMENT, by=by, lasts=lasts)
            await events.append(db, *told, token_created(agent, issued.token, by=by))
        log.info("agent.invited", extra={"agent_id": agent.agent_id, "identity": name, "by": by})
        return Invitation(agent.agent_id, agent_type, fixed, issued)

    async def enrol(self, secret: str, *, address: str) -> Credential:
        """Turn a token that works once into a credential. Raises `EnrolmentRefused` and `TooManyRequests`."""
        if purpose_of(secret) is not TokenPurpose.ENROLMENT:
            raise self._wrong(address)
        async with self._enrolling, transaction(self._pool) as db:
            agent = await queries.use_enrolment(db, digest_of(secret))
            if agent is None or agent.agent_id is None or agent.agent_type is None:
                raise self._wrong(address)
            issued = await issue(db, agent, TokenPurpose.AGENT, by=agent.name)
            about = {"identity": agent.name, "agent_type": agent.agent_type, "token_id": str(issued.token.token_id)}
            await events.append(db, NewEvent(Kind.AGENT_ENROLLED, agent.name, about, agent_id=agent.agent_id))
        log.info("agent.enrolled", extra={"agent_id": agent.agent_id, "identity": agent.name, "address": address})
        return Credential(agent.agent_id, agent.agent_type, issued.secret, tuple(self._trusted_keys()))

    def _wrong(self, address: str) -> ChiffonError:
        """Count a failure of an address; return what to raise."""
        wait = self._failures.take(counted_as(address), now=self._clock())
        if wait > 0:
            return TooManyRequests("Too many enrolment tokens from this address were wrong.", retry_after=wait)
        return EnrolmentRefused()
