"""The REST endpoints of dead letters: list, look, replay, discard."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Query, Request

from common.broker.base import BrokerUnavailable
from common.errors import ChiffonError
from common.rest.dead_letters import (
    LARGEST_ID,
    DeadLetter,
    DeadLetterDetail,
    DeadLetterKind,
    DeadLetterPage,
    DeadLetterState,
    Settled,
    SettleRequest,
    SettleResponse,
)
from orchestrator.dead_letters.answers import detail
from orchestrator.dead_letters.model import Letter
from orchestrator.dead_letters.service import DeadLetterService
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT, problem_of
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayOperate

Responses = dict[int | str, dict[str, Any]]

NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "There is no such dead letter (2004)."}}
SETTLED: Responses = {
    400: {"content": ERROR_CONTENT, "description": "It is settled, or cannot be replayed (2002)."},
    **NOT_FOUND,
}

router = Router(
    prefix="/api/v1/dead-letters",
    tags=["dead letters"],
    responses={
        422: {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."},
        500: {"content": ERROR_CONTENT},
        503: {"content": ERROR_CONTENT},
    },
)


async def get_dead_letters(request: Request) -> DeadLetterService:
    """Return the dead letter service of the running app."""
    service: DeadLetterService = request.app.state.dead_letters
    return service


DeadLetters = Annotated[DeadLetterService, Depends(get_dead_letters)]
LetterId = Annotated[Digits, Path(ge=1, le=LARGEST_ID)]


@router.get("", dependencies=[READ], summary="List dead letters, newest first")
async def list_dead_letters(
    letters: DeadLetters,
    state: Annotated[DeadLetterState | None, Query(description="waiting, replayed or discarded")] = None,
    kind: Annotated[DeadLetterKind | None, Query(description="message or task")] = None,
    limit: Annotated[Digits, Query(ge=1, le=200)] = 50,
    cursor: Annotated[Digits | None, Query(ge=1, le=LARGEST_ID, description="`next_cursor` of the last page.")] = None,
) -> DeadLetterPage:
    """Return what nobody could deal with, without the bodies, a page at a time."""
    found = await letters.newest(state=state, kind=kind, before=cursor, limit=limit + 1)
    page, more = found[:limit], len(found) > limit
    return DeadLetterPage(
        items=[DeadLetter.model_validate(letter) for letter in page], next_cursor=str(page[-1].id) if more else None
    )


@router.get("/{letter_id}", dependencies=[READ], summary="One dead letter with its body", responses={**NOT_FOUND})
async def get_dead_letter(letter_id: LetterId, letters: DeadLetters) -> DeadLetterDetail:
    """Return a dead letter. Its body is text, or base64 if it is none, and JSON as well where it is that."""
    return detail(await letters.get(letter_id))


@router.post("/replay", summary="Replay up to 100 dead letters")
async def replay_dead_letters(
    order: SettleRequest, request: Request, letters: DeadLetters, caller: MayOperate
) -> SettleResponse:
    """Replay many; each is answered on its own."""
    return await _settle_all(order.ids, trace_of(request.scope), lambda one: letters.replay(one, by=caller))


@router.post("/discard", summary="Discard up to 100 dead letters")
async def discard_dead_letters(
    order: SettleRequest, request: Request, letters: DeadLetters, caller: MayOperate
) -> SettleResponse:
    """Discard many; each is answered on its own."""
    return await _settle_all(order.ids, trace_of(request.scope), lambda one: letters.discard(one, by=caller))


@router.post("/{letter_id}/replay", summary="Try it again", responses={**SETTLED})
async def replay_dead_letter(letter_id: LetterId, letters: DeadLetters, caller: MayOperate) -> DeadLetter:
    """Put a message back into the queue that it came from, or dispatch a task once more as a new one.

    What is still not to be dealt with becomes a new dead letter; nothing is replayed by itself.
    """
    return DeadLetter.model_validate(await letters.replay(letter_id, by=caller))


@router.post("/{letter_id}/discard", summary="Let it be", responses={**SETTLED})
async def discard_dead_letter(letter_id: LetterId, letters: DeadLetters, caller: MayOperate) -> DeadLetter:
    """Say that nothing more is to be done about it. It stays in the list as discarded."""
    return DeadLetter.model_validate(await letters.discard(letter_id, by=caller))


async def _settle_all(ids: list[int], trace_id: UUID, settle: Callable[[int], Awaitable[Letter]]) -> SettleResponse:
    """Settle one after another; once the broker is found to be away, the rest is not tried."""
    results: list[Settled] = []
    away: BrokerUnavailable | None = None
    for letter_id in ids:
        try:
            if away is not None:
                raise away
            letter = await settle(letter_id)
        except ChiffonError as error:
            away = error if isinstance(error, BrokerUnavailable) else None
            problem = problem_of(error, trace_id)
            results.append(Settled(id=letter_id, status_code=problem.status, error=problem))
        else:
            results.append(Settled(id=letter_id, status_code=200, dead_letter=DeadLetter.model_validate(letter)))
    return SettleResponse(results=results)
