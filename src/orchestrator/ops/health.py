"""Is the process alive, and can it do its work? Each thing that it needs is named."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

from fastapi import Request, Response

from common.rest.health import Alive, CheckResult, Readiness
from common.rest.identities import Permission
from orchestrator.http.routes import Router
from orchestrator.identities.access import find_caller

router = Router(tags=["health"])

Check = Callable[[], Awaitable[str]]

# A supervisor asks often and gives up soon, and anybody may ask: so one answer serves all who ask within this time.
LATELY_SECONDS = 2.0
READY_SECONDS = 0.25
ANSWER_SECONDS = 1.0

Answer = TypeVar("Answer")


class Lately(Generic[Answer]):
    """Gives the answer of `ask` to all callers, and asks at most once in so many seconds."""

    def __init__(self, ask: Callable[[], Awaitable[Answer]], *, seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._asked_at = 0.0
        self._found: asyncio.Future[Answer] | None = None

    async def answer(self) -> Answer:
        """Return what `ask` returned lately, or is about to return."""
        now = asyncio.get_running_loop().time()
        if self._found is None or now - self._asked_at >= self._seconds:
            self._asked_at, self._found = now, asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._found)


async def passed(checks: Mapping[str, Check]) -> Mapping[str, bool]:
    """Return for each check whether it passed; one that gives no answer has failed."""
    return dict(zip(checks, await asyncio.gather(*map(_passes, checks.values())), strict=True))


async def _passes(check: Check) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await check()
    except Exception:  # whatever it is, `/ready` says it
        return False
    return True


async def readiness(checks: Mapping[str, Check]) -> Readiness:
    """Run every check; one that raises is not well, and its message says why."""
    results: dict[str, CheckResult] = {}
    for name, check in checks.items():
        try:
            results[name] = CheckResult(ok=True, detail=await check())
        except Exception as error:
            results[name] = CheckResult(ok=False, detail=f"{type(error).__name__}: {error}")
    ready = all(result.ok for result in results.values())
    return Readiness(status="ready" if ready else "not_ready", checks=results)


@router.get("/health", summary="Is the process alive?")
async def get_health(request: Request) -> Alive:
    """Answers 200 whenever the process can answer at all, also while the broker or the database is away."""
    lately: Lately[Mapping[str, bool]] | None = getattr(request.app.state, "lately", None)
    return Alive() if lately is None else Alive(**await lately.answer())


@router.get("/ready", summary="Can it do its work?", responses={503: {"model": Readiness}})
async def get_readiness(request: Request, response: Response) -> Readiness:
    """Asks the broker, the database, the schema's version and every loop; 503 when one of them is not well.

    The details are for callers with the permission `read`; without a token the answer has yes or no for each name.
    """
    lately: Lately[Readiness] = request.app.state.readiness
    found = await lately.answer()
    if found.status != "ready":
        response.status_code = 503
    caller = find_caller(request.scope)
    return found if caller is not None and caller.may(Permission.READ) else _without_details(found)


def _without_details(found: Readiness) -> Readiness:
    return Readiness(status=found.status, checks={name: CheckResult(ok=one.ok) for name, one in found.checks.items()})
