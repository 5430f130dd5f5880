"""The REST endpoints of the contract `/orchestrator/runs`: ask for a repair, list, look, approve, try again.

What differs from the letter of the contract, and why:
- Everybody is asked for a token, as on every other route. The approver is who makes the request; `approver` in the body
  must agree with that, and `token` is the `approval_id` that the run shows, or the caller's own token: both were issued
  here, and nothing else counts.
- `approval_token` lets nothing begin. An approval is one of exactly the run that asks for it, so there is none before.
- An error has the one shape of all errors, which has a `detail`, and beside it `error` and `remediation`.
- What changes the files is a diff in the instruction, or `patch`, which the contract does not have; see
  `services/planner.py`.
- `rollback` is no step to resume from: the host does it by itself, and has ended it when the run has ended.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import Headers

from common.errors import ChiffonError
from common.rest.repairs import (
    LONGEST_SERVICE,
    MOST_ON_A_PAGE,
    MOST_SKIPPED,
    Repair,
    RepairApproval,
    RepairArtifacts,
    RepairDetail,
    RepairList,
    RepairRequest,
    RepairRetry,
    RepairStatus,
    RepairStepName,
)
from orchestrator.artifacts.links import Links
from orchestrator.http.context import trace_of
from orchestrator.http.errors import ERROR_CONTENT, headers_of, problem_of, response, validation_problem
from orchestrator.http.routes import Router
from orchestrator.http.strict import Digits
from orchestrator.identities.access import READ, MayApprove, MayDispatch
from orchestrator.repairs import answers
from orchestrator.repairs.errors import invalid_request, problem_in_words
from orchestrator.repairs.model import RepairFilter
from orchestrator.repairs.service import RepairService

Responses = dict[int | str, dict[str, Any]]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

NOT_FOUND: Responses = {404: {"content": ERROR_CONTENT, "description": "run_not_found: there is no such run (2010)."}}


class WithWords(APIRoute):
    """A route that answers errors with the words of the contract."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except ChiffonError as error:
                problem = problem_in_words(error, problem_of(error, trace_of(request.scope)))
                return response(problem, headers_of(error))
            except RequestValidationError as error:
                field = request.scope["route"].body_field
                given = {"body": error.body, "query": dict(request.query_params), "path": request.path_params}
                model = None if field is None else field.field_info.annotation
                problem = invalid_request(validation_problem(error.errors(), trace_of(request.scope), given, model))
                return response(problem)

        return answer


router = Router(
    prefix="/orchestrator/runs",
    tags=["repairs"],
    route_class=WithWords,
    responses={
        422: {"content": ERROR_CONTENT, "description": "invalid_request: a field is not usable (1002)."},
        500: {"content": ERROR_CONTENT},
        503: {"content": ERROR_CONTENT},
    },
)


async def get_repairs(request: Request) -> RepairService:
    """Return the service of the running app."""
    service: RepairService = request.app.state.repairs
    return service


async def get_links(request: Request) -> Links:
    """Return what signs the paths of artifacts in the running app."""
    links: Links = request.app.state.artifacts.links
    return links


Repairs = Annotated[RepairService, Depends(get_repairs)]
Signed = Annotated[Links, Depends(get_links)]


@router.post(
    "",
    status_code=HTTPStatus.ACCEPTED,
    summary="Repair a service",
    responses={
        400: {
            "content": ERROR_CONTENT,
            "description": "unknown_service (2013); invalid_instruction: it is empty, or says nothing that could be "
            "done (1002).",
        },
        403: {"content": ERROR_CONTENT, "description": "policy_refused (3001), forbidden (4003)."},
    },
)
async def create_repair(order: RepairRequest, request: Request, repairs: Repairs, caller: MayDispatch) -> Repair:
    """Plan the repair of a compose service and have it run on its host.

    On a service whose gate is `pre-run` it waits for an approval first.
    """
    known = await repairs.start(
        order.target_service,
        order.instruction,
        patch=order.patch,
        priority=order.priority,
        trace_id=trace_of(request.scope),
        by=caller,
    )
    return answers.repair(known)


@router.get("", dependencies=[READ], summary="List repairs, newest first")
async def list_repairs(
    repairs: Repairs,
    status: Annotated[RepairStatus | None, Query(description="Only repairs that stand there.")] = None,
    service: Annotated[
        str | None, Query(max_length=LONGEST_SERVICE, description="Only repairs of this service, in any case.")
    ] = None,
    limit: Annotated[Digits, Query(ge=1, le=MOST_ON_A_PAGE)] = 20,
    offset: Annotated[Digits, Query(ge=0, le=MOST_SKIPPED, description="So many of the newest are left out.")] = 0,
) -> RepairList:
    """Return repairs without their plans and steps."""
    wanted = RepairFilter(status, None if service is None else service.strip().lower())
    return answers.of_page(await repairs.newest(wanted, limit=limit, offset=offset))


@router.get("/{run_id}", dependencies=[READ], summary="One repair with its steps", responses={**NOT_FOUND})
async def get_repair(run_id: UUID, repairs: Repairs, links: Signed) -> RepairDetail:
    """Return a repair with its plan, how its steps stand, and what they left."""
    return answers.detail(*await repairs.detail(run_id), links)


@router.get("/{run_id}/artifacts", dependencies=[READ], summary="What a repair left", responses={**NOT_FOUND})
async def list_repair_artifacts(run_id: UUID, repairs: Repairs, links: Signed) -> RepairArtifacts:
    """Return the files that the steps left, oldest first, with signed paths to download them."""
    return answers.listed(await repairs.artifacts(run_id), links)


@router.post(
    "/{run_id}/approvals",
    summary="Approve a repair",
    responses={
        **NOT_FOUND,
        403: {"content": ERROR_CONTENT, "description": "forbidden: the caller may not answer this (4003)."},
        409: {
            "content": ERROR_CONTENT,
            "description": "approval_not_applicable: it waits for no approval; approval_invalid: what was sent is none "
            "(3003).",
        },
    },
)
async def approve_repair(
    run_id: UUID, approval: RepairApproval, request: Request, repairs: Repairs, caller: MayApprove
) -> Repair:
    """Say yes, as the caller, to what a repair waits for; with the last yes that is needed it goes on."""
    known = await repairs.approve(
        run_id,
        approver=approval.approver.id,
        role=approval.approver.role,
        token=approval.token,
        expires_at=approval.expires_at,
        by=caller,
        own_token=_own_token(request.headers),
    )
    return answers.repair(known)


@router.post(
    "/{run_id}/retry",
    status_code=HTTPStatus.ACCEPTED,
    summary="Try a repair again",
    responses={
        400: {
            "content": ERROR_CONTENT,
            "description": "invalid_resume_step: a step before it has not succeeded (1002).",
        },
        **NOT_FOUND,
        409: {
            "content": ERROR_CONTENT,
            "description": "retry_not_allowed: it is under way, waits for an approval, or has succeeded; "
            "missing_action_plan: the run is no repair (2011).",
        },
    },
)
async def retry_repair(run_id: UUID, repairs: Repairs, caller: MayDispatch, retry: RepairRetry | None = None) -> Repair:
    """Try a repair again that failed or was rolled back, from a step on; what succeeded before it is kept."""
    asked = retry or RepairRetry()
    step = None if asked.resume_from_step is None else RepairStepName(asked.resume_from_step)
    return answers.repair(await repairs.retry(run_id, step=step, reason=asked.reason or "", by=caller))


def _own_token(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
