"""Is the process alive, and can it do its work? Each thing that it needs is named."""

from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request, Response

from common.rest.health import Alive, CheckResult, Readiness

router = APIRouter(tags=["health"])

Check = Callable[[], Awaitable[str]]


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
async def get_health() -> Alive:
    """Answers whenever the process can answer at all."""
    return Alive()


@router.get("/ready", summary="Can it do its work?", responses={503: {"model": Readiness}})
async def get_readiness(request: Request, response: Response) -> Readiness:
    """Asks the broker, the database, the schema's version and every loop; 503 when one of them is not well."""
    found = await readiness(request.app.state.checks)
    if found.status != "ready":
        response.status_code = 503
    return found
