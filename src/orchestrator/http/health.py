"""Is the process alive, and can it do its work? Each thing that it needs is named."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response

from common.rest.health import Alive, CheckResult, Readiness

router = APIRouter(tags=["health"])

Check = Callable[[], Awaitable[str]]

# A supervisor asks often and gives up soon, and anybody may ask: so one answer serves all who ask within this time.
LATELY_SECONDS = 2.0
ANSWER_SECONDS = 1.0


class Lately:
    """Says whether checks passed, asked at most once in `LATELY_SECONDS`; a check that gives no answer has failed."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._asked_at: float | None = None
        self._passed: asyncio.Future[dict[str, bool]] | None = None

    async def passed(self) -> Mapping[str, bool]:
        """Return for each check whether it passed."""
        now = asyncio.get_running_loop().time()
        if self._passed is None or self._asked_at is None or now - self._asked_at >= LATELY_SECONDS:
            self._asked_at, self._passed = now, asyncio.ensure_future(self._ask())
        return await asyncio.shield(self._passed)

    async def _ask(self) -> dict[str, bool]:
        return dict(zip(self._checks, await asyncio.gather(*map(_passes, self._checks.values())), strict=True))


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
    lately: Lately | None = getattr(request.app.state, "lately", None)
    return Alive() if lately is None else Alive(**await lately.passed())


@router.get("/ready", summary="Can it do its work?", responses={503: {"model": Readiness}})
async def get_readiness(request: Request, response: Response) -> Readiness:
    """Asks the broker, the database, the schema's version and every loop; 503 when one of them is not well."""
    found = await readiness(request.app.state.checks)
    if found.status != "ready":
        response.status_code = 503
    return found
