"""WebSockets and tickets count no longer than the token behind them, and a token opens only so many."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from common.errors import TooManyRequests
from common.rest.identities import PrincipalKind, Role
from orchestrator.database.pool import Pool
from orchestrator.identities import tickets
from orchestrator.identities.authenticator import Authenticator, Limits
from orchestrator.identities.model import Caller, Unauthenticated
from orchestrator.identities.service import IdentityService, Issued
from orchestrator.identities.sessions import Sessions
from orchestrator.identities.tickets import TicketService
from tests.factories import make_caller
from tests.integration.identities.ends import ENDS, end, lasting


async def issue(identities: IdentityService, *, lasts: timedelta | None = None) -> Issued:
    """Return a token of a new person."""
    person = await identities.create(PrincipalKind.PERSON, f"p-{uuid4().hex[:12]}", [Role.VIEWER], by="test")
    return await identities.issue(person.principal_id, by="test", lasts=lasts)


def bearer_of(issued: Issued) -> Caller:
    return replace(make_caller("ann", Role.VIEWER), token_id=issued.token.token_id)


@pytest.fixture
async def authenticator(pool: Pool) -> AsyncIterator[Authenticator]:
    async with Authenticator(pool, Limits(requests_per_token=100, failures_per_address=100)) as opened:
        yield opened


@pytest.mark.parametrize("how", ENDS)
async def test_a_websocket_is_to_be_closed_once_its_token_has_ended_and_no_other_is(pool: Pool, how: str) -> None:
    identities, sessions = IdentityService(pool), Sessions(pool, limit=1)
    valid, ending = await issue(identities), await issue(identities, lasts=lasting(how))

    with sessions.opened(bearer_of(valid)) as stays, sessions.opened(bearer_of(ending)) as ends:
        await end(identities, ending, how)
        await sessions.run_once()

        assert (stays.is_set(), ends.is_set()) == (False, True)


async def test_a_token_opens_so_many_websockets_at_a_time_and_no_more(pool: Pool) -> None:
    identities, sessions = IdentityService(pool), Sessions(pool, limit=2)
    one, other = bearer_of(await issue(identities)), bearer_of(await issue(identities))

    with sessions.opened(one):
        with sessions.opened(one), sessions.opened(other), pytest.raises(TooManyRequests), sessions.opened(one):
            pass
        with sessions.opened(one):
            pass


@pytest.mark.parametrize("how", ENDS)
async def test_a_ticket_counts_no_longer_than_its_token(pool: Pool, authenticator: Authenticator, how: str) -> None:
    identities, service = IdentityService(pool), TicketService(pool)
    valid, ending = await issue(identities), await issue(identities, lasts=lasting(how))
    good, late = await service.give(bearer_of(valid)), await service.give(bearer_of(ending))

    await end(identities, ending, how)

    assert (await authenticator.caller_with_ticket(good, address="")).token_id == valid.token.token_id
    with pytest.raises(Unauthenticated):
        await authenticator.caller_with_ticket(late, address="")


async def test_a_ticket_that_was_not_used_in_time_opens_nothing(
    pool: Pool, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tickets, "LASTS", timedelta(0))
    late = await TicketService(pool).give(bearer_of(await issue(IdentityService(pool))))

    with pytest.raises(Unauthenticated):
        await authenticator.caller_with_ticket(late, address="")
