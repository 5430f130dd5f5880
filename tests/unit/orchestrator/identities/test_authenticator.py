"""How long a token is believed, how many it may send, and that those who guess have to wait. The ledger is a dict."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from common.errors import ChiffonError, TooManyRequests
from common.rest.identities import PrincipalKind, Role, TokenPurpose
from orchestrator.identities import authenticator as module
from orchestrator.identities import queries
from orchestrator.identities.authenticator import Authenticator, Limits
from orchestrator.identities.enrolment import EnrolmentRefused, EnrolmentService
from orchestrator.identities.model import Bearer, Caller, Unauthenticated
from orchestrator.identities.permissions import permissions_of
from orchestrator.identities.tokens import digest_of, new_ticket, new_token
from tests.fakes.clock import FakeClock

HERE = "192.0.2.1"
BURST = 10
LIMITS = Limits(requests_per_token=10, failures_per_address=BURST / 10)


class Ledger:
    """Stands in for the pool and for what is asked of it: who holds which token, and which tickets there are."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.takes_seconds = 0.0
        self.bearers: dict[bytes, Bearer] = {}
        self.tickets: dict[bytes, Bearer] = {}
        self.looked_up: list[set[bytes]] = []

    def acquire(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def issue(self, *, remaining: timedelta | None = None) -> str:
        token = new_token(TokenPurpose.API)
        self.bearers[digest_of(token)] = self._bearer(remaining)
        return token

    def give_ticket(self) -> str:
        ticket = new_ticket()
        self.tickets[digest_of(ticket)] = self._bearer(None)
        return ticket

    async def find_bearers(self, _: object, digests: Collection[bytes]) -> dict[bytes, Bearer]:
        self.looked_up.append(set(digests))
        self._clock.advance(seconds=self.takes_seconds)
        return {digest: self.bearers[digest] for digest in digests if digest in self.bearers}

    async def use_tickets(self, _: object, digests: Collection[bytes]) -> dict[bytes, Bearer]:
        return {digest: self.tickets.pop(digest) for digest in digests if digest in self.tickets}

    def _bearer(self, remaining: timedelta | None) -> Bearer:
        roles = frozenset({Role.VIEWER})
        caller = Caller(uuid4(), PrincipalKind.PERSON, "ann", roles, permissions_of(roles), token_id=uuid4())
        return Bearer(caller, TokenPurpose.API, remaining)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Ledger:
    made = Ledger(clock)
    monkeypatch.setattr(queries, "find_bearers", made.find_bearers)
    monkeypatch.setattr(queries, "use_tickets", made.use_tickets)
    return made


@pytest.fixture
async def authenticator(ledger: Ledger, clock: FakeClock) -> AsyncIterator[Authenticator]:
    pool: Any = ledger
    async with Authenticator(pool, LIMITS, clock=clock.monotonic) as opened:
        yield opened


async def refusals(authenticator: Authenticator, addresses: list[str]) -> list[type[ChiffonError]]:
    """Send an unknown token from each of these addresses in turn; return how they were refused."""
    found = list[type[ChiffonError]]()
    for address in addresses:
        with pytest.raises((Unauthenticated, TooManyRequests)) as refused:
            await authenticator.caller(new_token(TokenPurpose.API), address=address)
        found.append(type(refused.value))
    return found


async def test_a_token_that_ends_is_refused_within_a_second_though_nobody_tells(
    authenticator: Authenticator, ledger: Ledger, clock: FakeClock
) -> None:
    token = ledger.issue()
    await authenticator.caller(token, address=HERE)
    ledger.bearers.clear()

    clock.advance(seconds=0.9)

    with pytest.raises(Unauthenticated):
        await authenticator.caller(token, address=HERE)


async def test_the_second_of_a_token_begins_before_the_ledger_is_asked(
    authenticator: Authenticator, ledger: Ledger, clock: FakeClock
) -> None:
    token, ledger.takes_seconds = ledger.issue(), 0.5
    await authenticator.caller(token, address=HERE)

    clock.advance(seconds=0.4)
    await authenticator.caller(token, address=HERE)

    assert len(ledger.looked_up) == 2


async def test_a_token_is_not_believed_beyond_its_own_end(
    authenticator: Authenticator, ledger: Ledger, clock: FakeClock
) -> None:
    token = ledger.issue(remaining=timedelta(seconds=0.2))
    await authenticator.caller(token, address=HERE)
    ledger.bearers.clear()

    clock.advance(seconds=0.3)

    with pytest.raises(Unauthenticated):
        await authenticator.caller(token, address=HERE)


async def test_after_news_of_a_change_no_token_is_believed_unasked(
    authenticator: Authenticator, ledger: Ledger
) -> None:
    token = ledger.issue()
    await authenticator.caller(token, address=HERE)
    ledger.bearers.clear()

    authenticator.changed()

    with pytest.raises(Unauthenticated):
        await authenticator.caller(token, address=HERE)


async def test_so_many_tokens_are_remembered_and_no_more(
    authenticator: Authenticator, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_REMEMBERED", 2)
    tokens = [ledger.issue() for _ in range(3)]
    for token in tokens:
        await authenticator.caller(token, address=HERE)

    await authenticator.caller(tokens[0], address=HERE)

    assert ledger.looked_up == [{digest_of(token)} for token in (*tokens, tokens[0])]


async def test_a_token_makes_so_many_requests_and_then_waits_also_when_it_is_remembered(
    authenticator: Authenticator, ledger: Ledger, clock: FakeClock
) -> None:
    token, other = ledger.issue(), ledger.issue()
    for _ in range(100):
        await authenticator.caller(token, address=HERE)

    with pytest.raises(TooManyRequests):
        await authenticator.caller(token, address=HERE)
    await authenticator.caller(other, address=HERE)
    clock.advance(seconds=0.1)
    await authenticator.caller(token, address=HERE)


async def test_a_ticket_shown_twice_in_one_look_up_opens_one_websocket(
    authenticator: Authenticator, ledger: Ledger
) -> None:
    ticket = ledger.give_ticket()

    found = await asyncio.gather(
        *(authenticator.caller_with_ticket(ticket, address=HERE) for _ in range(3)), return_exceptions=True
    )

    assert [type(one) for one in found] == [Caller, Unauthenticated, Unauthenticated]


async def test_an_address_that_guesses_has_to_wait_and_its_valid_token_has_not(
    authenticator: Authenticator, ledger: Ledger, clock: FakeClock
) -> None:
    assert await refusals(authenticator, [HERE] * (BURST + 1)) == [Unauthenticated] * BURST + [TooManyRequests]

    await authenticator.caller(ledger.issue(), address=HERE)
    assert await refusals(authenticator, ["192.0.2.2"]) == [Unauthenticated]
    clock.advance(seconds=1)
    assert await refusals(authenticator, [HERE] * 2) == [Unauthenticated, TooManyRequests]


async def test_the_addresses_of_one_ipv6_subscriber_guess_together(authenticator: Authenticator) -> None:
    addresses = [f"2001:db8::{number:x}" for number in range(1, BURST + 2)]

    assert await refusals(authenticator, addresses) == [Unauthenticated] * BURST + [TooManyRequests]
    assert await refusals(authenticator, ["2001:db8:0:1::1"]) == [Unauthenticated]


async def test_a_ticket_that_is_guessed_counts_as_a_guess(authenticator: Authenticator) -> None:
    for _ in range(BURST):
        with pytest.raises(Unauthenticated):
            await authenticator.caller_with_ticket(new_ticket(), address=HERE)

    assert await refusals(authenticator, [HERE]) == [TooManyRequests]


async def test_the_addresses_of_one_ipv6_subscriber_guess_enrolments_together(ledger: Ledger, clock: FakeClock) -> None:
    pool: Any = ledger
    enrolment = EnrolmentService(pool, failures_per_second=BURST / 10, clock=clock.monotonic)
    found = list[type[BaseException]]()
    for number in range(1, BURST + 2):
        with pytest.raises((EnrolmentRefused, TooManyRequests)) as refused:
            await enrolment.enrol("che_guessed", address=f"2001:db8::{number:x}")
        found.append(type(refused.value))

    assert found == [EnrolmentRefused] * BURST + [TooManyRequests]
